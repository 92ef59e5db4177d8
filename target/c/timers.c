/* timers: interval timers and POSIX timers that go off every few milliseconds, and one that does not for long. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

/* Real-time signals by number: SIGRTMIN is no constant. */
#define TO_PROCESS 40
#define TO_THREAD 41
#define PERIOD_NS 3000000
#define FAR_SECONDS 3000
#define PATIENCE_NS 5000000000u

/* A timer that goes off again and again, and how often it has. */
static struct source {
    const char *what;
    int signal, code, value;
    volatile uint64_t times;
    volatile int first_wrong;
} sources[] = {
    {"setitimer, real time", SIGALRM, SI_KERNEL, 0, 0, 0},
    {"setitimer, processor time", SIGPROF, SI_KERNEL, 0, 0, 0},
    {"timer_create, to the process", TO_PROCESS, SI_TIMER, 4711, 0, 0},
    {"timer_create, to a thread", TO_THREAD, SI_TIMER, 4712, 0, 0},
};
#define SOURCES (sizeof sources / sizeof *sources)

static timer_t distant;
static volatile pid_t second_id;
static volatile bool end;

static void went_off(int signal, siginfo_t *info, void *context)
{
    (void)context;
    for (struct source *source = sources; source < sources + SOURCES; source++) {
        if (source->signal != signal)
            continue;
        bool right = info->si_code == source->code && (!source->value || info->si_value.sival_int == source->value);
        source->first_wrong |= !right || (signal == TO_THREAD && gettid() != second_id);
        source->times++;
    }
}

static void *second(void *nothing)
{
    second_id = gettid();
    const struct timespec pause = {.tv_nsec = PERIOD_NS};
    while (!end)
        nanosleep(&pause, NULL);
    return nothing;
}

static timer_t posix_timer(const struct source *source, const struct itimerspec *when)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = source->signal};
    event.sigev_value.sival_int = source->value;
    if (source->signal == TO_THREAD) {
        event.sigev_notify = SIGEV_THREAD_ID;
        event._sigev_un._tid = second_id;
    }
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "%s: it cannot be created", source->what);
    CHECK(timer_settime(timer, 0, when, NULL) == 0, "%s: it cannot be set", source->what);
    return timer;
}

static void arm(void)
{
    for (size_t at = 0; at < SOURCES; at++) {
        struct sigaction action = {.sa_sigaction = went_off, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
        sigaction(sources[at].signal, &action, NULL);
    }
    const struct itimerval often = {{0, PERIOD_NS / 1000}, {0, PERIOD_NS / 1000}};
    setitimer(ITIMER_REAL, &often, NULL);
    setitimer(ITIMER_PROF, &often, NULL);
    const struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}}, far = {{0, 0}, {FAR_SECONDS, 0}};
    distant = posix_timer(&sources[2], &far);
    posix_timer(&sources[2], &period);
    posix_timer(&sources[3], &period);
}

/* Each must go off again soon; working meanwhile uses up the processor time that one of them counts. */
static void await_each(void)
{
    for (const struct source *source = sources; source < sources + SOURCES; source++) {
        const uint64_t before = source->times, start = now_ns();
        while (source->times == before)
            CHECK(now_ns() - start < PATIENCE_NS, "%s: it does not go off any more", source->what);
        CHECK(!source->first_wrong, "%s: its signal carries something else", source->what);
    }
}

static void check_distant(uint64_t armed_ns)
{
    struct itimerspec left;
    CHECK(timer_gettime(distant, &left) == 0, "the timer that is far away is gone");
    const int64_t passed = (int64_t)((now_ns() - armed_ns) / 1000000000u);
    const int64_t off = FAR_SECONDS - passed - left.it_value.tv_sec;
    CHECK(off > -5 && off < 5, "the timer that is far away is %lld s off", (long long)off);
}

void timers(const struct options *options)
{
    (void)options;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second, NULL) == 0, "no thread could be started");
    while (!second_id)
        ;
    arm();
    const uint64_t armed_ns = now_ns();
    while (goes_on()) {
        await_each();
        check_distant(armed_ns);
        round_ok();
    }
    end = true;
    pthread_join(thread, NULL);
}
