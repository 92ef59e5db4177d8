/* random_reader MEBIBYTES: fills memory, says so, waits for a file named "go", then touches every page in a random order
 * and looks whether it holds what it held. Prints how many were wrong and how long it took. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t mixed(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
    n = (n ^ n >> 27) * 0x94d049bb133111eb;
    return n ^ n >> 31;
}

int main(int argc, char **argv)
{
    uint64_t pages = (argc > 1 ? strtoull(argv[1], 0, 10) : 64) << 8, wrong = 0, n = 1;
    uint64_t *memory = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (uint64_t page = 0; page < pages; page++)
        memory[page << 9] = mixed(page);
    printf("ready\n");
    fflush(stdout);
    while (access("go", F_OK))
        usleep(2000);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (uint64_t i = 0; i < pages; i++) {
        /* A permutation of a power of two. */
        n = n * 6364136223846793005 + 1442695040888963407;
        uint64_t page = n & (pages - 1);
        wrong += memory[page << 9] != mixed(page);
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%lu of %lu wrong, %ld ms\n", wrong, pages,
           (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
    return wrong != 0;
}
