/* Mappings that are moved, grown, split, emptied and replaced in random order, with the seed of each page known.
 *
 * Each slot owns a window of address space, of which one half is in use; what moves goes to the other half. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "mappings.h"

#define SLOTS 48
#define HALF ((size_t)128)

static struct slot {
    char *window;
    size_t half; /* which one is in use */
    size_t pages;
    bool shared;
    uint64_t seeds[HALF];
} slots[SLOTS];

static uint64_t next_seed = 1;

static char *address(const struct slot *slot, size_t page)
{
    return slot->window + (slot->half * HALF + page) * PAGE;
}

static char *other_half(const struct slot *slot)
{
    return slot->window + (1 - slot->half) * HALF * PAGE;
}

static void check(const struct slot *slot, size_t from, size_t to, const char *what)
{
    for (size_t page = from; page < to; page++)
        check_page(address(slot, page), slot->seeds[page], what);
}

/* Leaves every fifth page as it is: often never touched. */
static void refill(struct slot *slot, size_t from, size_t to)
{
    for (size_t page = from; page < to; page++)
        if (page % 5 != 4)
            fill_page(address(slot, page), slot->seeds[page] = next_seed++);
}

static void forget(struct slot *slot, size_t from, size_t to)
{
    memset(slot->seeds + from, 0, (to - from) * sizeof *slot->seeds);
}

static void create(struct slot *slot, size_t pages)
{
    const int sharing = slot->shared ? MAP_SHARED : MAP_PRIVATE;
    slot->pages = pages;
    char *start = mmap(address(slot, 0), pages * PAGE, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_FIXED,
                       -1, 0);
    CHECK(start == address(slot, 0), "a mapping could not be made");
    forget(slot, 0, pages);
    refill(slot, 0, pages);
}

static void protect(struct slot *slot, size_t from, size_t to)
{
    char *start = address(slot, from);
    size_t length = (to - from) * PAGE;
    CHECK(mprotect(start, length, PROT_NONE) == 0, "mprotect to none");
    CHECK(mprotect(start, length, PROT_READ) == 0, "mprotect to read");
    check(slot, from, to, "after mprotect to read");
    CHECK(mprotect(start, length, PROT_READ | PROT_WRITE) == 0, "mprotect to write");
    refill(slot, from, to);
}

/* mremap takes one mapping at a time; a slot that the kernel has had to split is begun anew. */
static bool is_split(struct slot *slot, const char *found)
{
    if (found != MAP_FAILED || errno != EFAULT)
        return false;
    reserve_at(other_half(slot), HALF);
    create(slot, slot->pages);
    return true;
}

/* To the other half, there perhaps longer or shorter. */
static void move(struct slot *slot, size_t pages)
{
    if (slot->shared && pages > slot->pages) /* there is no more of the object than that */
        pages = slot->pages;
    char *found = mremap(address(slot, 0), slot->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                         other_half(slot));
    if (is_split(slot, found))
        return;
    CHECK(found == other_half(slot), "mremap to another place");
    reserve_at(address(slot, 0), slot->pages);
    if (pages > slot->pages)
        forget(slot, slot->pages, pages);
    slot->pages = pages;
    slot->half = 1 - slot->half;
}

static void move_and_leave_empty(struct slot *slot)
{
    char *found = mremap(address(slot, 0), slot->pages * PAGE, slot->pages * PAGE,
                         MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, other_half(slot));
    if (is_split(slot, found))
        return;
    CHECK(found == other_half(slot), "mremap without unmapping");
    for (size_t page = 0; page < slot->pages; page++)
        check_page(address(slot, page), slot->shared ? slot->seeds[page] : 0, "left behind by mremap");
    reserve_at(address(slot, 0), slot->pages);
    slot->half = 1 - slot->half;
}

static void shrink(struct slot *slot, size_t pages)
{
    char *found = mremap(address(slot, 0), slot->pages * PAGE, pages * PAGE, 0);
    if (is_split(slot, found))
        return;
    CHECK(found == address(slot, 0), "mremap to less");
    reserve_at(address(slot, pages), slot->pages - pages);
    slot->pages = pages;
}

/* Private pages are zero afterwards; those of a shared object stay with the object. */
static void discard(struct slot *slot, size_t from, size_t to)
{
    CHECK(madvise(address(slot, from), (to - from) * PAGE, MADV_DONTNEED) == 0, "madvise DONTNEED");
    if (!slot->shared)
        forget(slot, from, to);
    check(slot, from, to, "after madvise DONTNEED");
}

/* The kernel may take the pages at any time until they are written again. */
static void release(struct slot *slot, size_t from, size_t to)
{
    if (slot->shared)
        return;
    CHECK(madvise(address(slot, from), (to - from) * PAGE, MADV_FREE) == 0, "madvise FREE");
    for (size_t page = from; page < to; page++) {
        if (wrong_word(address(slot, page), 0) >= 0)
            check_page(address(slot, page), slot->seeds[page], "after madvise FREE");
        fill_page(address(slot, page), slot->seeds[page] = next_seed++);
    }
}

static void punch(struct slot *slot, size_t from, size_t to)
{
    if (!slot->shared)
        return;
    CHECK(madvise(address(slot, from), (to - from) * PAGE, MADV_REMOVE) == 0, "madvise REMOVE");
    forget(slot, from, to);
    check(slot, from, to, "after madvise REMOVE");
}

/* A part of it goes and a new private one comes to its place. */
static void replace(struct slot *slot, size_t from, size_t to)
{
    if (slot->shared) {
        create(slot, slot->pages);
        return;
    }
    size_t length = (to - from) * PAGE;
    CHECK(munmap(address(slot, from), length) == 0, "munmap");
    char *start = mmap(address(slot, from), length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(start == address(slot, from), "mmap where munmap made room");
    forget(slot, from, to);
    check(slot, from, to, "in a new mapping");
    refill(slot, from, to);
}

void changes_create(void)
{
    for (size_t at = 0; at < SLOTS; at++) {
        slots[at].window = reserve(2 * HALF + 1);
        slots[at].shared = at % 4 == 3;
        create(&slots[at], HALF - at);
    }
}

void changes_step(uint64_t *random)
{
    struct slot *slot = &slots[random_below(random, SLOTS)];
    size_t from = random_below(random, slot->pages), to = from + 1 + random_below(random, slot->pages - from);
    check(slot, from, from + 1, "before a change");
    switch (random_below(random, 9)) {
    case 0: protect(slot, from, to); break;
    case 1: refill(slot, from, to); break;
    case 2: move(slot, 1 + random_below(random, HALF)); break;
    case 3: move_and_leave_empty(slot); break;
    case 4: shrink(slot, slot->pages - slot->pages / 8); break;
    case 5: discard(slot, from, to); break;
    case 6: release(slot, from, to); break;
    case 7: punch(slot, from, to); break;
    case 8: replace(slot, from, to); break;
    }
    size_t one = random_below(random, slot->pages);
    check(slot, one, one + 1, "after a change");
    if (slot->pages < HALF / 8)
        create(slot, HALF);
}

void changes_check_all(void)
{
    for (size_t at = 0; at < SLOTS; at++)
        check(&slots[at], 0, slots[at].pages, "at the end");
}
