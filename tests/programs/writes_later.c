/* writes_later: maps a file shared twice, to be read only, once from a descriptor that may write; both are closed then. When
 * it has been moved it makes both writable, and says which it could and what the file holds. Ends with 7. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map(int access)
{
    int fd = open("file", access);
    char *memory = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return memory;
}

static void where(char *text, size_t size)
{
    ssize_t length = readlink("/proc/self/ns/pid", text, size - 1);
    text[length > 0 ? length : 0] = '\0';
}

int main(void)
{
    char was[64], is[64], found[8] = "";
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (ftruncate(fd, 4096) || close(fd))
        return 1;
    char *read_only = map(O_RDONLY), *written = map(O_RDWR);
    if (read_only == MAP_FAILED || written == MAP_FAILED)
        return 2;
    puts("ready");
    where(was, sizeof was);
    do {
        usleep(1000);
        where(is, sizeof is);
    } while (strcmp(was, is) == 0);
    if (mprotect(written, 4096, PROT_READ | PROT_WRITE) == 0)
        memcpy(written, "later", 5);
    int refused = mprotect(read_only, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES;
    fd = open("file", O_RDONLY);
    printf("%s, %s\n", read(fd, found, 5) == 5 ? found : "", refused ? "refused" : "not refused");
    return 7;
}
