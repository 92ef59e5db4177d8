/* sleeper: every system call that waits, each in a thread of its own. None may return EINTR unless a signal of the
 * program's own has come, and each must take its time, no less and hardly more. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

#define WAIT_NS 400000000u
#define WAIT_MS 400
/* A busy machine wakes threads late; that is not what is looked for here. */
#define MOST_LATE_NS 5000000000u
/* Of linux/futex.h, which musl-gcc does not find. */
#define FUTEX_WAIT_PRIVATE 128
#define WAKER SIGRTMIN + 3
#define QUIET SIGRTMIN + 4

static int silent[2], pipe_ends[2], event, stream[2], epoll, locked[2];
static sem_t never, posted;
static uint32_t word;
static pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER, idle = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t nobody = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t together;
static volatile bool ended;
/* When those that wait for ever began to be woken in this round, 0 before that. */
static volatile uint64_t woken_ns;

static struct timespec in_ns(clockid_t clock, uint64_t wait)
{
    struct timespec time;
    clock_gettime(clock, &time);
    uint64_t nanoseconds = (uint64_t)time.tv_nsec + wait;
    time.tv_sec += (time_t)(nanoseconds / 1000000000u);
    time.tv_nsec = (long)(nanoseconds % 1000000000u);
    return time;
}

static const struct timespec length = {0, WAIT_NS};

/* Each returns what the call returned, with errno as the call left it. */
static long call_nanosleep(void) { return nanosleep(&length, NULL); }
static long call_nanosleep_rest(void)
{
    struct timespec rest;
    return nanosleep(&length, &rest);
}
static long call_clock_nanosleep(void)
{
    errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &length, NULL);
    return errno ? -1 : 0;
}
static long call_clock_nanosleep_until(void)
{
    struct timespec until = in_ns(CLOCK_REALTIME, WAIT_NS);
    errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL);
    return errno ? -1 : 0;
}
static long call_poll(void)
{
    struct pollfd one = {silent[0], POLLIN, 0};
    return poll(&one, 1, WAIT_MS);
}
static long call_ppoll(void)
{
    struct pollfd one = {silent[0], POLLIN, 0};
    return ppoll(&one, 1, &length, NULL);
}
static long call_select(void)
{
    struct timeval time = {0, WAIT_NS / 1000};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(silent[0], &set);
    return select(silent[0] + 1, &set, NULL, NULL, &time);
}
static long call_pselect(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(silent[0], &set);
    return pselect(silent[0] + 1, &set, NULL, NULL, &length, NULL);
}
static long call_epoll_wait(void)
{
    struct epoll_event found;
    return epoll_wait(epoll, &found, 1, WAIT_MS);
}
static long call_epoll_pwait(void)
{
    struct epoll_event found;
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    return epoll_pwait(epoll, &found, 1, WAIT_MS, &ending);
}
static long call_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &length, NULL, 0); }
static long call_sem_timedwait(void)
{
    struct timespec until = in_ns(CLOCK_REALTIME, WAIT_NS);
    return sem_timedwait(&never, &until);
}
static long call_cond_timedwait(void)
{
    struct timespec until = in_ns(CLOCK_REALTIME, WAIT_NS);
    pthread_mutex_lock(&idle);
    errno = pthread_cond_timedwait(&nobody, &idle, &until);
    pthread_mutex_unlock(&idle);
    return errno ? -1 : 0;
}
static void set_time_out(void)
{
    const struct timeval time = {0, WAIT_NS / 1000};
    setsockopt(silent[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}
static long call_recv(void)
{
    char byte;
    set_time_out();
    return recv(silent[0], &byte, 1, 0);
}
static long call_read_socket(void)
{
    char byte;
    set_time_out();
    return read(silent[0], &byte, 1);
}
static long call_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, QUIET);
    return sigtimedwait(&set, NULL, &length);
}
static long call_pause(void) { return pause(); }
static long call_sigsuspend(void)
{
    sigset_t all_but_one;
    sigfillset(&all_but_one);
    sigdelset(&all_but_one, WAKER);
    return sigsuspend(&all_but_one);
}
static long call_read_pipe(void)
{
    char byte;
    return read(pipe_ends[0], &byte, 1);
}
static long call_read_event(void)
{
    uint64_t count;
    return read(event, &count, sizeof count) == sizeof count ? 1 : -1;
}
static long call_recv_stream(void)
{
    char byte;
    return recv(stream[0], &byte, 1, 0);
}
static long call_poll_for_ever(void)
{
    struct pollfd one = {stream[1], POLLIN, 0};
    return poll(&one, 1, -1);
}
static long call_sem_wait(void) { return sem_wait(&posted); }
static long call_mutex(void)
{
    errno = pthread_mutex_lock(&taken);
    if (errno == 0)
        pthread_mutex_unlock(&taken);
    return errno ? -1 : 1;
}
static long call_lock(void)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(locked[1], F_OFD_SETLKW, &whole) < 0)
        return -1;
    whole.l_type = F_UNLCK;
    fcntl(locked[1], F_OFD_SETLK, &whole);
    return 1;
}

static struct sleeper {
    const char *name;
    long (*call)(void);
    long result;
    int error; /* with a result of -1 */
    pthread_t thread;
    volatile bool returned, was_signalled; /* in this round */
} sleepers[] = {
    {"nanosleep", call_nanosleep, 0, 0, 0, false, false},
    {"nanosleep with a rest", call_nanosleep_rest, 0, 0, 0, false, false},
    {"clock_nanosleep", call_clock_nanosleep, 0, 0, 0, false, false},
    {"clock_nanosleep until", call_clock_nanosleep_until, 0, 0, 0, false, false},
    {"poll", call_poll, 0, 0, 0, false, false},
    {"ppoll", call_ppoll, 0, 0, 0, false, false},
    {"select", call_select, 0, 0, 0, false, false},
    {"pselect", call_pselect, 0, 0, 0, false, false},
    {"epoll_wait", call_epoll_wait, 0, 0, 0, false, false},
    {"epoll_pwait", call_epoll_pwait, 0, 0, 0, false, false},
    {"futex", call_futex, -1, ETIMEDOUT, 0, false, false},
    {"sem_timedwait", call_sem_timedwait, -1, ETIMEDOUT, 0, false, false},
    {"pthread_cond_timedwait", call_cond_timedwait, -1, ETIMEDOUT, 0, false, false},
    {"recv", call_recv, -1, EAGAIN, 0, false, false},
    {"read from a socket", call_read_socket, -1, EAGAIN, 0, false, false},
    {"sigtimedwait", call_sigtimedwait, -1, EAGAIN, 0, false, false},
    /* The last ones wait until they are woken. */
    {"pause", call_pause, -1, EINTR, 0, false, false},
    {"sigsuspend", call_sigsuspend, -1, EINTR, 0, false, false},
    {"poll without end", call_poll_for_ever, 1, 0, 0, false, false},
    {"read from a pipe", call_read_pipe, 1, 0, 0, false, false},
    {"read from an eventfd", call_read_event, 1, 0, 0, false, false},
    {"recv without end", call_recv_stream, 1, 0, 0, false, false},
    {"sem_wait", call_sem_wait, 0, 0, 0, false, false},
    {"pthread_mutex_lock", call_mutex, 1, 0, 0, false, false},
    {"F_OFD_SETLKW", call_lock, 1, 0, 0, false, false},
};

#define SLEEPERS (sizeof sleepers / sizeof *sleepers)
#define PAUSING 16

static uint64_t late_ns[SLEEPERS];

static _Thread_local struct sleeper *self;

static void wake(int signal)
{
    (void)signal;
    self->was_signalled = true;
}

static void *sleep_on(void *argument)
{
    struct sleeper *own = self = argument;
    sigset_t blocked; /* those that end it are for the main thread */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    if (own->call == call_sigsuspend)
        sigaddset(&blocked, WAKER);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    for (;;) {
        pthread_barrier_wait(&together);
        if (ended)
            return NULL;
        uint64_t start = now_ns();
        errno = 0;
        long result = own->call();
        int error = errno;
        uint64_t end = now_ns(), took = end - start, woken = woken_ns;
        bool is_timed = own < sleepers + PAUSING;
        own->returned = true;
        CHECK(result == own->result && (result >= 0 || error == own->error), "%s returned %ld (%s)", own->name,
              result, strerror(error));
        CHECK(took >= (is_timed ? WAIT_NS - 1000000u : 0) && took < WAIT_NS + MOST_LATE_NS, "%s took %llu us",
              own->name, (unsigned long long)took / 1000);
        CHECK(is_timed || (woken && end >= woken), "%s returned before it was woken", own->name);
        late_ns[own - sleepers] = took > WAIT_NS ? took - WAIT_NS : 0;
        pthread_barrier_wait(&together);
    }
}

static void prepare(void)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[32];
    struct sigaction action = {.sa_handler = wake, .sa_flags = SA_RESTART};
    sigaction(WAKER, &action, NULL);
    sigset_t quiet;
    sigemptyset(&quiet);
    sigaddset(&quiet, QUIET);
    pthread_sigmask(SIG_BLOCK, &quiet, NULL);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, silent) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0
              && pipe(pipe_ends) == 0, "no sockets or pipe");
    event = eventfd(0, 0);
    epoll = epoll_create1(0);
    struct epoll_event interest = {.events = EPOLLIN};
    CHECK(event >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, silent[0], &interest) == 0, "no eventfd or epoll");
    locked[0] = memfd_create("locked", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", locked[0]);
    locked[1] = open(path, O_RDWR);
    CHECK(locked[1] >= 0 && fcntl(locked[0], F_OFD_SETLK, &whole) == 0, "no lock");
    sem_init(&never, 0, 0);
    sem_init(&posted, 0, 0);
    pthread_barrier_init(&together, NULL, SLEEPERS + 1);
}

/* Ends the waits that have no end of their own. */
static void wake_all(void)
{
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    const uint64_t one = 1;
    struct sleeper *pausing = sleepers + PAUSING;
    woken_ns = now_ns();
    CHECK(write(pipe_ends[1], "", 1) == 1 && write(event, &one, sizeof one) == sizeof one, "nobody can be woken");
    CHECK(send(stream[1], "", 1, 0) == 1 && send(stream[0], "", 1, 0) == 1, "nobody can be woken");
    sem_post(&posted);
    pthread_mutex_unlock(&taken);
    fcntl(locked[0], F_OFD_SETLK, &whole);
    for (size_t at = 0; at < 2; at++)
        pthread_kill(pausing[at].thread, WAKER);
    /* On a busy machine the signal may have come before pause was called; one that never comes is not sent again. */
    for (int tries = 0; tries < 50 && !pausing->returned; tries++) {
        usleep(100000);
        if (pausing->was_signalled && !pausing->returned)
            pthread_kill(pausing->thread, WAKER);
    }
}

static void one_round(void)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char byte;
    pthread_mutex_lock(&taken);
    CHECK(fcntl(locked[0], F_OFD_SETLK, &whole) == 0, "a lock that was given up is held");
    struct timespec until = in_ns(CLOCK_MONOTONIC, WAIT_NS);
    woken_ns = 0;
    for (size_t at = 0; at < SLEEPERS; at++)
        sleepers[at].returned = sleepers[at].was_signalled = false;
    pthread_barrier_wait(&together);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
    wake_all();
    pthread_barrier_wait(&together);
    CHECK(recv(stream[1], &byte, 1, MSG_DONTWAIT) == 1, "a byte is lost");
}

void sleeper(const struct options *options)
{
    (void)options;
    prepare();
    for (size_t at = 0; at < SLEEPERS; at++)
        CHECK(pthread_create(&sleepers[at].thread, NULL, sleep_on, &sleepers[at]) == 0, "no thread");
    while (goes_on()) {
        one_round();
        size_t latest = 0;
        for (size_t at = 0; at < PAUSING; at++)
            if (late_ns[at] > late_ns[latest])
                latest = at;
        say(": %s took %llu us longer than it should, the others less", sleepers[latest].name,
            (unsigned long long)late_ns[latest] / 1000);
        round_ok();
    }
    ended = true;
    pthread_barrier_wait(&together);
    for (size_t at = 0; at < SLEEPERS; at++)
        pthread_join(sleepers[at].thread, NULL);
}
