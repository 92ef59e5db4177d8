/* Loops that hold patterns in every register of one kind for as long as memory says so.
 *
 * void hold_X(const void *in, void *out, const volatile uint32_t *beat, uint32_t while_it_is)
 *   loads the registers from `in`, spins while *beat == while_it_is, stores them to `out`.
 * The caller's ABI lets every vector and mask register be overwritten. */
    .text

    .macro hold name, width, move, prefix, last
    .globl \name
    .type \name, @function
\name:
    .set at, 0
    .rept \last + 1
    register load, \move, \prefix, %at, \width
    .set at, at + 1
    .endr
1:  cmp %ecx, (%rdx)
    je 1b
    .set at, 0
    .rept \last + 1
    register store, \move, \prefix, %at, \width
    .set at, at + 1
    .endr
    vzeroupper
    ret
    .size \name, . - \name
    .endm

    .macro register direction, move, prefix, number, width
    .ifc \direction, load
    \move \number * \width(%rdi), %\prefix\number
    .else
    \move %\prefix\number, \number * \width(%rsi)
    .endif
    .endm

    .altmacro
    hold hold_avx, 32, vmovdqu, ymm, 15
    hold hold_avx512, 64, vmovdqu64, zmm, 31

/* SSE without AVX: no vzeroupper on a CPU that lacks it. */
    .globl hold_sse
    .type hold_sse, @function
hold_sse:
    .set at, 0
    .rept 16
    register load, movdqu, xmm, %at, 16
    .set at, at + 1
    .endr
1:  cmp %ecx, (%rdx)
    je 1b
    .set at, 0
    .rept 16
    register store, movdqu, xmm, %at, 16
    .set at, at + 1
    .endr
    ret
    .size hold_sse, . - hold_sse

/* The eight mask registers of AVX-512, 64 bits each (needs AVX-512BW). */
    .globl hold_masks
    .type hold_masks, @function
hold_masks:
    .set at, 0
    .rept 8
    register load, kmovq, k, %at, 8
    .set at, at + 1
    .endr
1:  cmp %ecx, (%rdx)
    je 1b
    .set at, 0
    .rept 8
    register store, kmovq, k, %at, 8
    .set at, at + 1
    .endr
    ret
    .size hold_masks, . - hold_masks

/* x87: eight integers on its stack, a control word and an MXCSR of our own.
 * in and out: i64[8], u16 control word at 64, u32 MXCSR at 68. */
    .globl hold_x87
    .type hold_x87, @function
hold_x87:
    sub $24, %rsp
    fnstcw 8(%rsp)
    stmxcsr 12(%rsp)
    fninit
    fldcw 64(%rdi)
    ldmxcsr 68(%rdi)
    .set at, 0
    .rept 8
    fildll 8 * at(%rdi)
    .set at, at + 1
    .endr
1:  cmp %ecx, (%rdx)
    je 1b
    fnstcw 64(%rsi)
    stmxcsr 68(%rsi)
    .set at, 7
    .rept 8
    fistpll 8 * at(%rsi)
    .set at, at - 1
    .endr
    fldcw 8(%rsp)
    ldmxcsr 12(%rsp)
    add $24, %rsp
    ret
    .size hold_x87, . - hold_x87

/* The general registers that no argument needs. in and out: u64[9]. */
    .globl hold_general
    .type hold_general, @function
hold_general:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    .set at, 0
    .irp name, rax, rbx, rbp, r8, r9, r12, r13, r14, r15
    mov 8 * at(%rdi), %\name
    .set at, at + 1
    .endr
1:  cmp %ecx, (%rdx)
    je 1b
    .set at, 0
    .irp name, rax, rbx, rbp, r8, r9, r12, r13, r14, r15
    mov %\name, 8 * at(%rsi)
    .set at, at + 1
    .endr
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size hold_general, . - hold_general

    .section .note.GNU-stack, "", @progbits
