/* Keeps a copy of its arguments and environment and compares them all the time. Prints numbers; ends at the first byte
 * that is not as it was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments, char **environment)
{
    char *from = arguments[0], *to = arguments[count - 1];
    while (*environment)
        to = *environment++;
    to += strlen(to) + 1;
    const size_t length = (size_t)(to - from);
    char *copy = malloc(length);
    if (!copy)
        return EXIT_FAILURE;
    memcpy(copy, from, length);
    for (int number = 0;; number++) {
        if (memcmp(copy, from, length) != 0) {
            puts("FAIL the arguments have changed");
            return EXIT_FAILURE;
        }
        printf("%d\n", number);
        fflush(stdout);
        usleep(2000);
    }
}
