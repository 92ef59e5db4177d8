/* Holds 16 MiB of one known text and prints a number every 10 ms; "pattern: FAIL" if the text changes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT "known plaintext!"
#define BYTES (16 << 20)

static volatile sig_atomic_t ended;

static void end(int signal_number) {
    (void)signal_number;
    ended = 1;
}

int main(void) {
    char *memory = malloc(BYTES);
    if (!memory) return 1;
    for (size_t at = 0; at < BYTES; at += 16) memcpy(memory + at, TEXT, 16);
    signal(SIGTERM, end);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned long number = 0; !ended; number++) {
        printf("%lu\n", number);
        usleep(10000);
    }
    for (size_t at = 0; at < BYTES; at += 16) {
        if (memcmp(memory + at, TEXT, 16)) {
            puts("pattern: FAIL");
            return 1;
        }
    }
    puts("pattern: PASS");
    return 0;
}
