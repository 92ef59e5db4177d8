# Counts and hashes words for a while; the same lines in every run.
BEGIN {
    state = 1
    for (round = 1; round <= 60; round++) {
        for (step = 0; step < 30000; step++) {
            state = (state * 69069 + 12345) % 2147483648
            word = "w" (int(state / 64) % 5000)
            count[word] += length(word)
        }
        n = asorti(count, words)
        sum = 0
        for (at = 1; at <= n; at++)
            sum = (sum * 31 + count[words[at]]) % 1000003
        print "round", round, sum
        fflush()
    }
}
