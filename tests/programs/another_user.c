/* Preloaded, has a program of root's believe that it is the user whose number is in ANOTHER_USER: some refuse to run as
 * root, and CRIU cannot read the limits of anybody else's process where root lacks CAP_SYS_RESOURCE. */
#include <stdlib.h>
#include <unistd.h>

uid_t getuid(void)
{
    const char *user = getenv("ANOTHER_USER");
    return user ? (uid_t)strtoul(user, 0, 10) : 0;
}

uid_t geteuid(void)
{
    return getuid();
}
