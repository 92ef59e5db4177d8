/* Calls sleep(3)'s kin and clock_gettime(2), which the vDSO answers. Prints numbers; ends at the first oddity. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    struct timespec before = {0}, now;
    for (int number = 0;; number++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec < before.tv_sec || time(NULL) < 1000000000) {
            puts("FAIL the clock went back");
            return EXIT_FAILURE;
        }
        before = now;
        printf("%d\n", number);
        fflush(stdout);
        if (number % 20 == 19)
            sleep(1);
        else
            usleep(2000);
    }
}
