/* robust_mutex: threads that hold a robust mutex and end without unlocking it. Whoever waits must learn of it, and
 * does so only if the kernel knows each thread's robust list and the mutex its thread id. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "target.h"

#define MOST 256

static struct pair {
    pthread_mutex_t mutex;
    pthread_barrier_t held;
    pthread_t owner;
    unsigned number;
} pairs[MOST];

static __thread uint64_t thread_count = 5;
static __thread char thread_name[16];
static __thread unsigned char thread_zeros[5000];

/* Checks what belongs to this thread alone, before and after some time has passed. */
static void check_own(unsigned number, pid_t id)
{
    char name[16] = "";
    CHECK(gettid() == id, "thread %d has become %d", id, gettid());
    CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0, "a thread's name cannot be read");
    CHECK(strcmp(name, thread_name) == 0, "thread %u is called %s, not %s", number, name, thread_name);
    CHECK(thread_count == 5 + number, "the __thread counter of thread %u is %llu", number,
          (unsigned long long)thread_count);
    for (size_t at = 0; at < sizeof thread_zeros; at++)
        CHECK(thread_zeros[at] == (unsigned char)number, "__thread byte %zu of thread %u is %d", at, number,
              thread_zeros[at]);
}

static void *owner(void *argument)
{
    struct pair *pair = argument;
    const pid_t id = gettid();
    thread_count += pair->number;
    memset(thread_zeros, (int)pair->number, sizeof thread_zeros);
    snprintf(thread_name, sizeof thread_name, "owner-%u", pair->number);
    pthread_setname_np(pthread_self(), thread_name);
    CHECK(pthread_mutex_lock(&pair->mutex) == 0, "a mutex could not be locked");
    pthread_barrier_wait(&pair->held);
    for (int step = 0; step < 10; step++) {
        work_for_us(100);
        check_own(pair->number, id);
    }
    return NULL;
}

static void start(struct pair *pair, unsigned number)
{
    pair->number = number;
    CHECK(pthread_create(&pair->owner, NULL, owner, pair) == 0, "no thread could be started");
}

static void await_death(struct pair *pair)
{
    int outcome = pthread_mutex_lock(&pair->mutex);
    CHECK(outcome == EOWNERDEAD, "waiting for the dead owner of mutex %u gave %d, not EOWNERDEAD", pair->number,
          outcome);
    CHECK(pthread_mutex_consistent(&pair->mutex) == 0, "mutex %u could not be repaired", pair->number);
    CHECK(pthread_mutex_unlock(&pair->mutex) == 0, "mutex %u could not be unlocked", pair->number);
    CHECK(pthread_join(pair->owner, NULL) == 0, "thread %u could not be joined", pair->number);
}

void robust_mutex(const struct options *options)
{
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    for (unsigned at = 0; at < options->threads; at++) {
        pthread_mutex_init(&pairs[at].mutex, &robust);
        pthread_barrier_init(&pairs[at].held, NULL, 2);
    }
    while (goes_on()) {
        for (unsigned at = 0; at < options->threads; at++)
            start(&pairs[at], at);
        for (unsigned at = 0; at < options->threads; at++)
            pthread_barrier_wait(&pairs[at].held);
        for (unsigned at = 0; at < options->threads; at++)
            await_death(&pairs[at]);
        round_ok();
    }
}
