/* huge: holds huge TLB pages of every kind, and after each move looks whether all is as it was. Prints how often that was
 * so; at SIGTERM exits with 7.
 *
 * anonymous ones, private and shared, one of which must not be touched; a memfd of them, mapped shared and private;
 * System V shared memory of them
 */
#define _GNU_SOURCE
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "moves.h"

#define HUGE (2l << 20)
#define SHM_HUGE 04000

enum { PRIVATE, SHARED, OF_MEMFD, ON_MEMFD, SEGMENT, KINDS };
static char *memory[KINDS];
static int descriptor;

static char *mapped(long size, int flags, int fd)
{
    char *at = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, flags, fd, 0);
    need(at != MAP_FAILED, "mmap");
    return at;
}

static void hold(void)
{
    memory[PRIVATE] = mapped(3 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
    memory[SHARED] = mapped(2 * HUGE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
    descriptor = memfd_create("huge", MFD_HUGETLB);
    need(descriptor >= 0 && ftruncate(descriptor, 2 * HUGE) == 0, "a memfd");
    memory[OF_MEMFD] = mapped(2 * HUGE, MAP_SHARED, descriptor);
    int segment = shmget(IPC_PRIVATE, (size_t)(2 * HUGE), IPC_CREAT | SHM_HUGE | 0600);
    memory[SEGMENT] = shmat(segment, NULL, 0);
    need(memory[SEGMENT] != (void *)-1 && shmctl(segment, IPC_RMID, NULL) == 0, "shmat");
    for (int kind = 0; kind < KINDS; kind++)
        if (kind != ON_MEMFD)
            sprintf(memory[kind] + HUGE + 12345, "kind %d", kind);
    memory[ON_MEMFD] = mapped(2 * HUGE, MAP_PRIVATE, descriptor);
    strcpy(memory[ON_MEMFD] + 777, "private");
    strcpy(memory[PRIVATE] + 2 * HUGE, "hidden");
    need(mprotect(memory[PRIVATE] + 2 * HUGE, HUGE, PROT_NONE) == 0, "mprotect");
    need(mprotect(memory[SHARED] + HUGE, HUGE, PROT_READ) == 0, "mprotect");
}

/* Whether the mapping at an address has huge pages and these rights. */
static void look(const char *at, const char *rights)
{
    char line[512], wanted[32];
    int found = 0;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)at);
    need(smaps != NULL, "smaps");
    while (fgets(line, sizeof line, smaps)) {
        if (strncmp(line, wanted, strlen(wanted)) == 0)
            found = strstr(line, rights) != NULL;
        else if (found && strncmp(line, "KernelPageSize:", 15) == 0) {
            need(strstr(line, " 2048 kB") != NULL, "the size of a page");
            fclose(smaps);
            return;
        }
    }
    need(0, rights);
}

static void check(void)
{
    char wanted[16], read_again[16];
    for (int kind = 0; kind < KINDS; kind++) {
        sprintf(wanted, "kind %d", kind == ON_MEMFD ? OF_MEMFD : kind);
        need(strcmp(memory[kind] + HUGE + 12345, wanted) == 0, wanted);
        need(kind == PRIVATE || kind == ON_MEMFD || memory[kind][4096] == 0, "a zero");
    }
    look(memory[PRIVATE], "rw-p");
    look(memory[PRIVATE] + 2 * HUGE, "---p");
    look(memory[SHARED], "rw-s");
    look(memory[SHARED] + HUGE, "r--s");
    look(memory[OF_MEMFD], "rw-s");
    look(memory[ON_MEMFD], "rw-p");
    look(memory[SEGMENT], "rw-s");
    need(mprotect(memory[PRIVATE] + 2 * HUGE, HUGE, PROT_READ) == 0, "mprotect");
    need(strcmp(memory[PRIVATE] + 2 * HUGE, "hidden") == 0, "what was hidden");
    need(mprotect(memory[PRIVATE] + 2 * HUGE, HUGE, PROT_NONE) == 0, "mprotect");
    need(strcmp(memory[ON_MEMFD] + 777, "private") == 0 && memory[OF_MEMFD][777] == 0, "what is private");
    memory[OF_MEMFD][HUGE]++;
    need(pread(descriptor, read_again, 1, HUGE) == 1 && *read_again == memory[OF_MEMFD][HUGE], "what the memfd shows");
    need(memory[ON_MEMFD][HUGE] == memory[OF_MEMFD][HUGE], "what a private mapping shows of it");
}

int main(void)
{
    signal(SIGTERM, end);
    hold();
    check_moves(check);
    return 7;
}
