/* vdso_handler: a thread calls the vDSO, one of another build, without a pause, until a signal interrupts it there. The
 * handler, on a stack of its own, says "inside" and stays until SIGUSR1; then the program says "outside". At SIGTERM it exits with 7.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/auxv.h>
#include <time.h>
#include <ucontext.h>

#include "other_vdso.h"

#include "moves.h"

static unsigned char *image;
static size_t size;
static volatile sig_atomic_t goes_on, was_inside;

static void let_go(int number)
{
    goes_on = number;
}

static void interrupt(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    size_t place = (size_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - (size_t)image;
    if (was_inside || place >= size)
        return;
    was_inside = 1;
    while (!goes_on)
        usleep(1000);
}

static void *hammer(void *unused)
{
    int (*clock_now)(clockid_t, struct timespec *);
    static char stack[65536];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct timespec last = {0}, now;
    need(sigaltstack(&other, NULL) == 0, "sigaltstack");
    *(void **)&clock_now = vdso_function(image, "__vdso_clock_gettime");
    while (!ending) {
        need(clock_now(CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
        need(now.tv_sec > last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec), "the clock");
        last = now;
    }
    return unused;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = interrupt, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    pthread_t thread;
    image = kernels_vdso(&size);
    need(become_another_build(), "another build");
    need(sigaction(SIGPWR, &action, NULL) == 0, "sigaction");
    signal(SIGUSR1, let_go);
    signal(SIGTERM, end);
    need(pthread_create(&thread, NULL, hammer, NULL) == 0, "pthread_create");
    for (; !ending; usleep(2000)) {
        if (!was_inside)
            pthread_kill(thread, SIGPWR);
        else
            puts(goes_on ? "outside" : "inside");
        fflush(stdout);
    }
    pthread_join(thread, NULL);
    return 7;
}
