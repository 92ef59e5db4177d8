/* crowd: many threads that sleep, one that sends them numbered signals all the time, one that starts threads which soon
 * end. No signal may be lost, come twice or out of turn, and one thread is another user, one may get no new privileges. Says
 * how often it has been moved, until SIGTERM. */
#define _GNU_SOURCE
#include "moves.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define THREADS 30
#define NUMBERED (SIGRTMIN + 5)
#define OTHER_USER 1005

static struct member {
    pthread_t thread;
    int sent, taken; /* by one thread each, and read when both are through */
} members[THREADS];
static volatile int sending = 1, taking = 1;

static void take_all(struct member *own, const sigset_t *set)
{
    const struct timespec none = {0, 0};
    siginfo_t info;
    while (sigtimedwait(set, &info, &none) == NUMBERED)
        need(info.si_value.sival_int == ++own->taken, "a signal comes out of turn");
}

static void *member(void *argument)
{
    struct member *own = argument;
    long index = own - members;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, NUMBERED);
    if (index == 5)
        need(syscall(SYS_setresuid, OTHER_USER, OTHER_USER, OTHER_USER) == 0, "it cannot become another user");
    if (index == 7)
        need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "it cannot give privileges up");
    while (taking) {
        usleep(1500 + 37 * (unsigned)index);
        take_all(own, &set);
        need(syscall(SYS_geteuid) == (index == 5 ? OTHER_USER : 0), "a thread is another user than it was");
        need(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == (index == 7), "a thread may get other privileges");
    }
    take_all(own, &set);
    return NULL;
}

static void *send(void *nothing)
{
    (void)nothing;
    for (int at = 0; sending; at = (at + 1) % THREADS) {
        union sigval number = {.sival_int = members[at].sent + 1};
        if (pthread_sigqueue(members[at].thread, NUMBERED, number) == 0)
            members[at].sent++;
        usleep(50);
    }
    return NULL;
}

static void *end_soon(void *nothing)
{
    usleep(300);
    return nothing;
}

static void *start_others(void *nothing)
{
    while (sending) {
        pthread_t thread;
        need(pthread_create(&thread, NULL, end_soon, NULL) == 0 && pthread_join(thread, NULL) == 0, "no thread");
    }
    return nothing;
}

static void nothing_to_check(void)
{
}

int main(void)
{
    pthread_t sender, starter;
    sigset_t numbered;
    sigemptyset(&numbered);
    sigaddset(&numbered, NUMBERED);
    pthread_sigmask(SIG_BLOCK, &numbered, NULL);
    for (int at = 0; at < THREADS; at++)
        need(pthread_create(&members[at].thread, NULL, member, &members[at]) == 0, "no thread");
    need(pthread_create(&sender, NULL, send, NULL) == 0, "no thread");
    need(pthread_create(&starter, NULL, start_others, NULL) == 0, "no thread");
    signal(SIGTERM, end);
    check_moves(nothing_to_check);
    sending = 0;
    pthread_join(sender, NULL);
    pthread_join(starter, NULL);
    taking = 0;
    for (int at = 0; at < THREADS; at++) {
        pthread_join(members[at].thread, NULL);
        need(members[at].taken == members[at].sent, "a signal is lost");
    }
    puts("all there");
    return 0;
}
