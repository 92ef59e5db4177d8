/* What the workloads written in C share: options, the way to say how it goes, patterned memory. */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)4096)
#define PAGE_WORDS (PAGE / sizeof(uint64_t))

struct options {
    uint64_t count;   /* rounds, UINT64_MAX if only a signal ends the run */
    unsigned threads; /* for workloads that run many */
};

/* Each runs until goes_on() says no; the first wrong byte ends the program by fail(). */
typedef void workload(const struct options *options);
workload vectors, signals, timers, robust_mutex, process_state, mappings, forker, sleeper;

/* Sets the name that every line begins with and the number of rounds; SIGTERM and SIGINT end the run from here on. */
void begin(const char *name, uint64_t count);
bool goes_on(void);
/* Counts a round in which every check held and says so now and then as "NAME N ok". */
void round_ok(void);
/* One line on standard output, at once, beginning with the name. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says "NAME: FAIL what" and ends the program with status 1. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
#define CHECK(condition, ...) \
    do { \
        if (!(condition)) \
            fail(__VA_ARGS__); \
    } while (0)

uint64_t now_ns(void);
/* Keeps a processor busy, as a program at work does; nothing waits for the end of it. */
void work_for_us(uint64_t us);

/* Makes `count` mappings of one page that are verified at exit(3); false with errno set if there cannot be so many. */
bool hold_mappings(uint64_t count);

/* A stream of numbers that its seed decides. */
uint64_t random_next(uint64_t *state);
size_t random_below(uint64_t *state, size_t bound);

/* The pattern of a page: a seed of 0 is a page of zeros. */
void fill_page(void *page, uint64_t seed);
/* The first word that is not the pattern's, or -1. */
ptrdiff_t wrong_word(const void *page, uint64_t seed);
void check_page(const void *page, uint64_t seed, const char *what);

#endif
