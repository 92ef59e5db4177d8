/* How a workload in C says that it goes on, and how it learns that it is to end. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

/* At most one line in this time, however quick the rounds are. */
#define LINE_INTERVAL_NS 20000000u

static const char *name;
static uint64_t rounds, wanted, last_line_ns;
static volatile sig_atomic_t stop;

static void ask_for_end(int signal)
{
    (void)signal;
    stop = 1;
}

void begin(const char *workload_name, uint64_t count)
{
    name = workload_name;
    wanted = count;
    struct sigaction action = {.sa_handler = ask_for_end, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

bool goes_on(void)
{
    return !stop && rounds < wanted;
}

/* One write(2) a line, no buffer and no allocation: heap and streams belong to the workload. */
static void line(const char *format, va_list arguments)
{
    char text[512];
    size_t length = strlen(name);
    memcpy(text, name, length);
    int more = vsnprintf(text + length, sizeof text - length - 1, format, arguments);
    length += more < 0 ? 0 : (size_t)more;
    if (length > sizeof text - 2)
        length = sizeof text - 2;
    text[length++] = '\n';
    if (write(STDOUT_FILENO, text, length) != (ssize_t)length)
        _exit(EXIT_FAILURE);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line(format, arguments);
    va_end(arguments);
}

void fail(const char *format, ...)
{
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    say(": FAIL %s", what);
    _exit(EXIT_FAILURE);
}

void round_ok(void)
{
    rounds++;
    uint64_t now = now_ns();
    if (last_line_ns && now - last_line_ns < LINE_INTERVAL_NS)
        return;
    last_line_ns = now;
    say(" %llu ok", (unsigned long long)rounds);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void work_for_us(uint64_t us)
{
    uint64_t start = now_ns();
    while (now_ns() - start < us * 1000)
        ;
}
