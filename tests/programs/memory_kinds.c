/* memory_kinds KIND: holds memory of some kind, and when it has moved looks whether all is as it was: exits with 7 if so.
 *
 * shrunk       shared memory that is mapped in part: grown again it shows what was there
 * behind_end   bytes behind the end of a memfd, in its last page
 * new_files    private mappings of files, a new one each millisecond: they are mappings of these files afterwards
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 64
#define FILES 600

static const int both = PROT_READ | PROT_WRITE;
static char *memory;
static int known;
static char *mapped[FILES];

static void need(int holds, const char *what)
{
    if (holds)
        return;
    printf("memory_kinds: FAIL %s\n", what);
    exit(8);
}

static void hold_shrunk(void)
{
    memory = mmap(NULL, PAGES * PAGE, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    for (int page = 0; page < PAGES; page += 3)
        memory[page * PAGE] = (char)(page + 1);
    munmap(memory + 10 * PAGE, (PAGES - 10) * PAGE);
}

static void check_shrunk(void)
{
    memory = mremap(memory, 10 * PAGE, PAGES * PAGE, MREMAP_MAYMOVE);
    need(memory != MAP_FAILED, "mremap");
    for (int page = 0; page < PAGES; page++)
        need(memory[page * PAGE] == (page % 3 ? 0 : page + 1), "a page that was not mapped");
}

static void hold_behind_end(void)
{
    int descriptor = memfd_create("behind_end", 0);
    need(ftruncate(descriptor, PAGE + 10) == 0, "ftruncate");
    memory = mmap(NULL, 2 * PAGE, both, MAP_SHARED, descriptor, 0);
    need(memory != MAP_FAILED, "mmap");
    strcpy(memory + PAGE, "before, and behind the end");
}

static void check_behind_end(void)
{
    need(strcmp(memory + PAGE, "before, and behind the end") == 0, "the last page");
}

static void hold_one_more(void)
{
    char name[32], content[2 * PAGE];
    if (known == FILES)
        return;
    snprintf(name, sizeof name, "new-%d", known);
    memset(content, 'a' + known % 26, sizeof content);
    int descriptor = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);
    need(descriptor >= 0 && write(descriptor, content, sizeof content) == (ssize_t)sizeof content, name);
    mapped[known] = mmap(NULL, sizeof content, both, MAP_PRIVATE, descriptor, 0);
    need(mapped[known] != MAP_FAILED, "mmap");
    mapped[known][PAGE] = '!';
    close(descriptor);
    known++;
}

static void check_files(void)
{
    static char maps[1 << 20];
    size_t length = 0;
    ssize_t got;
    int descriptor = open("/proc/self/maps", O_RDONLY);
    while ((got = read(descriptor, maps + length, sizeof maps - 1 - length)) > 0)
        length += (size_t)got;
    for (int number = 0; number < known; number++) {
        char name[32], letter = (char)('a' + number % 26);
        snprintf(name, sizeof name, "/new-%d\n", number);
        need(mapped[number][0] == letter && mapped[number][PAGE] == '!' && mapped[number][PAGE + 1] == letter, name);
        need(strstr(maps, name) != NULL, "a mapping that is of its file no more");
    }
    printf("%d files\n", known);
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

int main(int count, char **arguments)
{
    char was[64], is[64];
    const char *kind = count > 1 ? arguments[1] : "";
    int files = strcmp(kind, "new_files") == 0, shrunk = strcmp(kind, "shrunk") == 0;
    if (shrunk)
        hold_shrunk();
    else if (!files)
        hold_behind_end();
    where(was, sizeof was);
    for (int number = 0;; number++) {
        where(is, sizeof is);
        if (strcmp(was, is) != 0)
            break;
        if (files)
            hold_one_more();
        printf("%d\n", number);
        fflush(stdout);
        usleep(1000);
    }
    if (files)
        check_files();
    else if (shrunk)
        check_shrunk();
    else
        check_behind_end();
    return 7;
}
