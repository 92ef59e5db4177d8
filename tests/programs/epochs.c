// Makes the files 0, 1, 2 ... in its directory, each of which must not be there yet, and prints their numbers.
// Whoever runs twice finds a file of the other one and says so.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    for (unsigned epoch = 0;; epoch++) {
        char name[32];
        snprintf(name, sizeof name, "epoch.%u", epoch);
        int made = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (made < 0) {
            printf("%u is there already\n", epoch);
            fflush(stdout);
            return 3;
        }
        close(made);
        printf("%u\n", epoch);
        fflush(stdout);
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
}
