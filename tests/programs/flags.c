/* flags: takes on flags that a process has as a whole, and says which it has, a line each, in the beginning and whenever it
 * has been moved. Ends with 7 after the second move. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#define GET_REGISTRATIONS (1 << 9)

static void say(int moves)
{
    int reaps = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &reaps);
    printf("%d personality %x\n", moves, (unsigned)personality(0xffffffff));
    printf("%d reaps the children of its children %d\n", moves, reaps);
    printf("%d without transparent huge pages %d\n", moves, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    printf("%d merges memory %d\n", moves, prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0));
    printf("%d dumpable %d\n", moves, prctl(PR_GET_DUMPABLE));
    printf("%d barriers %lx\n", moves, (unsigned long)syscall(SYS_membarrier, GET_REGISTRATIONS, 0, 0));
    printf("%d said\n", moves);
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

int main(void)
{
    char was[64], is[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    personality(ADDR_NO_RANDOMIZE | STICKY_TIMEOUTS);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    prctl(PR_SET_DUMPABLE, 0);
    for (int moves = 0; moves <= 2; moves++) {
        say(moves);
        where(was, sizeof was);
        do {
            usleep(1000);
            where(is, sizeof is);
        } while (moves < 2 && strcmp(was, is) == 0);
    }
    return 7;
}
