/* zero_reader: fills 64 MiB, then reads it page by page for ever and counts. What it does in that loop needs little
 * memory, so that it can say "zero_reader: FAIL" when a page does not hold what it held. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGES (64UL << 8)

static void say(unsigned number)
{
    char line[12] = "\n";
    unsigned at = sizeof line - 1;
    line[at] = '\n';
    do
        line[--at] = (char)('0' + number % 10);
    while (number /= 10);
    if (write(1, line + at, sizeof line - at) < 0)
        _exit(1);
}

int main(void)
{
    static const char wrong[] = "zero_reader: FAIL\n";
    struct timespec pause = {.tv_nsec = 1000000};
    volatile uint64_t *memory = mmap(0, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (uint64_t page = 0; page < PAGES; page++)
        memory[page << 9] = page + 1;
    for (uint64_t page = 0;; page++) {
        uint64_t at = page % PAGES;
        if (memory[at << 9] != at + 1 && write(1, wrong, sizeof wrong - 1) < 0)
            return 1;
        if (page % 16 == 0) {
            say((unsigned)(page / 16));
            nanosleep(&pause, 0);
        }
    }
}
