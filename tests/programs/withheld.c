/* withheld: until SIGTERM, keeps memory from its children and lets them have it again, in turn. Exits with 5, or with 66 if
 * a child has not got what it was let have. */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BULK (160 << 20)
#define PAGES (4 * 4096)

static volatile sig_atomic_t is_over;

static void end(int signal)
{
    is_over = signal;
}

static char *map(size_t length, int protection)
{
    return mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* `length` bytes at `shared`, all of them `byte`, in a child. */
static int child_has(const volatile char *shared, size_t length, char byte)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        for (size_t at = 0; at < length; at += 4096)
            if (shared[at] != byte)
                _exit(1);
        _exit(0);
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

int main(void)
{
    const struct timespec moment = {.tv_nsec = 3000000};
    signal(SIGTERM, end);
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* So much that it takes a while to look at all of it, in small pages. */
    char *bulk = map(BULK, PROT_READ | PROT_WRITE);
    madvise(bulk, BULK, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < BULK; at += 4096)
        bulk[at] = 1;
    /* A mapping that has no neighbour of its kind. */
    map(4096, PROT_NONE);
    char *shared = map(PAGES, PROT_READ | PROT_WRITE);
    map(4096, PROT_NONE);
    for (size_t at = 0; at < PAGES; at += 4096)
        shared[at] = 7;
    for (long step = 0; !is_over; step++) {
        madvise(shared, PAGES, MADV_DONTFORK);
        nanosleep(&moment, NULL);
        madvise(shared, PAGES, MADV_DOFORK);
        nanosleep(&moment, NULL);
        if (!child_has(shared, PAGES, 7)) {
            fprintf(stderr, "withheld: FAIL step %ld: a child has not got its memory\n", step);
            return 66;
        }
        if (step % 8 == 0)
            printf("withheld %ld\n", step);
    }
    return 5;
}
