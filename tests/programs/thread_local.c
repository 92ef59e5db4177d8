/* Counts in a __thread variable and in a global one, and compares them. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static __thread long counter;
static long same;

int main(void)
{
    for (;;) {
        if (counter != same) {
            printf("FAIL the __thread counter is %ld, not %ld\n", counter, same);
            return EXIT_FAILURE;
        }
        printf("%ld\n", counter);
        fflush(stdout);
        counter++;
        same++;
        usleep(2000);
    }
}
