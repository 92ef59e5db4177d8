/* different_ids: three threads that are three different users, one of them in parts; each says who it is in the beginning
 * and whenever it has been moved. Ends with 7 after the second move. */
#define _GNU_SOURCE
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_barrier_t barrier;
static volatile int moves;

static void say(const char *who)
{
    static const char *const names[] = {"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:"};
    char line[256];
    FILE *status = fopen("/proc/thread-self/status", "r");
    while (status && fgets(line, sizeof line, status))
        for (unsigned name = 0; name < sizeof names / sizeof *names; name++)
            if (strncmp(line, names[name], strlen(names[name])) == 0)
                printf("%d %s %s", moves, who, line);
    if (status)
        fclose(status);
}

static void *rounds(const char *who)
{
    for (int round = 0; round < 3; round++) {
        pthread_barrier_wait(&barrier);
        say(who);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* Each by system calls: a libc would change all threads. */
static void *dropped(void *nothing)
{
    gid_t groups[] = {9, 10};
    (void)nothing;
    syscall(SYS_setgroups, 2, groups);
    syscall(SYS_setresgid, 1001, 1001, 1001);
    syscall(SYS_setresuid, 1002, 1002, 1002);
    return rounds("dropped");
}

static void *in_parts(void *nothing)
{
    (void)nothing;
    syscall(SYS_setresgid, 1003, 1004, 0);
    syscall(SYS_setfsgid, 1003);
    syscall(SYS_setresuid, 0, 1005, 1006);
    syscall(SYS_setfsuid, 1006);
    return rounds("in parts");
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

int main(void)
{
    pthread_t threads[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_barrier_init(&barrier, NULL, 3);
    pthread_create(&threads[0], NULL, dropped, NULL);
    pthread_create(&threads[1], NULL, in_parts, NULL);
    syscall(SYS_setresgid, 1007, 0, 1008);
    syscall(SYS_setresuid, 1009, 0, 0);
    for (;;) {
        char was[64], is[64];
        pthread_barrier_wait(&barrier);
        say("main");
        pthread_barrier_wait(&barrier);
        printf("said %d\n", moves);
        if (moves == 2)
            break;
        where(was, sizeof was);
        do {
            usleep(1000);
            where(is, sizeof is);
        } while (strcmp(was, is) == 0);
        moves++;
    }
    return 7;
}
