/* The entry of the program. It runs the workloads written in C itself and leaves every other command line, options
 * that it does not know included, to Rust's main. The linker's --wrap=main puts it in front (see build.rs). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"

int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);

static const struct {
    const char *name;
    workload *run;
} workloads[] = {
    {"vectors", vectors},
    {"signals", signals},
    {"timers", timers},
    {"robust_mutex", robust_mutex},
    {"process_state", process_state},
    {"mappings", mappings},
    {"forker", forker},
    {"sleeper", sleeper},
};

/* The number in `--name N` or `--name=N` at *at, which is then stepped over. */
static bool number_option(char **argv, int *at, const char *name, uint64_t *number)
{
    size_t length = strlen(name);
    if (strncmp(argv[*at], name, length) != 0)
        return false;
    const char *text = argv[*at] + length;
    if (*text == '=')
        text++;
    else if (*text == '\0' && argv[*at + 1])
        text = argv[++*at];
    else
        return false;
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

/* The index of the workload that the command line asks for, or -1 if it is not for us. */
static int parse(int argc, char **argv, struct options *options)
{
    uint64_t threads = 8;
    int found = -1;
    options->count = UINT64_MAX;
    for (int at = 1; at < argc; at++) {
        if (argv[at][0] == '-') {
            if (!number_option(argv, &at, "--count", &options->count)
                && !number_option(argv, &at, "--threads", &threads))
                return -1;
            continue;
        }
        if (found >= 0)
            return -1;
        for (size_t each = 0; each < sizeof workloads / sizeof *workloads; each++)
            if (strcmp(argv[at], workloads[each].name) == 0)
                found = (int)each;
        if (found < 0)
            return -1;
    }
    options->threads = (unsigned)threads;
    return threads >= 1 && threads <= 256 ? found : -1;
}

/* What --mappings asks for, which goes with every workload written in Rust. */
static uint64_t mappings_to_hold(int argc, char **argv)
{
    uint64_t count = 0;
    for (int at = 1; at < argc; at++)
        number_option(argv, &at, "--mappings", &count);
    return count;
}

int __wrap_main(int argc, char **argv)
{
    struct options options;
    int found = parse(argc, argv, &options);
    if (found < 0) {
        uint64_t held = mappings_to_hold(argc, argv);
        if (held > 0 && !hold_mappings(held)) {
            perror("target: making mappings");
            return EXIT_FAILURE;
        }
        return __real_main(argc, argv);
    }
    begin(workloads[found].name, options.count);
    workloads[found].run(&options);
    say(": PASS");
    return EXIT_SUCCESS;
}
