/* when_moved exec|exit|exit_group|last_thread|dofork|keeponfork|wipeonfork|share: holds memory, and as soon as it
 * notices that it was moved, while most of that memory has not arrived, becomes another program or ends in the named
 * way; or changes what a child inherits and forks one that looks; or leaves its memory to another process and ends.
 * Prints lines until then. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)64 << 20)

static char *memory;

static void *idle(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

static void *ends_last(void *main_thread)
{
    pthread_join(*(pthread_t *)main_thread, NULL);
    puts("the main thread has ended");
    fflush(stdout);
    exit(memory[BYTES / 2] == 7 ? 7 : 8);
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

/* A child that expects `wanted` in memory that has not been touched since the move: its status. */
static int child_finds(int wanted)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(memory[BYTES / 3] == wanted && memory[BYTES / 2] == wanted ? 7 : 8);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 9;
}

static int outlives(void *nothing)
{
    static const char kept[] = "the memory is kept\n";
    while (getppid() != 1)
        usleep(1000);
    usleep(100000);
    if (memory[BYTES / 2] == 7 && memory[BYTES / 3] == 7 && write(1, kept, sizeof kept - 1) < 0)
        return 1;
    return nothing != NULL;
}

static void act(const char *mode)
{
    static char stack[65536];
    if (strcmp(mode, "dofork") == 0 && madvise(memory, BYTES, MADV_DOFORK) == 0)
        exit(child_finds(7));
    if (strcmp(mode, "keeponfork") == 0 && madvise(memory, BYTES, MADV_KEEPONFORK) == 0)
        exit(child_finds(7));
    if (strcmp(mode, "wipeonfork") == 0 && madvise(memory, BYTES, MADV_WIPEONFORK) == 0)
        exit(child_finds(0));
    if (strcmp(mode, "share") == 0 && clone(outlives, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) > 0)
        syscall(SYS_exit_group, 7);
    static pthread_t main_thread, other;
    if (strcmp(mode, "exec") == 0)
        execl("/bin/sh", "sh", "-c", "echo another program; exit 7", (char *)NULL);
    if (strcmp(mode, "exit_group") == 0)
        syscall(SYS_exit_group, 7);
    if (strcmp(mode, "last_thread") == 0) {
        main_thread = pthread_self();
        pthread_create(&other, NULL, ends_last, &main_thread);
        pthread_exit(NULL);
    }
    exit(memory[BYTES / 3] == 7 ? 7 : 8);
}

int main(int argc, char **argv)
{
    char was[64], is[64];
    pthread_t thread;
    if (argc != 2)
        return 2;
    memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 2;
    memset(memory, 7, BYTES);
    if (strcmp(argv[1], "dofork") == 0)
        madvise(memory, BYTES, MADV_DONTFORK);
    if (strcmp(argv[1], "keeponfork") == 0)
        madvise(memory, BYTES, MADV_WIPEONFORK);
    pthread_create(&thread, NULL, idle, NULL);
    where(was, sizeof was);
    for (int number = 0;; number++) {
        where(is, sizeof is);
        if (strcmp(was, is) != 0)
            act(argv[1]);
        printf("%d\n", number);
        fflush(stdout);
        usleep(1000);
    }
}
