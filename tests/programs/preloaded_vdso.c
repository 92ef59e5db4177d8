/* preloaded_vdso: a library that gives the program into which it is preloaded a vDSO of another build. */
#include <stdlib.h>

#include "other_vdso.h"

__attribute__((constructor)) static void begin(void)
{
    if (!become_another_build())
        abort();
}
