/* mapped SEED: until SIGTERM, does at random to its mappings whatever mmap(2), mremap(2), madvise(2), mprotect(2), ftruncate(2),
 * fallocate(2) and fork(2) allow, on private memory and on memfds that are mapped shared, privately and several times, and
 * knows what each page must hold. Exits with 5, or with 66 where a page holds anything else. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define PAGES 2048
#define FILES 10
#define FILE_PAGES 128
#define LONGEST 40

enum kind { NOTHING, PRIVATE, OF_FILE };

struct page {
    enum kind kind;
    int file, at, is_shared, is_own, protection, not_in_child, zero_in_child;
    uint64_t tag;
};

struct file {
    int descriptor, pages, is_live;
    uint64_t tags[FILE_PAGES];
};

static struct page pages[PAGES];
static struct file files[FILES];
static char *base;
static uint64_t state;
static long step;

static uint64_t any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static int below(int limit)
{
    return (int)(any() % (uint64_t)limit);
}

static void wrong(const char *what, int page)
{
    fprintf(stderr, "mapped: FAIL step %ld: %s, page %d\n", step, what, page);
    _exit(66);
}

static void must(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        wrong(what, -1);
    }
}

static char *address(int page)
{
    return base + (size_t)page * PAGE;
}

static void put(void *where, uint64_t tag)
{
    volatile uint64_t *words = where;
    for (int at = 0; at < WORDS; at += 73)
        words[at] = tag ? tag + (uint64_t)at : 0;
}

static int has(const void *where, uint64_t tag)
{
    const volatile uint64_t *words = where;
    for (int at = 0; at < WORDS; at += 73)
        if (words[at] != (tag ? tag + (uint64_t)at : 0))
            return 0;
    return 1;
}

static int is_behind_end(const struct page *page)
{
    return page->kind == OF_FILE && page->at >= files[page->file].pages;
}

static void check_page(int index, int is_child)
{
    const struct page *page = &pages[index];
    if (page->kind == NOTHING || !(page->protection & PROT_READ) || is_behind_end(page) || (is_child && page->not_in_child))
        return;
    uint64_t wanted = page->tag;
    if (page->kind == PRIVATE && is_child && page->zero_in_child)
        wanted = 0;
    if (page->kind == OF_FILE && (page->is_shared || !page->is_own))
        wanted = files[page->file].tags[page->at];
    if (!has(address(index), wanted))
        wrong(is_child ? "in a child" : "in memory", index);
}

static void check(int is_child)
{
    uint64_t words[WORDS];
    for (int index = 0; index < PAGES; index++)
        check_page(index, is_child);
    for (int number = 0; number < FILES; number++)
        for (int at = 0; files[number].is_live && at < files[number].pages; at++) {
            must(pread(files[number].descriptor, words, PAGE, (off_t)at * PAGE) == PAGE, "pread");
            if (!has(words, files[number].tags[at]))
                wrong("in a file", at);
        }
}

/* How many of `count` pages from `index` are one piece of the same. */
static int alike(int index, int count)
{
    int length = 1;
    for (; length < count; length++) {
        const struct page *one = &pages[index], *other = &pages[index + length];
        if (one->kind != other->kind || one->protection != other->protection)
            break;
        if (one->kind == OF_FILE
            && (one->file != other->file || one->is_shared != other->is_shared || other->at != one->at + length))
            break;
    }
    return length;
}

static void clear(int index, int count)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    must(mmap(address(index), (size_t)count * PAGE, PROT_NONE, flags, -1, 0) != MAP_FAILED, "mmap");
    memset(&pages[index], 0, sizeof *pages * (size_t)count);
}

static void map_private(int index, int count)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, protection = PROT_READ | PROT_WRITE;
    must(mmap(address(index), (size_t)count * PAGE, protection, flags, -1, 0) != MAP_FAILED, "mmap");
    for (int at = index; at < index + count; at++)
        pages[at] = (struct page){.kind = PRIVATE, .protection = protection};
}

static void map_file(int number, int index, int count)
{
    struct file *file = &files[number];
    if (!file->is_live) {
        file->descriptor = memfd_create("mapped", MFD_CLOEXEC);
        file->pages = 1 + below(FILE_PAGES);
        file->is_live = 1;
        must(file->descriptor >= 0 && ftruncate(file->descriptor, (off_t)file->pages * PAGE) == 0, "memfd");
    }
    int from = below(FILE_PAGES), shared = below(2), protection = below(4) ? PROT_READ | PROT_WRITE : PROT_READ;
    count = from + count > FILE_PAGES ? FILE_PAGES - from : count;
    int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE);
    void *where = mmap(address(index), (size_t)count * PAGE, protection, flags, file->descriptor, (off_t)from * PAGE);
    must(where != MAP_FAILED, "mmap");
    for (int at = 0; at < count; at++)
        pages[index + at] = (struct page){
            .kind = OF_FILE, .file = number, .at = from + at, .is_shared = shared, .protection = protection};
}

static void note(struct page *page, uint64_t tag)
{
    if (page->kind == OF_FILE && page->is_shared) {
        files[page->file].tags[page->at] = tag;
        return;
    }
    page->is_own = 1;
    page->tag = tag;
}

/* By the program itself, or by the kernel through a pipe. */
static void write_pages(int index, int count, const int *pipe_ends)
{
    for (int at = index; at < index + count; at++) {
        struct page *page = &pages[at];
        if (page->kind == NOTHING || !(page->protection & PROT_WRITE) || is_behind_end(page))
            continue;
        uint64_t tag = pipe_ends || below(8) ? any() | 1 : 0, words[WORDS] = {0};
        if (pipe_ends) {
            put(words, tag);
            must(write(pipe_ends[1], words, PAGE) == PAGE && read(pipe_ends[0], address(at), PAGE) == PAGE, "pipe");
        } else {
            put(address(at), tag);
        }
        note(page, tag);
    }
}

static void write_file(struct file *file, int count)
{
    uint64_t words[WORDS];
    while (file->is_live && count-- > 0) {
        int at = below(file->pages);
        memset(words, 0, sizeof words);
        put(words, file->tags[at] = any() | 1);
        must(pwrite(file->descriptor, words, PAGE, (off_t)at * PAGE) == PAGE, "pwrite");
    }
}

static void resize(int number)
{
    struct file *file = &files[number];
    if (!file->is_live)
        return;
    file->pages = 1 + below(FILE_PAGES);
    must(ftruncate(file->descriptor, (off_t)file->pages * PAGE) == 0, "ftruncate");
    memset(file->tags + file->pages, 0, sizeof *file->tags * (size_t)(FILE_PAGES - file->pages));
    for (int at = 0; at < PAGES; at++)
        if (pages[at].kind == OF_FILE && pages[at].file == number && is_behind_end(&pages[at]))
            pages[at].is_own = 0;
}

static void punch(struct file *file, int count)
{
    int from = below(FILE_PAGES);
    count = from + count > FILE_PAGES ? FILE_PAGES - from : count;
    int mode = below(2) ? FALLOC_FL_KEEP_SIZE : FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
    if (!file->is_live)
        return;
    must(fallocate(file->descriptor, mode, (off_t)from * PAGE, (off_t)count * PAGE) == 0, "fallocate");
    if (mode & FALLOC_FL_PUNCH_HOLE)
        memset(file->tags + from, 0, sizeof *file->tags * (size_t)count);
}

static void discard(int index, int count)
{
    for (int at = index; at < index + count; at++) {
        struct page *page = &pages[at];
        int remove = page->kind == OF_FILE && page->is_shared && below(2);
        if (page->kind == NOTHING || madvise(address(at), PAGE, remove ? MADV_REMOVE : MADV_DONTNEED) != 0)
            continue;
        page->is_own = 0;
        page->tag = 0;
        if (remove)
            files[page->file].tags[page->at] = 0;
    }
}

static void move_pages(int index, int count)
{
    int to = below(PAGES - count);
    if (pages[index].kind == NOTHING || (to < index + count && index < to + count))
        return;
    for (int at = 0; at < count; at++) {
        int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
        must(mremap(address(index + at), PAGE, PAGE, flags, address(to + at)) != MAP_FAILED, "mremap");
        pages[to + at] = pages[index + at];
    }
    clear(index, count);
}

static void protect(int index, int count)
{
    static const int choices[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    int protection = choices[below(3)];
    if (pages[index].kind == NOTHING)
        return;
    must(mprotect(address(index), (size_t)count * PAGE, protection) == 0, "mprotect");
    for (int at = index; at < index + count; at++)
        pages[at].protection = protection;
}

static void advise(int index, int count)
{
    static const int choices[] = {MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_MERGEABLE, MADV_RANDOM};
    int which = below(6);
    if (pages[index].kind == NOTHING || (which / 2 == 1 && pages[index].kind != PRIVATE))
        return;
    must(madvise(address(index), (size_t)count * PAGE, choices[which]) == 0 || which > 3, "madvise");
    for (int at = index; at < index + count; at++) {
        if (which / 2 == 0)
            pages[at].not_in_child = which == 0;
        if (which / 2 == 1)
            pages[at].zero_in_child = which == 2;
    }
}

static void child(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        check(1);
        _exit(7);
    }
    must(waitpid(pid, &status, 0) == pid, "waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
        wrong("the child's status", status);
}

static void act(const int *pipe_ends)
{
    int index = below(PAGES - LONGEST), count = 1 + below(LONGEST), number = below(FILES), piece = alike(index, count);
    switch (below(20)) {
    case 0: case 1: map_file(number, index, count); break;
    case 2: map_private(index, count); break;
    case 3: case 4: case 5: write_pages(index, count, NULL); break;
    case 6: write_pages(index, count, pipe_ends); break;
    case 7: write_file(&files[number], count); break;
    case 8: resize(number); break;
    case 9: case 10: punch(&files[number], count); break;
    case 11: discard(index, piece); break;
    case 12: case 13: move_pages(index, piece); break;
    case 14: protect(index, piece); break;
    case 15: case 16: advise(index, piece); break;
    case 17: clear(index, count); break;
    case 18: if (below(4) == 0) child(); break;
    default: if (below(4) == 0) check(0); break;
    }
}

static volatile sig_atomic_t is_over;

static void end(int signal)
{
    is_over = signal;
}

int main(int count, char **arguments)
{
    int pipe_ends[2];
    state = 88172645463325252ULL ^ (count > 1 ? strtoull(arguments[1], NULL, 10) * 0x9e3779b97f4a7c15ULL : 0);
    signal(SIGTERM, end);
    base = mmap(NULL, (size_t)PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(base != MAP_FAILED && pipe(pipe_ends) == 0, "memory");
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; !is_over; step++) {
        act(pipe_ends);
        if (step % 8 == 0)
            usleep(100);
        if (step % 100 == 0)
            printf("mapped %ld\n", step);
    }
    check(0);
    puts("mapped: PASS");
    return 5;
}
