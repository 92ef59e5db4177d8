// Objects, promises, timers and a worker thread for a while; the same lines in every run.
const { Worker, isMainThread, parentPort } = require("worker_threads");
const { createHash } = require("crypto");

function compute(seed, steps) {
  const count = new Map();
  let state = seed;
  for (let step = 0; step < steps; step++) {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    const word = "w" + (state % 5000);
    count.set(word, (count.get(word) || 0) + word.length);
  }
  return createHash("sha256").update(JSON.stringify([...count].sort())).digest("hex").slice(0, 16);
}

async function main() {
  const worker = new Worker(__filename);
  const ask = (round) => new Promise((resolve) => { worker.once("message", resolve); worker.postMessage(round); });
  for (let round = 1; round <= 25; round++) {
    const there = ask(round);
    const here = compute(round, 150000);
    await new Promise((resolve) => setTimeout(resolve, 1));
    console.log(`round ${round} ${here} ${await there}`);
  }
  await worker.terminate();
}

if (isMainThread) main();
else parentPort.on("message", (round) => parentPort.postMessage(compute(-round, 150000)));
