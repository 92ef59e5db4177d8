/* guards: until SIGTERM, forbids one page after the other of one small mapping to be touched, and lets all be touched again in
 * between. Exits with 5, or with 66 if a page is not as it was left. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGES 64
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

static volatile sig_atomic_t is_over;

static void end(int signal)
{
    is_over = signal;
}

/* Whether the kernel would read the page on its behalf. */
static int may_be_touched(const char *page, const int *ends)
{
    char byte;
    if (write(ends[1], page, 1) == 1)
        return read(ends[0], &byte, 1) == 1;
    return errno != EFAULT;
}

int main(void)
{
    struct timespec moment = {0};
    int ends[2];
    signal(SIGTERM, end);
    setvbuf(stdout, NULL, _IOLBF, 0);
    char *pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || pipe(ends) != 0)
        return 1;
    for (long step = 0; !is_over; step++) {
        char *one = pages + step / 2 % PAGES * 4096;
        int is_guarded = step % 2 == 0;
        if (madvise(one, 4096, is_guarded ? GUARD_INSTALL : GUARD_REMOVE) != 0) {
            perror("guards: no guard");
            return 2;
        }
        moment.tv_nsec = (2 + random() % 14) * 1000000;
        nanosleep(&moment, NULL);
        for (int at = 0; at < PAGES; at++) {
            char *page = pages + at * 4096;
            if (may_be_touched(page, ends) == (is_guarded && page == one)) {
                fprintf(stderr, "guards: FAIL step %ld: page %d of %p\n", step, at, (void *)pages);
                return 66;
            }
        }
        if (step % 3 == 0)
            printf("guards %ld\n", step);
    }
    return 5;
}
