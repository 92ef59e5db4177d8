/* process_state: what the kernel and the process know about the process itself stays as it was. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "target.h"

static const struct {
    const char *name;
    int set, get;
    unsigned long value;
} flags[] = {
    {"dumpable", PR_SET_DUMPABLE, PR_GET_DUMPABLE, 1},
    {"no_new_privs", PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, 1},
    {"thp_disable", PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, 1},
    {"keepcaps", PR_SET_KEEPCAPS, PR_GET_KEEPCAPS, 0},
    {"timer slack", PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, 70001},
};

static const struct {
    const char *name;
    int resource;
    rlim_t soft;
} limits[] = {
    {"core", RLIMIT_CORE, 0},
    {"descriptors", RLIMIT_NOFILE, 777},
    {"stack", RLIMIT_STACK, 6 << 20},
};

struct state {
    char directory[PATH_MAX], executable[PATH_MAX], command_line[PATH_MAX], name[16];
    uint64_t identity[5];
    char auxiliary[1024];
};

static void read_file(const char *path, char *bytes, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && read(file, bytes, size) > 0, "%s cannot be read", path);
    close(file);
}

static void look(struct state *state)
{
    memset(state, 0, sizeof *state);
    CHECK(getcwd(state->directory, sizeof state->directory), "the working directory is gone");
    CHECK(readlink("/proc/self/exe", state->executable, sizeof state->executable - 1) > 0, "no /proc/self/exe");
    read_file("/proc/self/cmdline", state->command_line, sizeof state->command_line);
    prctl(PR_GET_NAME, state->name);
    const uint64_t identity[5] = {(uint64_t)getpid(), getuid(), geteuid(), getgid(), getegid()};
    memcpy(state->identity, identity, sizeof identity);
    read_file("/proc/self/auxv", state->auxiliary, sizeof state->auxiliary);
}

static void prepare(void)
{
    const char *directory = getenv("TMPDIR");
    CHECK(chdir(directory ? directory : "/tmp") == 0, "there is no directory for temporary files");
    umask(0127);
    prctl(PR_SET_NAME, "state-of-it");
    for (size_t at = 0; at < sizeof limits / sizeof *limits; at++) {
        struct rlimit limit;
        getrlimit(limits[at].resource, &limit);
        limit.rlim_cur = limits[at].soft < limit.rlim_max ? limits[at].soft : limit.rlim_max;
        CHECK(setrlimit(limits[at].resource, &limit) == 0, "the limit of %s could not be set", limits[at].name);
    }
    for (size_t at = 0; at < sizeof flags / sizeof *flags; at++)
        CHECK(prctl(flags[at].set, flags[at].value, 0, 0, 0) == 0, "%s could not be set", flags[at].name);
}

static void check_same(const struct state *was, const struct state *is)
{
    CHECK(strcmp(was->directory, is->directory) == 0, "the working directory is %s", is->directory);
    CHECK(strcmp(was->executable, is->executable) == 0, "/proc/self/exe is %s", is->executable);
    CHECK(memcmp(was->command_line, is->command_line, sizeof is->command_line) == 0, "the command line is another");
    CHECK(strcmp(was->name, is->name) == 0, "the name is %s", is->name);
    CHECK(memcmp(was->identity, is->identity, sizeof is->identity) == 0, "an id of the process is another");
    CHECK(memcmp(was->auxiliary, is->auxiliary, sizeof is->auxiliary) == 0, "the auxiliary vector is another");
}

static void check_flags(void)
{
    for (size_t at = 0; at < sizeof flags / sizeof *flags; at++) {
        int found = prctl(flags[at].get, 0, 0, 0, 0);
        CHECK((unsigned long)found == flags[at].value, "%s is %d", flags[at].name, found);
    }
    for (size_t at = 0; at < sizeof limits / sizeof *limits; at++) {
        struct rlimit limit;
        getrlimit(limits[at].resource, &limit);
        CHECK(limit.rlim_cur == limits[at].soft || limit.rlim_cur == limit.rlim_max, "the limit of %s is %llu",
              limits[at].name, (unsigned long long)limit.rlim_cur);
    }
    mode_t mask = umask(0127);
    CHECK(mask == 0127, "the umask is %o", mask);
}

void process_state(const struct options *options)
{
    (void)options;
    static struct state before, after;
    prepare();
    look(&before);
    while (goes_on()) {
        look(&after);
        check_same(&before, &after);
        check_flags();
        work_for_us(500);
        round_ok();
    }
}
