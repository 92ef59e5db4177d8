// Does what a line on its standard input says, while it counts: "fork" has a child that counts too and ends at SIGUSR1,
// "exec" becomes itself again, "thread" starts a thread that counts too.
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void rest(void) {
    struct timespec pause = {.tv_nsec = 2000000};
    nanosleep(&pause, NULL);
}

static void say(const char *words, unsigned number) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s%u\n", words, number);
    if (write(1, line, (size_t)length) != length)
        _exit(4);
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static void *count(void *unused) {
    for (unsigned number = 0; number < 200; number++, rest())
        say("thread ", number);
    for (;;)
        pause();
    return unused;
}

static void obey(const char *word, char **argv) {
    pthread_t thread;
    if (!strncmp(word, "fork", 4)) {
        pid_t child = fork();
        if (!child) {
            signal(SIGUSR1, end);
            for (unsigned number = 0; number < 20; number++, rest())
                say("child ", number);
            for (;;)
                pause();
        }
        int status = -1;
        waitpid(child, &status, 0);
        say("child's status ", (unsigned)status);
    } else if (!strncmp(word, "exec", 4)) {
        execv("/proc/self/exe", argv);
        _exit(5);
    } else if (!strncmp(word, "thread", 6)) {
        if (pthread_create(&thread, NULL, count, NULL))
            _exit(6);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    say("begin ", 0);
    for (unsigned number = 0;; number++, rest()) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        char word[64] = "";
        if (poll(&input, 1, 0) == 1 && (input.revents & POLLIN) && read(0, word, sizeof word - 1) > 0)
            obey(word, argv);
        say("", number);
    }
}
