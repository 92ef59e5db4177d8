/* readers MEBIBYTES: a process and two children, each with so much memory of its own and as much that they have from their
 * common parent. Says so, waits for a file named "go", then each touches every page in a random order and looks whether it
 * holds what it held. Prints how many were wrong and how long it took, or that a child was ended by a signal. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN 2

static uint64_t pages, *common, *own;

static uint64_t mixed(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
    n = (n ^ n >> 27) * 0x94d049bb133111eb;
    return n ^ n >> 31;
}

static void fill(uint64_t *memory, uint64_t whose)
{
    for (uint64_t page = 0; page < pages; page++)
        memory[page << 9] = mixed(whose << 32 | page);
}

/* Looks at all pages of both, in the order of a permutation of a power of two. */
static uint64_t look(uint64_t whose)
{
    uint64_t wrong = 0, n = whose;
    while (access("go", F_OK))
        usleep(2000);
    for (uint64_t i = 0; i < pages; i++) {
        n = n * 6364136223846793005 + 1442695040888963407;
        uint64_t page = n & (pages - 1);
        wrong += own[page << 9] != mixed(whose << 32 | page);
        wrong += common[page << 9] != mixed(page);
    }
    return wrong;
}

int main(int argc, char **argv)
{
    struct timespec before, after;
    uint64_t wrong = 0;
    int ready[2], status;
    char byte;
    pages = (argc > 1 ? strtoull(argv[1], 0, 10) : 8) << 8;
    common = mmap(0, 2 * pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (common == MAP_FAILED || pipe(ready))
        return 1;
    own = common + (pages << 9);
    fill(common, 0);
    for (uint64_t child = 1; child <= CHILDREN; child++) {
        if (fork() == 0) {
            fill(own, child);
            if (write(ready[1], "", 1) != 1)
                return 1;
            return look(child) != 0;
        }
    }
    fill(own, CHILDREN + 1);
    for (int child = 0; child < CHILDREN; child++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    printf("ready\n");
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &before);
    wrong = look(CHILDREN + 1);
    while (wait(&status) > 0) {
        if (WIFSIGNALED(status))
            printf("ended by signal %d\n", WTERMSIG(status));
        wrong += WIFEXITED(status) && WEXITSTATUS(status);
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%lu of %lu wrong, %ld ms\n", wrong, 2 * pages,
           (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
    return wrong != 0;
}
