/* Reads the arguments and the environment of every process that is younger than itself, over and over, until it is
 * killed: what ps(1) and many monitors do now and then. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOKS_AT_EACH 20
#define MOST 256

static void read_all(int process, const char *what)
{
    static char path[64], content[1 << 16];
    snprintf(path, sizeof path, "/proc/%d/%s", process, what);
    const int file = open(path, O_RDONLY);
    if (file < 0)
        return;
    while (read(file, content, sizeof content) > 0)
        ;
    close(file);
}

int main(void)
{
    for (;;) {
        int processes[MOST], found = 0;
        DIR *directory = opendir("/proc");
        if (!directory)
            return EXIT_FAILURE;
        for (struct dirent *entry; found < MOST && (entry = readdir(directory));) {
            const int process = atoi(entry->d_name);
            if (process > getpid())
                processes[found++] = process;
        }
        closedir(directory);
        for (int look = 0; look < LOOKS_AT_EACH; look++)
            for (int at = 0; at < found; at++) {
                read_all(processes[at], "cmdline");
                read_all(processes[at], "environ");
            }
    }
}
