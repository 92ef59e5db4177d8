// A thread that no signal reaches: it waits for a child of its parent's, which shares its memory, to call exec or end.
// SIGUSR1 ends that one; the thread says its id first and then that it goes on.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile pid_t child;

__attribute__((noreturn)) static int wait_for_the_end(void *unused) {
    (void)unused;
    child = (pid_t)syscall(SYS_getpid);
    for (;;)
        pause();
}

static void end_it(int number) {
    (void)number;
    kill(child, SIGKILL);
}

static void *wait_for_exec(void *unused) {
    static char stack[65536] __attribute__((aligned(16)));
    printf("thread %ld\n", (long)syscall(SYS_gettid));
    fflush(stdout);
    clone(wait_for_the_end, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PARENT, NULL);
    printf("it goes on\n");
    fflush(stdout);
    return unused;
}

int main(void) {
    pthread_t thread;
    struct sigaction action = {.sa_handler = end_it, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&thread, NULL, wait_for_exec, NULL);
    for (unsigned number = 0;; number++) {
        if (child)
            printf("%u\n", number), fflush(stdout);
        struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
}
