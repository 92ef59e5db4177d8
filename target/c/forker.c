/* forker: forks only after it has been moved, while its memory is still arriving.
 *
 * It has no child while it waits, since a process with children is not moved. It notices a move by the PID namespace,
 * which is another one afterwards, and forks at once: the children verify all of the memory that the parent has
 * hardly touched, while the parent changes its own copy. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

#define PAGES ((size_t)(64 << 20) / PAGE)
#define CHILDREN 4
#define PAUSE_NS 500000

extern char **environ;

static char *memory;
static uint64_t generation = 1;

static uint64_t seed_of(size_t page, uint64_t of_generation)
{
    return page % 7 == 3 ? 0 : page + 1 + of_generation * 1000000;
}

/* Each child begins elsewhere, checks every page and writes to some: its writes are its own. */
static _Noreturn void child(size_t number)
{
    for (size_t at = 0; at < PAGES; at++) {
        size_t page = (at + number * (PAGES / CHILDREN)) % PAGES;
        check_page(memory + page * PAGE, seed_of(page, generation), "in a child");
        if (page % 16 == number)
            fill_page(memory + page * PAGE, number + 1);
    }
    _exit(EXIT_SUCCESS);
}

static void reap(pid_t process, const char *what)
{
    int status;
    pid_t found;
    while ((found = waitpid(process, &status, 0)) < 0 && errno == EINTR)
        ;
    CHECK(found == process, "%s %d cannot be waited for", what, process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS, "%s ended with status %#x", what, status);
}

static void spawn_other_program(void)
{
    pid_t process;
    char *const arguments[] = {"true", NULL};
    int outcome = posix_spawnp(&process, "true", NULL, NULL, arguments, environ);
    CHECK(outcome == 0, "true(1) could not be started: %s", strerror(outcome));
    reap(process, "another program");
}

/* Forks, changes everything meanwhile, and reaps. */
static void burst(void)
{
    pid_t children[CHILDREN];
    for (size_t number = 0; number < CHILDREN; number++) {
        children[number] = fork();
        CHECK(children[number] >= 0, "no child could be forked");
        if (children[number] == 0)
            child(number);
    }
    for (size_t page = 0; page < PAGES; page++) {
        check_page(memory + page * PAGE, seed_of(page, generation), "in the parent");
        if (page % 7 != 3)
            fill_page(memory + page * PAGE, seed_of(page, generation + 1));
    }
    generation++;
    spawn_other_program();
    for (size_t number = 0; number < CHILDREN; number++)
        reap(children[number], "a child");
    for (size_t page = 0; page < PAGES; page++)
        check_page(memory + page * PAGE, seed_of(page, generation), "after the children");
    say(": %d children verified %zu MiB", CHILDREN, PAGES * PAGE >> 20);
}

static void look_where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    CHECK(length > 0, "/proc/self/ns/pid cannot be read");
    text[length] = '\0';
}

void forker(const struct options *options)
{
    (void)options;
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED, "no memory");
    for (size_t page = 0; page < PAGES; page++)
        if (seed_of(page, generation) != 0)
            fill_page(memory + page * PAGE, seed_of(page, generation));
    char was[64], is[64];
    look_where(was, sizeof was);
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    while (goes_on()) {
        nanosleep(&pause, NULL);
        look_where(is, sizeof is);
        if (strcmp(was, is) != 0)
            burst();
        strcpy(was, is);
        round_ok();
    }
    burst();
}
