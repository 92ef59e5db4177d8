-- Tables, strings and coroutines for a while; the same lines in every run.
local state = 1
local function random(bound)
  state = (state * 1103515245 + 12345) % 2147483648
  return state % bound
end

local producer = coroutine.wrap(function()
  while true do coroutine.yield(random(5000)) end
end)

local count = {}
for round = 1, 60 do
  for _ = 1, 40000 do
    local word = "w" .. producer()
    count[word] = (count[word] or 0) + #word
  end
  local words = {}
  for word in pairs(count) do words[#words + 1] = word end
  table.sort(words)
  local sum = 0
  for _, word in ipairs(words) do sum = (sum * 31 + count[word]) % 1000003 end
  io.write("round ", round, " ", sum, "\n")
  io.flush()
end
