/* For programs that look after each move whether all is as it was: need(), and the loop that sees moves,
 * by the PID namespace, and says how many there were until SIGTERM.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

static void need(int holds, const char *what)
{
    if (holds)
        return;
    printf("%s: FAIL %s (%s)\n", program_invocation_short_name, what, strerror(errno));
    exit(8);
}

static void end(int number)
{
    ending = number;
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

/* Calls `check` after each move, and before it returns. SIGTERM has to lead to `end` already. */
static __attribute__((unused)) void check_moves(void (*check)(void))
{
    char was[64], is[64];
    int moves = 0;
    where(was, sizeof was);
    while (!ending) {
        where(is, sizeof is);
        if (strcmp(was, is) != 0) {
            check();
            moves++;
            memcpy(was, is, sizeof was);
        }
        printf("%d\n", moves);
        fflush(stdout);
        usleep(2000);
    }
    check();
}
