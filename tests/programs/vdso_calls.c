/* vdso_calls: has a vDSO of another build, there and wherever it comes, and looks all the time whether what the vDSO says
 * agrees with the kernel. Threads call its functions without a pause, by the addresses that they had at the beginning: a
 * move finds some of them in the middle of one. Prints how often it has moved; at SIGTERM exits with 7.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "other_vdso.h"

#include "moves.h"

#define THREADS 6

typedef int clock_call(clockid_t, struct timespec *);
static clock_call *clock_now, *clock_step;
static int (*day_now)(struct timeval *, struct timezone *);
static time_t (*seconds_now)(time_t *);
static int (*processor_now)(unsigned *, unsigned *, void *);
static long (*random_bytes)(void *, size_t, unsigned, void *, size_t);

static int64_t nanoseconds(struct timespec time)
{
    return time.tv_sec * 1000000000l + time.tv_nsec;
}

/* What the vDSO says of a clock lies between what the kernel says before and after. */
static void between(clockid_t clock)
{
    struct timespec before, said, after;
    /* The coarse clocks are as old as the last tick. */
    clockid_t exact = clock == CLOCK_REALTIME_COARSE ? CLOCK_REALTIME : clock == CLOCK_MONOTONIC_COARSE ? CLOCK_MONOTONIC : clock;
    int64_t tick = exact == clock ? 0 : 40000000;
    need(syscall(SYS_clock_gettime, exact, &before) == 0, "the system call");
    need(clock_now(clock, &said) == 0, "clock_gettime");
    need(syscall(SYS_clock_gettime, exact, &after) == 0, "the system call");
    need(nanoseconds(before) - tick <= nanoseconds(said) && nanoseconds(said) <= nanoseconds(after), "a clock");
}

static void check(void)
{
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_REALTIME_COARSE,
                                       CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++)
        between(clocks[i]);
    struct timespec now, step, known;
    struct timeval day;
    unsigned processor = -1u;
    need(day_now(&day, NULL) == 0 && syscall(SYS_clock_gettime, CLOCK_REALTIME, &now) == 0, "gettimeofday");
    int64_t late = nanoseconds(now) - (day.tv_sec * 1000000000l + day.tv_usec * 1000l);
    need(late >= 0 && late < 1000000000l, "the time of day");
    need(now.tv_sec - seconds_now(NULL) <= 1 && seconds_now(NULL) - now.tv_sec <= 1, "time");
    need(clock_step(CLOCK_MONOTONIC, &step) == 0 && syscall(SYS_clock_getres, CLOCK_MONOTONIC, &known) == 0, "clock_getres");
    need(nanoseconds(step) == nanoseconds(known), "how fine a clock is");
    need(processor_now(&processor, NULL, NULL) == 0 && processor < 4096, "getcpu");
    need(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec > 0, "what the libc calls");
    if (random_bytes) {
        unsigned char bytes[32] = {0}, none[32] = {0};
        need(random_bytes(bytes, sizeof bytes, 0, NULL, 0) == sizeof bytes, "getrandom");
        need(memcmp(bytes, none, sizeof none) != 0, "random bytes");
    }
}

static void *hammer(void *clock)
{
    struct timespec last = {0}, now;
    while (!ending) {
        for (int i = 0; i < 1000; i++) {
            need(clock_now((clockid_t)(intptr_t)clock, &now) == 0, "clock_gettime in a thread");
            need(nanoseconds(now) >= nanoseconds(last), "a clock that does not go backwards");
            last = now;
        }
    }
    return NULL;
}

/* The place where it came to has a vDSO of its own, which becomes one of another build too. */
static void check_and_change(void)
{
    static unsigned char *changed;
    size_t size;
    unsigned char *is = kernels_vdso(&size);
    check();
    need(is != (void *)getauxval(AT_SYSINFO_EHDR), "a vDSO that is not the old one");
    if (getenv("CHANGES_AGAIN") && is != changed) {
        need(become_another_build(), "another build again");
        changed = is;
    }
    check();
}

int main(void)
{
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    pthread_t threads[THREADS];
    unsigned char *image = (void *)getauxval(AT_SYSINFO_EHDR);
    signal(SIGTERM, end);
    need(become_another_build(), "another build");
    *(void **)&clock_now = vdso_function(image, "__vdso_clock_gettime");
    *(void **)&clock_step = vdso_function(image, "__vdso_clock_getres");
    *(void **)&day_now = vdso_function(image, "__vdso_gettimeofday");
    *(void **)&seconds_now = vdso_function(image, "__vdso_time");
    *(void **)&processor_now = vdso_function(image, "__vdso_getcpu");
    *(void **)&random_bytes = vdso_function(image, "__vdso_getrandom");
    check();
    for (long i = 0; i < THREADS; i++)
        need(pthread_create(&threads[i], NULL, hammer, (void *)(intptr_t)clocks[i % 3]) == 0, "pthread_create");
    check_moves(check_and_change);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return 7;
}
