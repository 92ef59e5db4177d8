//! The workloads by name.

mod chase;
mod counter;
mod deep_stack;
mod files_pipes;
mod hash_chain;
mod heap_churn;
mod threads;
mod ticks;
mod writer;

use anyhow::Result;

use crate::progress::Progress;

/// What a workload written in Rust looks like: it returns at its end, or at the first thing that is wrong.
pub(crate) type Run = fn(&mut Progress) -> Result<()>;

/// One workload.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it checks.
    pub(crate) about: &'static str,
    /// Its code, or none if it is written in C: `c/main.c` has its own table of those.
    pub(crate) run: Option<Run>,
}

/// Every workload, the default one first.
pub(crate) const WORKLOADS: &[Workload] = &[
    rust("counter", "prints 0, 1, 2 … and verifies the memory that it holds", counter::run),
    rust("ticks", "prints the largest gap between two looks at the clock", ticks::run),
    rust("chase", "follows pointers through all of its memory in random order", chase::run),
    rust("writer", "writes random pages of its memory at a held rate and counts", writer::run),
    rust(
        "hash_chain",
        "a hash chain over a large buffer, computed again without the buffer",
        hash_chain::run,
    ),
    rust(
        "heap_churn",
        "allocates, resizes and frees blocks of all sizes and checks their content",
        heap_churn::run,
    ),
    rust("threads", "creation, join, mutex, condition variables, thread-local data", threads::run),
    rust(
        "files_pipes",
        "files, shared offsets, append, pipes, eventfd, epoll, a listening socket",
        files_pipes::run,
    ),
    rust("deep_stack", "recursion deeper than ever before, checked while it unwinds", deep_stack::run),
    c("vectors", "SSE, AVX and AVX-512 registers, x87, MXCSR and GS base, held in a loop"),
    c("signals", "handlers, alternate stacks, masks, pending and queued signals, nesting"),
    c("timers", "interval timers and POSIX timers, to the process and to a thread"),
    c("robust_mutex", "robust mutexes whose owners end, __thread data, thread names and ids"),
    c("process_state", "directory, umask, limits, command line, exe, auxv, prctl flags"),
    c("mappings", "every kind of mapping, changed by mprotect, mremap, madvise, munmap, brk"),
    c("sleeper", "every call that waits: no EINTR, and the time that it was given"),
    c("forker", "when it notices that it was moved: children that verify its memory"),
];

const fn rust(name: &'static str, about: &'static str, run: Run) -> Workload {
    Workload { name, about, run: Some(run) }
}

const fn c(name: &'static str, about: &'static str) -> Workload {
    Workload { name, about, run: None }
}
