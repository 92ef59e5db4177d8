/* attributes: takes on what the kernel keeps of a thread and a process beside memory and descriptors, and prints it, a line
 * each, before and after it has moved; then exits with 7. Two threads, with different values. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

enum { INTERLEAVE = 3 };

static pthread_barrier_t barrier;
static char was[64];

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

static void print_sets(const char *who)
{
    char line[256];
    FILE *status = fopen("/proc/thread-self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNewPrivs", 10) == 0)
            printf("%s %s", who, line);
    if (status)
        fclose(status);
}

static void print_thread(const char *who)
{
    struct sched_param parameter;
    cpu_set_t processors;
    int signal = 0, mode = -1;
    unsigned long nodes = 0;
    prctl(PR_GET_PDEATHSIG, &signal);
    sched_getparam(0, &parameter);
    sched_getaffinity(0, sizeof processors, &processors);
    printf("%s policy %d priority %d nice %d\n", who, sched_getscheduler(0), parameter.sched_priority,
           getpriority(PRIO_PROCESS, 0));
    printf("%s processors %d first %d\n", who, CPU_COUNT(&processors), CPU_ISSET(0, &processors) != 0);
    printf("%s ioprio %ld slack %d death %d\n", who, syscall(SYS_ioprio_get, 1, 0), prctl(PR_GET_TIMERSLACK), signal);
    syscall(SYS_get_mempolicy, &mode, &nodes, 65, 0, 0);
    printf("%s memory mode %d nodes %lx\n", who, mode, nodes);
    print_sets(who);
}

static void *other(void *nothing)
{
    struct sched_param parameter = {.sched_priority = 3};
    unsigned long node = 1;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    sched_setscheduler(0, SCHED_RR, &parameter);
    prctl(PR_SET_PDEATHSIG, 12);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_set_mempolicy, INTERLEAVE, &node, 65);
    pthread_barrier_wait(&barrier);
    print_thread("other");
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    print_thread("other");
    pthread_barrier_wait(&barrier);
    return nothing;
}

static void take_on(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    syscall(SYS_capget, &header, sets);
    sets[0].inheritable |= 1 << CAP_CHOWN | 1 << CAP_NET_RAW;
    sets[0].effective &= ~(1u << CAP_MKNOD);
    syscall(SYS_capset, &header, sets);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0);
    prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT);
    setpriority(PRIO_PROCESS, 0, 7);
    syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6);
    prctl(PR_SET_TIMERSLACK, 123456);
    prctl(PR_SET_PDEATHSIG, 10);
    prctl(PR_SET_SECUREBITS, 1 << 2, 0, 0, 0);
    prctl(PR_SET_MDWE, 1, 0, 0, 0);
}

static void print_all(void)
{
    print_thread("main");
    printf("main secure bits %d, never both written and executed %d\n", prctl(PR_GET_SECUREBITS), prctl(PR_GET_MDWE, 0, 0, 0, 0));
}

int main(void)
{
    char is[64];
    pthread_t thread;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_barrier_init(&barrier, NULL, 2);
    where(was, sizeof was);
    take_on();
    pthread_create(&thread, NULL, other, NULL);
    print_all();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    puts("ready");
    do {
        usleep(1000);
        where(is, sizeof is);
    } while (strcmp(was, is) == 0);
    print_all();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    puts("done");
    return 7;
}
