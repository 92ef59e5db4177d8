/* Every kind of mapping, each with content that stays: two pages of three hold a pattern, the third was never
 * touched. What madvise and mlock said about them is read back from VmFlags in /proc/self/smaps. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mappings.h"

#define PAGES ((size_t)256)
#define PAGES_PER_CHECK 16
/* smaps is long: it is read in one round of so many. */
#define ROUNDS_PER_FLAGS 8

enum backing { PRIVATE, SHARED, MEMFD, FILE_CLEAN, FILE_CHANGED, FILE_SHARED };

static struct region {
    const char *what;
    enum backing backing;
    int protection;
    int advice; /* for madvise, or -1 */
    const char *flag; /* in VmFlags, or NULL */
    char *start;
    size_t next;
} regions[] = {
    {"private anonymous", PRIVATE, PROT_READ | PROT_WRITE, -1, NULL, NULL, 0},
    {"read-only anonymous", PRIVATE, PROT_READ, -1, NULL, NULL, 0},
    {"executable anonymous", PRIVATE, PROT_READ | PROT_EXEC, -1, "ex", NULL, 0},
    {"PROT_NONE", PRIVATE, PROT_NONE, -1, NULL, NULL, 0},
    {"dontfork", PRIVATE, PROT_READ | PROT_WRITE, MADV_DONTFORK, "dc", NULL, 0},
    {"wipeonfork", PRIVATE, PROT_READ | PROT_WRITE, MADV_WIPEONFORK, "wf", NULL, 0},
    {"hugepage", PRIVATE, PROT_READ | PROT_WRITE, MADV_HUGEPAGE, "hg", NULL, 0},
    {"nohugepage", PRIVATE, PROT_READ | PROT_WRITE, MADV_NOHUGEPAGE, "nh", NULL, 0},
    {"mergeable", PRIVATE, PROT_READ | PROT_WRITE, MADV_MERGEABLE, "mg", NULL, 0},
    {"dontdump", PRIVATE, PROT_READ | PROT_WRITE, MADV_DONTDUMP, "dd", NULL, 0},
    {"locked", PRIVATE, PROT_READ | PROT_WRITE, -1, "lo", NULL, 0},
    {"shared anonymous", SHARED, PROT_READ | PROT_WRITE, -1, "sh", NULL, 0},
    {"read-only shared anonymous", SHARED, PROT_READ, -1, "sh", NULL, 0},
    {"PROT_NONE shared anonymous", SHARED, PROT_NONE, -1, "sh", NULL, 0},
    {"memfd", MEMFD, PROT_READ | PROT_WRITE, -1, "sh", NULL, 0},
    {"second view of the memfd", MEMFD, PROT_READ, -1, "sh", NULL, 0},
    {"private file, unchanged", FILE_CLEAN, PROT_READ, -1, NULL, NULL, 0},
    {"private file, changed", FILE_CHANGED, PROT_READ | PROT_WRITE, -1, NULL, NULL, 0},
    {"shared file", FILE_SHARED, PROT_READ | PROT_WRITE, -1, "sh", NULL, 0},
};
#define REGIONS (sizeof regions / sizeof *regions)

static int memory_file = -1;
static char file_path[2][512];

/* Files keep their pattern in every page; what a process wrote over it has another seed. */
static uint64_t seed_of(const struct region *region, size_t page)
{
    bool third = page % 3 == 2;
    uint64_t own = (uint64_t)(region->backing + 1) * 100000 + page + 1;
    if (region->backing == PRIVATE || region->backing == SHARED)
        return third ? 0 : own + (uint64_t)(region - regions) * 1000000;
    if (region->backing == FILE_CHANGED)
        return third ? page + 1 : own;
    return region->backing == FILE_CLEAN ? page + 1 : own;
}

static int patterned_file(size_t which)
{
    const char *directory = getenv("TMPDIR");
    snprintf(file_path[which], sizeof *file_path, "%s/target-mappings-XXXXXX", directory ? directory : "/tmp");
    int file = mkostemp(file_path[which], O_CLOEXEC);
    CHECK(file >= 0, "no file could be made in %s", directory ? directory : "/tmp");
    static char page[PAGE];
    for (size_t at = 0; at < PAGES; at++) {
        fill_page(page, at + 1);
        CHECK(write(file, page, PAGE) == (ssize_t)PAGE, "a file could not be written");
    }
    return file;
}

static void map(struct region *region, int private_file, int shared_file)
{
    const int backing = region->backing;
    int flags = backing == PRIVATE || backing == FILE_CLEAN || backing == FILE_CHANGED ? MAP_PRIVATE : MAP_SHARED;
    int file = backing == MEMFD ? memory_file : backing == FILE_SHARED ? shared_file : private_file;
    if (backing == PRIVATE || backing == SHARED) {
        flags |= MAP_ANONYMOUS;
        file = -1;
    }
    /* A hole before and behind keeps neighbours apart. */
    region->start = reserve(PAGES + 2) + PAGE;
    char *start = mmap(region->start, PAGES * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0);
    CHECK(start == region->start, "%s could not be mapped", region->what);
}

static void fill(const struct region *region)
{
    for (size_t page = 0; page < PAGES; page++)
        if (region->backing != FILE_CLEAN && seed_of(region, page) != 0
            && (region->backing != FILE_CHANGED || page % 3 != 2))
            fill_page(region->start + page * PAGE, seed_of(region, page));
}

static void advise(struct region *region)
{
    bool done = region->advice < 0 || madvise(region->start, PAGES * PAGE, region->advice) == 0;
    if (region->flag && strcmp(region->flag, "lo") == 0)
        done = mlock(region->start, PAGES * PAGE) == 0;
    if (!done) {
        say(": skipped %s: this kernel does not allow it here", region->what);
        region->flag = NULL;
    }
    mprotect(region->start, PAGES * PAGE, region->protection);
}

void kinds_create(void)
{
    memory_file = memfd_create("target-mappings", MFD_CLOEXEC);
    CHECK(memory_file >= 0 && ftruncate(memory_file, (off_t)(PAGES * PAGE)) == 0, "no memfd could be made");
    int private_file = patterned_file(0), shared_file = patterned_file(1);
    for (size_t at = 0; at < REGIONS; at++) {
        map(&regions[at], private_file, shared_file);
        fill(&regions[at]);
        advise(&regions[at]);
    }
    close(private_file);
    close(shared_file);
}

/* The rest of the line that begins with "VmFlags:" of the mapping that holds `address`. */
static const char *flags_at(const char *smaps, const char *address)
{
    bool inside = false;
    for (const char *line = smaps; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = (unsigned long)address >= start && (unsigned long)address < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            return line + 8;
    }
    return NULL;
}

static const char *read_smaps(void)
{
    static char text[2 << 20];
    int file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0, "/proc/self/smaps cannot be opened");
    size_t length = 0;
    ssize_t more;
    while (length < sizeof text - 1 && (more = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)more;
    text[length] = '\0';
    close(file);
    return text;
}

/* What is wrong with the kernel's account of the region, or NULL. */
static const char *flag_problem(const struct region *region, const char *smaps)
{
    static char problem[400];
    const char *flags = flags_at(smaps, region->start);
    if (!flags) {
        snprintf(problem, sizeof problem, "%s is not mapped", region->what);
        return problem;
    }
    const char *end = strchr(flags, '\n');
    char all[256] = "";
    memcpy(all, flags, end && end - flags < 255 ? (size_t)(end - flags) : 0);
    char wanted[8] = "";
    snprintf(wanted, sizeof wanted, " %s ", region->flag ? region->flag : "");
    if (region->flag && !strstr(all, wanted)) {
        snprintf(problem, sizeof problem, "%s lacks %s in its VmFlags:%s", region->what, region->flag, all);
        return problem;
    }
    if (!strstr(all, " rd ") != !(region->protection & PROT_READ)
        || !strstr(all, " wr ") != !(region->protection & PROT_WRITE)) {
        snprintf(problem, sizeof problem, "%s has another protection: VmFlags%s", region->what, all);
        return problem;
    }
    return NULL;
}

/* A move between two reads of smaps tears the text, as any change of the mappings does: what is wrong in
   three texts in a row is wrong. */
static void check_flags(void)
{
    const char *problem = NULL;
    for (int attempt = 0; attempt < 3; attempt++) {
        const char *smaps = read_smaps();
        problem = NULL;
        for (const struct region *region = regions; !problem && region < regions + REGIONS; region++)
            problem = flag_problem(region, smaps);
        if (!problem)
            return;
    }
    CHECK(!problem, "%s", problem);
}

static void check_region(struct region *region, size_t pages)
{
    bool hidden = region->protection == PROT_NONE;
    if (hidden)
        mprotect(region->start, PAGES * PAGE, PROT_READ);
    for (; pages > 0; pages--) {
        check_page(region->start + region->next * PAGE, seed_of(region, region->next), region->what);
        region->next = (region->next + 1) % PAGES;
    }
    if (hidden)
        mprotect(region->start, PAGES * PAGE, PROT_NONE);
}

/* The descriptor and both mappings of the memfd are one object. */
static void check_memory_file(uint64_t round)
{
    struct region *view = regions;
    while (view->backing != MEMFD)
        view++;
    size_t page = round % PAGES;
    static char content[PAGE];
    CHECK(pread(memory_file, content, PAGE, (off_t)(page * PAGE)) == (ssize_t)PAGE, "the memfd cannot be read");
    check_page(content, seed_of(view, page), "the memfd, read");
    fill_page(content, round + 7);
    CHECK(pwrite(memory_file, content, PAGE, (off_t)(page * PAGE)) == (ssize_t)PAGE, "the memfd cannot be written");
    check_page(view[0].start + page * PAGE, round + 7, "what was written to the memfd");
    check_page(view[1].start + page * PAGE, round + 7, "what was written to the memfd, second view");
    fill_page(view[0].start + page * PAGE, seed_of(view, page));
    check_page(view[1].start + page * PAGE, seed_of(view, page), "what was stored, second view");
}

void kinds_check(uint64_t round)
{
    for (size_t at = 0; at < REGIONS; at++)
        check_region(&regions[at], PAGES_PER_CHECK);
    check_memory_file(round);
    if (round % ROUNDS_PER_FLAGS == 0)
        check_flags();
}

void kinds_remove(void)
{
    for (size_t at = 0; at < REGIONS; at++)
        check_region(&regions[at], PAGES);
    unlink(file_path[0]);
    unlink(file_path[1]);
}
