/* Mappings of one page each, for whatever workload runs: it has them, and they are verified when the program ends. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target.h"

static unsigned char *held;
static size_t held_pages;

static void verify_held(void)
{
    for (size_t page = 0; page < held_pages; page++)
        if (wrong_word(held + page * PAGE, page + 1) >= 0) {
            dprintf(STDOUT_FILENO, "held mapping %zu: FAIL\n", page);
            _exit(EXIT_FAILURE);
        }
}

bool hold_mappings(uint64_t count)
{
    const int writable = PROT_READ | PROT_WRITE;
    held = mmap(NULL, count * PAGE, writable, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (held == MAP_FAILED)
        return false;
    for (size_t page = 0; page < count; page++)
        fill_page(held + page * PAGE, page + 1);
    /* Neighbours that differ in what may be done with them are mappings of their own. */
    for (size_t page = 1; page < count; page += 2)
        if (mprotect(held + page * PAGE, PAGE, PROT_READ) != 0)
            return false;
    held_pages = count;
    return atexit(verify_held) == 0;
}
