/* signals: handlers, masks, alternate stacks and signals that are pending, in the main thread and in a second one.
 *
 * SIGUSR2 is left alone: it is what asks for a move. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "target.h"

#define ALTERNATE_BYTES ((size_t)(256 << 10))
#define QUEUED 5

#define ON_ALTERNATE (SIGRTMIN + 1) /* its handler runs on the alternate stack */
#define ON_ORDINARY (SIGRTMIN + 2)
#define OUTER (SIGRTMIN + 3) /* raises INNER while it runs */
#define INNER (SIGRTMIN + 4)

/* One for each thread that takes part. */
struct witness {
    char *alternate;
    sigset_t mask;
    int sequence, on_alternate, first_wrong;
    int values[QUEUED], next;
};

static _Thread_local struct witness *me;

static struct witness *new_witness(void)
{
    struct witness *witness = mmap(NULL, PAGE + ALTERNATE_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(witness != MAP_FAILED, "no memory for an alternate stack");
    witness->alternate = (char *)witness + PAGE;
    return witness;
}

static void queued(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    char here;
    bool inside = &here >= me->alternate && &here < me->alternate + ALTERNATE_BYTES;
    me->on_alternate += inside;
    if (info->si_code != SI_QUEUE || info->si_pid != getpid())
        me->first_wrong = 1;
    if (me->next < QUEUED)
        me->values[me->next++] = info->si_value.sival_int;
    /* Time enough for a move to find the program in here. */
    work_for_us(200);
}

/* Handlers run in this order: OUTER begins (1), INNER in the middle of it (2), OUTER ends (3). */
static void outer(int signal)
{
    (void)signal;
    me->first_wrong |= me->sequence != 0;
    me->sequence = 1;
    raise(INNER);
    work_for_us(300);
    me->first_wrong |= me->sequence != 2;
    me->sequence = 3;
}

static void inner(int signal)
{
    (void)signal;
    me->first_wrong |= me->sequence != 1;
    me->sequence = 2;
    work_for_us(300);
}

static const struct {
    int offset; /* from SIGRTMIN */
    struct sigaction action;
} handlers[] = {
    {1, {.sa_sigaction = queued, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}},
    {2, {.sa_sigaction = queued, .sa_flags = SA_SIGINFO}},
    {3, {.sa_handler = outer, .sa_flags = SA_ONSTACK}},
    {4, {.sa_handler = inner, .sa_flags = SA_ONSTACK | SA_NODEFER}},
};

static struct sigaction wanted_action(size_t at)
{
    struct sigaction action = handlers[at].action;
    sigaddset(&action.sa_mask, SIGWINCH);
    return action;
}

static void install_handlers(void)
{
    for (size_t at = 0; at < sizeof handlers / sizeof *handlers; at++) {
        struct sigaction action = wanted_action(at);
        CHECK(sigaction(SIGRTMIN + handlers[at].offset, &action, NULL) == 0, "no handler could be installed");
    }
    signal(SIGHUP, SIG_IGN);
}

static void check_handlers(void)
{
    struct sigaction found;
    for (size_t at = 0; at < sizeof handlers / sizeof *handlers; at++) {
        struct sigaction wanted = wanted_action(at);
        sigaction(SIGRTMIN + handlers[at].offset, NULL, &found);
        CHECK(found.sa_sigaction == wanted.sa_sigaction, "the handler of SIGRTMIN+%d is another", handlers[at].offset);
        const int flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER;
        CHECK((found.sa_flags & flags) == wanted.sa_flags, "the flags of SIGRTMIN+%d are %#x", handlers[at].offset,
              found.sa_flags);
        CHECK(sigismember(&found.sa_mask, SIGWINCH) == 1 && sigismember(&found.sa_mask, SIGCONT) == 0,
              "the mask of SIGRTMIN+%d is another", handlers[at].offset);
    }
    sigaction(SIGHUP, NULL, &found);
    CHECK(found.sa_handler == SIG_IGN, "SIGHUP is not ignored");
    sigaction(SIGCHLD, NULL, &found);
    CHECK(found.sa_handler == SIG_DFL, "SIGCHLD has got a handler");
}

/* The thread's own mask and alternate stack; `own` is blocked in it alone. */
static void enter(struct witness *witness, int own)
{
    me = witness;
    stack_t stack = {.ss_sp = witness->alternate, .ss_size = ALTERNATE_BYTES};
    CHECK(sigaltstack(&stack, NULL) == 0, "no alternate stack could be set");
    sigemptyset(&witness->mask);
    sigaddset(&witness->mask, SIGWINCH);
    sigaddset(&witness->mask, own);
    pthread_sigmask(SIG_SETMASK, &witness->mask, NULL);
}

static void check_thread(void)
{
    stack_t stack;
    sigset_t mask;
    CHECK(sigaltstack(NULL, &stack) == 0, "the alternate stack cannot be read");
    CHECK(stack.ss_sp == me->alternate && stack.ss_size == ALTERNATE_BYTES && stack.ss_flags == 0,
          "the alternate stack is %zu bytes at %p, flags %d", stack.ss_size, stack.ss_sp, stack.ss_flags);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        CHECK(sigismember(&mask, signal) == sigismember(&me->mask, signal), "signal %d: the mask is another", signal);
}

static void queue_to_me(int signal, int value)
{
    siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    CHECK(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, &info) == 0, "a signal could not be queued");
}

/* Queues several while they are blocked, works on, lets them in, and compares. */
static void check_pending(int signal, bool alternate, int seed)
{
    sigset_t one, pending;
    sigemptyset(&one);
    sigaddset(&one, signal);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    me->next = me->on_alternate = 0;
    for (int at = 0; at < QUEUED; at++)
        queue_to_me(signal, seed + at);
    work_for_us(1000);
    sigpending(&pending);
    CHECK(sigismember(&pending, signal) == 1, "signal %d is not pending", signal);
    CHECK(me->next == 0, "signal %d came although it is blocked", signal);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    CHECK(me->next == QUEUED, "%d of %d queued signals came", me->next, QUEUED);
    for (int at = 0; at < QUEUED; at++)
        CHECK(me->values[at] == seed + at, "queued signal %d carries %d, not %d", at, me->values[at], seed + at);
    CHECK(me->on_alternate == (alternate ? QUEUED : 0), "%d of %d ran on the alternate stack", me->on_alternate,
          QUEUED);
    pthread_sigmask(SIG_SETMASK, &me->mask, NULL);
}

static void check_nesting(void)
{
    me->sequence = 0;
    raise(OUTER);
    CHECK(me->sequence == 3, "nested handlers stopped at step %d", me->sequence);
}

static void thread_round(int seed)
{
    check_thread();
    check_pending(ON_ALTERNATE, true, seed);
    check_pending(ON_ORDINARY, false, -seed);
    check_nesting();
    CHECK(!me->first_wrong, "a handler found something wrong");
}

static volatile bool end;

static void *second(void *witness)
{
    enter(witness, SIGPROF);
    for (int seed = 1000; !end; seed++)
        thread_round(seed);
    return NULL;
}

/* A signal to the process, blocked everywhere, stays pending for the whole run. */
static void check_process_pending(void)
{
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGWINCH) == 1, "the process's pending signal is lost");
}

void signals(const struct options *options)
{
    (void)options;
    install_handlers();
    enter(new_witness(), SIGVTALRM);
    struct sigaction keep = {.sa_handler = inner}; /* what has no handler is not kept pending */
    sigaction(SIGWINCH, &keep, NULL);
    kill(getpid(), SIGWINCH);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second, new_witness()) == 0, "no thread could be started");
    for (int seed = 0; goes_on(); seed++) {
        check_handlers();
        check_process_pending();
        thread_round(seed);
        round_ok();
    }
    end = true;
    pthread_join(thread, NULL);
}
