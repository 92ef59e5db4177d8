/* mappings: every kind of mapping keeps its content, while others are changed without a pause; heap and stack grow.
 *
 * The heap is moved by raw brk(2) and nothing here allocates, so each byte of it is ours. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mappings.h"

#define CHANGES_PER_ROUND 12
#define HEAP_MOST ((size_t)4 << 20)
/* Frames of about two pages: up to 4 MiB of the usual 8. */
#define DEEPEST 500

char *reserve(size_t pages)
{
    char *start = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(start != MAP_FAILED, "no address space");
    return start;
}

void reserve_at(char *start, size_t pages)
{
    if (pages > 0)
        CHECK(mmap(start, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
                  == start,
              "no address space");
}

static char *heap;
static size_t heap_bytes;

static char heap_byte(size_t at)
{
    return (char)(at * 37 + at / 256);
}

static char *program_break(char *wanted)
{
    return (char *)syscall(SYS_brk, wanted);
}

static void check_heap(size_t from, size_t to)
{
    for (size_t at = from; at < to; at++)
        CHECK(heap[at] == heap_byte(at), "byte %zu of the heap is %d, not %d", at, heap[at], heap_byte(at));
}

/* Grows it by an odd number of bytes, and shrinks it when it has become large. */
static void heap_round(uint64_t *random)
{
    CHECK(program_break(NULL) == heap + heap_bytes, "the program break is %td bytes off",
          program_break(NULL) - (heap + heap_bytes));
    size_t bytes = heap_bytes + 1 + random_below(random, 60000);
    if (bytes > HEAP_MOST) {
        check_heap(0, heap_bytes);
        bytes = 12345;
    }
    CHECK(program_break(heap + bytes) == heap + bytes, "the program break cannot be moved");
    for (size_t at = heap_bytes; at < bytes; at++)
        heap[at] = heap_byte(at);
    heap_bytes = bytes;
    size_t from = random_below(random, bytes);
    check_heap(from, from + 100 < bytes ? from + 100 : bytes);
    check_heap(bytes - 1, bytes);
}

static __attribute__((noinline)) void dig(unsigned levels, uint64_t seed)
{
    uint64_t frame[2 * PAGE_WORDS];
    fill_page(frame, seed + levels);
    __asm__ volatile("" : : "r"(frame) : "memory");
    if (levels > 0)
        dig(levels - 1, seed);
    check_page(frame, seed + levels, "a stack frame");
}

void mappings(const struct options *options)
{
    (void)options;
    uint64_t random = 1;
    heap = program_break(NULL);
    kinds_create();
    changes_create();
    for (uint64_t round = 0; goes_on(); round++) {
        kinds_check(round);
        for (int change = 0; change < CHANGES_PER_ROUND; change++)
            changes_step(&random);
        heap_round(&random);
        dig(round < DEEPEST ? (unsigned)round : DEEPEST, round);
        round_ok();
    }
    changes_check_all();
    check_heap(0, heap_bytes);
    kinds_remove();
}
