/* when_moved exec|exit|exit_group|last_thread: holds memory, and as soon as it notices that it was moved, while most
 * of that memory has not arrived, becomes another program or ends in the named way. Prints lines until then. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

static void act(const char *mode)
{
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
    if (argc != 2 || !(memory = malloc(BYTES)))
        return 2;
    memset(memory, 7, BYTES);
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
