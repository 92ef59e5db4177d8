/* Has a handler of its own on SIGUSR2, as ruby, java, nginx and PostgreSQL have. Prints numbers. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t came;

static void handler(int number)
{
    (void)number;
    came = 1;
}

int main(void)
{
    signal(SIGUSR2, handler);
    for (long number = 0;; number++) {
        if (came)
            puts("own handler");
        came = 0;
        printf("%ld\n", number);
        fflush(stdout);
        usleep(2000);
    }
}
