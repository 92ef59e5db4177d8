/* vectors: patterns that live in registers only, while another thread lets the time pass. */
#include <asm/prctl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

typedef void hold(const void *in, void *out, const volatile uint32_t *beat, uint32_t while_it_is);
hold hold_sse, hold_avx, hold_avx512, hold_masks, hold_x87, hold_general;

/* The longest set of registers: 32 of 64 bytes. */
union registers {
    uint8_t bytes[32 * 64];
    uint64_t words[32 * 8];
    struct {
        int64_t stack[8];
        uint16_t control_word;
        uint32_t mxcsr;
    } x87;
};

static volatile uint32_t beat;
static volatile bool end;

/* Changes what memory says every few milliseconds. */
static void *pacemaker(void *nothing)
{
    const struct timespec pause = {.tv_nsec = 3000000};
    while (!end) {
        nanosleep(&pause, NULL);
        beat++;
    }
    return nothing;
}

static void check_held(hold *hold, const union registers *in, size_t length, const char *what)
{
    union registers out;
    memset(&out, 0, sizeof out);
    hold(in, &out, &beat, beat);
    for (size_t at = 0; at < length; at++)
        CHECK(out.bytes[at] == in->bytes[at], "%s: byte %zu of the registers is %#x, not %#x", what, at,
              out.bytes[at], in->bytes[at]);
}

static void check_patterns(hold *hold, size_t length, const char *what, uint64_t *seed)
{
    union registers in;
    for (size_t at = 0; at < sizeof in / sizeof(uint64_t); at++)
        in.words[at] = random_next(seed);
    check_held(hold, &in, length, what);
}

static void check_x87(uint64_t *seed)
{
    union registers in;
    memset(&in, 0, sizeof in);
    for (int at = 0; at < 8; at++)
        in.x87.stack[at] = (int64_t)random_next(seed);
    in.x87.control_word = 0x0f7f; /* 64-bit precision, rounding towards zero, all masked */
    in.x87.mxcsr = 0xff80;        /* flush to zero, rounding towards zero, all masked */
    check_held(hold_x87, &in, offsetof(union registers, x87.mxcsr) + sizeof in.x87.mxcsr, "x87 and MXCSR");
}

static void check_gs(uint64_t gs)
{
    uint64_t found = 0;
    syscall(SYS_arch_prctl, ARCH_GET_GS, &found);
    CHECK(found == gs, "the GS base is %#llx, not %#llx", (unsigned long long)found, (unsigned long long)gs);
}

void vectors(const struct options *options)
{
    (void)options;
    uint64_t seed = 1, gs = (uint64_t)&seed;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, pacemaker, NULL) == 0, "no thread could be started");
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, gs) == 0, "the GS base could not be set");
    const bool avx = __builtin_cpu_supports("avx"), avx512 = __builtin_cpu_supports("avx512bw");
    if (!avx)
        say(": skipped AVX: this CPU does not have it");
    if (!avx512)
        say(": skipped AVX-512: this CPU does not have it");
    while (goes_on()) {
        check_patterns(hold_general, 9 * 8, "general registers", &seed);
        check_x87(&seed);
        check_patterns(hold_sse, 16 * 16, "SSE", &seed);
        if (avx)
            check_patterns(hold_avx, 16 * 32, "AVX", &seed);
        if (avx512) {
            check_patterns(hold_avx512, 32 * 64, "AVX-512", &seed);
            check_patterns(hold_masks, 8 * 8, "AVX-512 masks", &seed);
        }
        check_gs(gs);
        round_ok();
    }
    end = true;
    pthread_join(thread, NULL);
}
