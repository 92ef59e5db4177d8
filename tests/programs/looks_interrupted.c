/* Stands most of the time at an instruction behind which code could be taken for a system call, with a register as if that had
 * been interrupted: `xor eax, eax` and a jump, not `syscall`. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    for (int number = 0; number < 1000000; number++) {
        long result, rounds = 4000000;
        __asm__ volatile("mov $-4, %%rax\n"
                         "jmp 1f\n"
                         ".byte 0x31, 0xc0, 0xeb, 0x00\n"
                         "1: loop 1b\n"
                         : "=&a"(result), "+c"(rounds));
        if (result != -4) {
            puts("FAIL: it was made to go elsewhere");
            return 1;
        }
        printf("%d\n", number);
        fflush(stdout);
    }
    return 0;
}
