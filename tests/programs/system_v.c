/* system_v: holds System V shared memory, and after each move looks whether all is as it was. Prints the ids of one that is
 * attached and one that is not, and then how often it has moved; at SIGTERM removes what it has, as a program does that
 * cleans up behind itself, and exits with 7 if that works.
 *
 * three attachments of one segment: one to write, one to read only, one of which a part is unmapped
 * one segment of 1 GiB with a few pages in it, marked for removal
 * one segment that is not attached
 * a page of the program's own behind a hole of one page, where whoever attaches a segment of one page gets it
 */
#define _GNU_SOURCE
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "moves.h"

#define PAGE 4096
#define SIZE (64 * PAGE + 100)
#define LARGE (1l << 30)
#define STRIDE (64l << 20)

static key_t key;
static int named, marked, aside;
static unsigned char *writable, *readable, *partial, *large, *neighbour;
static struct shmid_ds named_was, marked_was;

static unsigned char at(int place)
{
    return (unsigned char)(place * 7 + place / PAGE);
}

static void look(int id, struct shmid_ds *status)
{
    need(shmctl(id, IPC_STAT, status) == 0, "IPC_STAT");
}

static void *page(int pages)
{
    void *at = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(at != MAP_FAILED, "mmap");
    return at;
}

static void be_a_neighbour(void)
{
    unsigned char *three = page(3), *hole = three + PAGE, *found = NULL;
    neighbour = three + 2 * PAGE;
    memset(neighbour, 0x5a, PAGE);
    need(munmap(hole, PAGE) == 0, "munmap");
    for (int i = 0; i < 1000 && found != hole; i++) /* holes above it come first */
        found = page(1);
    need(found == hole && munmap(hole, PAGE) == 0, "a hole of one page");
}

static void hold(void)
{
    key = (key_t)(0xfa000000u | (unsigned)getpid());
    named = shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640);
    need(named >= 0, "shmget");
    writable = shmat(named, NULL, 0);
    readable = shmat(named, NULL, SHM_RDONLY);
    partial = shmat(named, NULL, 0);
    need(writable != (void *)-1 && readable != (void *)-1 && partial != (void *)-1, "shmat");
    for (int place = 0; place < 65 * PAGE; place++)
        if (place / PAGE % 5 != 4)
            writable[place] = at(place);
    need(munmap(partial + 10 * PAGE, 20 * PAGE) == 0 && mprotect(partial + 40 * PAGE, PAGE, PROT_READ) == 0, "a part");
    look(named, &named_was);
    named_was.shm_perm.uid = 65534;
    named_was.shm_perm.gid = 65533;
    named_was.shm_perm.mode = 0604;
    need(shmctl(named, IPC_SET, &named_was) == 0, "IPC_SET");
    marked = shmget(IPC_PRIVATE, LARGE, IPC_CREAT | 0600);
    need(marked >= 0, "a large shmget");
    large = shmat(marked, NULL, 0);
    need(large != (void *)-1 && shmctl(marked, IPC_RMID, NULL) == 0, "a large shmat");
    for (long place = 5 * PAGE; place < LARGE; place += STRIDE)
        *(long *)(large + place) = place;
    aside = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
    char *memory = shmat(aside, NULL, 0);
    need(memory != (void *)-1, "shmat");
    strcpy(memory + 10, "not attached");
    need(shmdt(memory) == 0, "shmdt");
    look(named, &named_was);
    look(marked, &marked_was);
    be_a_neighbour();
}

static void same(const struct shmid_ds *was, const struct shmid_ds *is)
{
    need(is->shm_perm.__key == was->shm_perm.__key, "the key");
    need(is->shm_perm.uid == was->shm_perm.uid && is->shm_perm.gid == was->shm_perm.gid, "the owner");
    need(is->shm_perm.mode == was->shm_perm.mode, "the mode");
    need(is->shm_segsz == was->shm_segsz, "the size");
    need(is->shm_cpid == getpid(), "the creator");
    need(is->shm_nattch == was->shm_nattch, "the number of attachments");
}

static void check(void)
{
    struct shmid_ds is;
    struct shm_info info;
    unsigned char resident[65];
    look(named, &is);
    same(&named_was, &is);
    look(marked, &is);
    same(&marked_was, &is);
    need(shmget(key, 0, 0) == named, "what the key leads to");
    for (int place = 0; place < 65 * PAGE; place++) {
        unsigned char expected = place / PAGE % 5 != 4 ? at(place) : 0;
        int page = place / PAGE;
        need(writable[place] == expected && readable[place] == expected, "a byte");
        need((page >= 10 && page < 30) || partial[place] == expected, "a byte of what is attached in part");
    }
    writable[50 * PAGE] ^= 0xff;
    need(readable[50 * PAGE] == writable[50 * PAGE] && partial[50 * PAGE] == writable[50 * PAGE], "what is shared");
    writable[50 * PAGE] ^= 0xff;
    need(mprotect(readable, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "what may only be read");
    need(mprotect(partial + 40 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0, "what may be written");
    need(mprotect(partial + 40 * PAGE, PAGE, PROT_READ) == 0, "what may be written");
    need(mincore(partial + 10 * PAGE, PAGE, resident) < 0 && errno == ENOMEM, "what is not mapped");
    for (long place = 5 * PAGE; place < LARGE; place += STRIDE)
        need(*(long *)(large + place) == place, "a word of the large one");
    char *memory = shmat(aside, NULL, SHM_RDONLY);
    need(memory != (void *)-1 && strcmp(memory + 10, "not attached") == 0 && shmdt(memory) == 0, "what was not attached");
    for (int place = 0; place < PAGE; place++)
        need(neighbour[place] == 0x5a, "a byte behind a hole that a segment fits into");
    need(shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0 && info.shm_rss < 200, "how much memory is in use");
}

static void remove_all(void)
{
    struct shmid_ds is;
    need(shmdt(large) == 0 && shmctl(marked, IPC_STAT, &is) < 0 && errno == EINVAL, "a marked one that has to go");
    need(shmdt(writable) == 0 && shmdt(readable) == 0 && shmdt(partial) == 0, "shmdt");
    look(named, &is);
    need(is.shm_nattch == 0, "how often it is attached");
    writable = shmat(named, NULL, 0);
    need(writable != (void *)-1 && writable[15 * PAGE] == at(15 * PAGE), "attaching it again");
    need(shmdt(writable) == 0 && shmctl(named, IPC_RMID, NULL) == 0, "removing it");
    need(shmctl(aside, IPC_RMID, NULL) == 0, "removing another one");
    need(shmget(key, 0, 0) < 0 && errno == ENOENT, "a removed one that has to go");
}

int main(void)
{
    signal(SIGTERM, end);
    hold();
    printf("%d\n%d\n", named, aside);
    check_moves(check);
    remove_all();
    return 7;
}
