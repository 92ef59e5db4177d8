/* waves MEBIBYTES: writes the number of the wave into every page, one after the other, then that of the next wave. In any one
 * moment the pages up to some place have one number and those behind it the one before. Whenever there is a file named
 * "look", looks whether that is so, says it, and removes the file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORDS = 512, PAUSE_PAGES = 16, LOOK_PAGES = 64 };

static uint64_t *memory, pages;

static void look(uint64_t wave, uint64_t done)
{
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t wanted = page < done ? wave : wave - 1;
        if (memory[page * WORDS] != wanted || memory[page * WORDS + WORDS - 1] != wanted) {
            printf("torn: page %lu has %lu in wave %lu at %lu\n", page, memory[page * WORDS], wave, done);
            exit(1);
        }
    }
    printf("whole\n");
    fflush(stdout);
    unlink("look");
}

int main(int argc, char **argv)
{
    pages = (argc > 1 ? strtoull(argv[1], 0, 10) : 16) << 8;
    memory = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (uint64_t wave = 1;; wave++)
        for (uint64_t page = 0; page < pages; page++) {
            memory[page * WORDS] = memory[page * WORDS + WORDS - 1] = wave;
            if (page % PAUSE_PAGES == 0)
                usleep(500);
            if (page % LOOK_PAGES == 0 && access("look", F_OK) == 0)
                look(wave, page + 1);
        }
}
