//! Threads: each waits twice in the hole, to begin and to leave.
//!
//! ```text
//! main    clone3 … │ stop │ begin:=1, wait for each "born" │ Run │ own rseq; leave:=1, wake one, gate
//! others  wait begin ───── FS, GS, names, lists; born:=1 ── wait leave ──────────────── wake all, rseq, gate
//! ```
//!
//! Most are made while the program still runs at the source ([`Ahead`]); those that it has started since are made when all
//! others begin, and those that have ended since end then.
//!
//! Nothing before `leave` touches the program's memory: its pages may still be missing. What rseq(2) touches is in place by
//! then, and the main thread has made the same call; where another one fails all the same, the process ends: others run already.

use memory::Addr;
use nix::libc;
use protocol::{Manifest, Scheduling, SignalInfo, ThreadRecord};

use super::batch::Batch;
use super::credentials::Change;
use super::layout::{Layout, THREAD_BYTES, THREAD_OPS};
use super::requirements::Here;
use super::{BlankChild, Program, RestoreError, Slot, Step, process, timers};
use crate::peer;

/// One thread but the main one.
#[derive(Clone, Copy, Debug)]
struct Other {
    tid: u32,
    /// Its operations.
    at: Addr,
    /// Its `struct clone_args`.
    clone_args: Addr,
    /// Becomes 1 when the thread is who it was.
    born: Addr,
    /// Becomes 0 when it ends in the hole.
    alive: Addr,
}

/// Threads that were made while the program still ran at the source.
#[derive(Debug, Default)]
pub(super) struct Ahead(Vec<Other>);

/// The threads but the main one.
#[derive(Debug)]
pub(super) struct Threads {
    others: Vec<Other>,
    /// Those of them that are still to be made.
    new: Vec<Other>,
    /// Those that were made and have ended at the source meanwhile.
    ended: Vec<Other>,
    /// Who the main thread becomes: as all others, or by itself.
    main: Become,
}

/// How a thread becomes who it was.
#[derive(Clone, Debug)]
enum Become {
    /// As the process, whose data is where all threads can read it.
    Shared(Change),
    Alone(Change),
}

impl Become {
    fn apply(&self, program: &mut Program, layout: Layout) {
        match self {
            Self::Shared(change) => change.apply(program, layout.shared_data()),
            Self::Alone(change) => change.apply_alone(program),
        }
    }
}

impl Ahead {
    /// Makes all threads of `manifest` but the main one; none if they would inherit what that has still to become.
    pub(super) fn make(
        child: &mut BlankChild,
        here: &Here,
        manifest: &Manifest,
    ) -> Result<Self, RestoreError> {
        let mut made = Vec::new();
        if !here.leaves_threads_alone(manifest) {
            return Ok(Self(made));
        }
        for (index, thread) in (0..).zip(manifest.threads.iter().skip(1)) {
            let at = child.layout().thread(index).ok_or(RestoreError::NoHole)?;
            let (program, other) = begin(child, at, thread.tid);
            child.place(program)?;
            made.push(other);
        }
        let mut batch = Batch::new(child);
        process::allow_barriers(batch.unit()?, &manifest.process);
        for other in &made {
            other.make(batch.unit()?);
        }
        batch.run()?;
        Ok(Self(made))
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Other {
    fn make(&self, program: &mut Program) {
        program.step(Step::Thread(self.tid)).thread(self.clone_args, CLONE_ARGS_BYTES, self.at);
    }
}

/// Puts everything in its place that the threads of `manifest` need.
pub(super) fn place(
    child: &mut BlankChild,
    manifest: &Manifest,
    Ahead(mut ahead): Ahead,
    (shared, alone): (Change, Vec<Option<Change>>),
) -> Result<Threads, RestoreError> {
    let becomes = |index: usize| match alone.get(index) {
        Some(Some(change)) => Become::Alone(change.clone()),
        _ => Become::Shared(shared.clone()),
    };
    if manifest.threads.is_empty() {
        return Err(RestoreError::NoMainThread);
    }
    let count = u32::try_from(manifest.threads.len()).map_err(|_| RestoreError::NoHole)?;
    child.set_word(child.layout().leaving_count(), count)?;
    shared.place_data(child)?;
    let (mut others, mut new) = (Vec::new(), Vec::new());
    let mut free = ahead.len() as u64..;
    ahead.sort_unstable_by_key(|other| other.tid);
    for (index, thread) in manifest.threads.iter().enumerate().skip(1) {
        let known = ahead.binary_search_by_key(&thread.tid, |other| other.tid);
        let at = match known {
            Ok(at) => ahead.get(at).map(|other| other.at),
            Err(_) => free.next().and_then(|index| child.layout().thread(index)),
        };
        let at = at.ok_or(RestoreError::NoHole)?;
        let (mut program, other) = begin(child, at, thread.tid);
        become_other(&mut program, child.layout(), manifest, thread, (&becomes(index), other));
        child.place(program)?;
        others.push(other);
        if known.is_err() {
            new.push(other);
        }
    }
    let mut tids: Vec<u32> = manifest.threads.iter().map(|thread| thread.tid).collect();
    tids.sort_unstable();
    ahead.retain(|other| tids.binary_search(&other.tid).is_err());
    for other in &ahead {
        let (mut program, _) = begin(child, other.at, other.tid);
        program.call(libc::SYS_exit, [0]);
        child.place(program)?;
    }
    Ok(Threads { others, new, ended: ahead, main: becomes(0) })
}

/// Lets the thread that runs the program become the main thread of `manifest`.
pub(super) fn become_main(program: &mut Program, manifest: &Manifest) -> Result<(), RestoreError> {
    let main = manifest.threads.first().ok_or(RestoreError::NoMainThread)?;
    program.step(Step::Thread(main.tid));
    become_thread(program, main);
    Ok(())
}

const CLONE_ARGS_BYTES: u64 = 80;
/// More than any kernel has.
const MOST_PROCESSORS: usize = 8192;

/// What every thread begins with, whether it waits there already or is still to be made: at `at`, where it stays.
fn begin(child: &BlankChild, at: Addr, tid: u32) -> (Program, Other) {
    /// `CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID`
    const FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x20_0000;
    let mut program = Program::at(at, Layout::thread_data(at));
    let [born, alive] = [0, 1].map(|word| program.words(&[word]));
    // Two numbers of 32 bits: in its own PID namespace, and in the receiver's.
    let ids = program.words(&[u64::from(tid) | u64::from(tid) << 32]);
    let levels = if child.identity().outside_too { 2 } else { 1 };
    let clone_args = program.words(&[FLAGS, 0, alive.0, 0, 0, 0, 0, 0, ids.0, levels]);
    program.step(Step::Thread(tid));
    program.wait_for(child.layout().begin());
    (program, Other { tid, at, clone_args, born, alive })
}

/// Adds what a thread does from there on.
fn become_other(
    program: &mut Program,
    layout: Layout,
    manifest: &Manifest,
    thread: &ThreadRecord,
    (who, other): (&Become, Other),
) {
    process::set_personality(program, &manifest.process);
    become_thread(program, thread);
    schedule(program, manifest, thread, By::Receiver);
    who.apply(program, layout);
    // What it may have of priorities is the program's own by now.
    schedule(program, manifest, thread, By::Program);
    want_death_signal(program, thread);
    program.set_and_wake(other.born);
    program.wait_for(layout.leave());
    program.wake(layout.leave());
    register_rseq(program, thread, Program::call_or_end);
    leave(program, layout, manifest, thread);
    assert!(program.len() as u64 <= THREAD_OPS, "a thread's operations are counted in layout");
    assert!(program.data_bytes().len() as u64 <= THREAD_BYTES - THREAD_OPS * 64, "and its data");
}

/// What a thread does to itself, without touching the program's memory. All signals stay blocked: the frame
/// brings the mask.
fn become_thread(program: &mut Program, thread: &ThreadRecord) {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    const PR_SET_NAME: u64 = 15;
    const PR_SET_TIMERSLACK: u64 = 29;
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    /// As many bits as there are, and the one that the kernel takes away.
    const NODES: u64 = 65;
    program.call(libc::SYS_arch_prctl, [ARCH_SET_FS, thread.fs_base]);
    program.call(libc::SYS_arch_prctl, [ARCH_SET_GS, thread.gs_base]);
    program.call(libc::SYS_set_tid_address, [thread.clear_child_tid.0]);
    let (head, len) = thread.robust_list;
    if len != 0 {
        program.call(libc::SYS_set_robust_list, [head.0, len]);
    }
    let name = program.data(&thread.name);
    program.call(libc::SYS_prctl, [PR_SET_NAME, name.0, 0, 0, 0]);
    // A thread of a real-time class has none, and 0 would mean the default.
    if thread.timer_slack_ns != 0 {
        program.call(libc::SYS_prctl, [PR_SET_TIMERSLACK, thread.timer_slack_ns, 0, 0, 0]);
    }
    if thread.no_new_privileges {
        program.call(libc::SYS_prctl, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
    }
    // As far as there are such nodes; the receiver's own policy is not the program's.
    let (mode, nodes) = thread.memory_policy;
    let nodes = program.words(&[nodes]);
    program.attempt(libc::SYS_set_mempolicy, [mode.into(), nodes.0, if mode == 0 { 0 } else { NODES }]);
}

/// By whose rights a thread gets its place among others: before it takes on its own, or behind that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Receiver,
    Program,
}

/// Gives the calling thread its place among others, if it is to get it by these rights: by those of the receiver unless
/// its sender has no such place itself.
fn schedule(program: &mut Program, manifest: &Manifest, thread: &ThreadRecord, by: By) {
    const IOPRIO_WHO_PROCESS: u64 = 1;
    /// `SCHED_BATCH` and `SCHED_IDLE` are as ordinary as `SCHED_OTHER`; all others must be had.
    const ORDINARY: [u32; 3] = [0, 3, 5];
    let Some(scheduling) = Scheduling::of(&thread.scheduling) else { return };
    let granted = if peer::grants(&scheduling) { By::Receiver } else { By::Program };
    if by != granted {
        return;
    }
    if by == By::Program {
        tracing::warn!(
            thread = thread.tid,
            "a thread keeps its priorities only as far as its user may raise them"
        );
    }
    program.step(Step::Schedule(thread.tid));
    if is_bound(scheduling.processors, &manifest.host.processors) {
        let set = program.data(scheduling.processors);
        program.attempt(libc::SYS_sched_setaffinity, [0, scheduling.processors.len() as u64, set.0]);
    }
    if scheduling.io_priority != 0 {
        let arguments = [IOPRIO_WHO_PROCESS, 0, scheduling.io_priority.into()];
        program.attempt(libc::SYS_ioprio_set, arguments);
    }
    if scheduling.nice != 0 {
        program.attempt(libc::SYS_setpriority, [0, 0, i64::from(scheduling.nice).cast_unsigned()]);
    }
    let attributes = program.data(scheduling.attributes);
    if !ORDINARY.contains(&scheduling.policy) {
        program.call(libc::SYS_sched_setattr, [0, attributes.0, 0]);
    } else if scheduling.policy != 0 {
        program.attempt(libc::SYS_sched_setattr, [0, attributes.0, 0]);
    }
}

/// Whether a thread may not run on all of the processors `online` at the source, as in `0-3,6`.
fn is_bound(processors: &[u8], online: &[u8]) -> bool {
    let Ok(online) = std::str::from_utf8(online) else { return false };
    let ranges = online.trim().split(',').filter(|range| !range.is_empty()).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(
            first.parse::<usize>().ok()?
                ..=last.parse::<usize>().ok().filter(|last| *last < MOST_PROCESSORS)?,
        )
    });
    let may_run =
        |number: usize| processors.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
    ranges.flatten().flatten().any(|number| !may_run(number))
}

/// Set behind the ids, whose change takes it back.
fn want_death_signal(program: &mut Program, thread: &ThreadRecord) {
    const PR_SET_PDEATHSIG: u64 = 1;
    if thread.death_signal != 0 {
        program.attempt(libc::SYS_prctl, [PR_SET_PDEATHSIG, thread.death_signal.into(), 0, 0, 0]);
    }
}

/// `call` decides what becomes of an error.
fn register_rseq(
    program: &mut Program,
    thread: &ThreadRecord,
    call: fn(&mut Program, libc::c_long, [u64; 4]) -> Slot,
) {
    if let Some(rseq) = thread.rseq {
        program.step(Step::Rseq(thread.tid));
        call(program, libc::SYS_rseq, [rseq.addr.0, u64::from(rseq.len), 0, u64::from(rseq.signature)]);
    }
}

fn leave(program: &mut Program, layout: Layout, manifest: &Manifest, thread: &ThreadRecord) {
    program.step(Step::Leave);
    let hole = layout.hole().range();
    program.leave(layout.leaving_count(), hole, thread.frame, manifest.leaving_gate);
}

/// Queues signals that waited at the source; they wait here too: every thread blocks all until it leaves.
pub(super) fn raise_pending(batch: &mut Batch<'_>, manifest: &Manifest) -> Result<(), RestoreError> {
    let own =
        manifest.threads.iter().flat_map(|thread| thread.pending.iter().map(|info| (Some(thread.tid), info)));
    for (tid, info) in own.chain(manifest.process.pending.iter().map(|info| (None, info))) {
        queue(batch.unit()?, manifest.process.pid, tid, info)?;
    }
    Ok(())
}

/// The main thread may queue any signal for the process, but for a thread only what a program may send: what the
/// kernel had sent to it comes as from tgkill(2).
fn queue(program: &mut Program, pid: u32, tid: Option<u32>, info: &SignalInfo) -> Result<(), RestoreError> {
    const SI_TKILL: i32 = -6;
    let number = u32::try_from(info.number()).ok().filter(|number| (1..=64).contains(number));
    let number =
        number.ok_or(RestoreError::Dangling { what: "signal", index: info.number().unsigned_abs() })?;
    program.step(Step::RaiseSignal(number));
    let at = program.words(&info.0);
    let (pid, number) = (u64::from(pid), u64::from(number));
    match tid.map(u64::from) {
        None => program.call(libc::SYS_rt_sigqueueinfo, [pid, number, at.0]),
        Some(tid) if info.code() < 0 && info.code() != SI_TKILL => {
            program.call(libc::SYS_rt_tgsigqueueinfo, [pid, tid, number, at.0])
        }
        Some(tid) => program.call(libc::SYS_tgkill, [pid, tid, number]),
    };
    Ok(())
}

impl Threads {
    /// Lets all begin who wait for that, and makes the others.
    pub(super) fn begin(&self, batch: &mut Batch<'_>) -> Result<(), RestoreError> {
        let begin = batch.child().layout().begin();
        let first = self.others.first().map_or(Step::Leave, |other| Step::Thread(other.tid));
        batch.unit()?.step(first).set_and_wake(begin);
        for other in &self.new {
            other.make(batch.unit()?);
        }
        Ok(())
    }

    /// Waits until every thread is who it was, and those are gone that have ended. For the last one first: whoever waits for
    /// each in its turn is woken by each.
    pub(super) fn await_born(&self, batch: &mut Batch<'_>) -> Result<(), RestoreError> {
        for other in self.others.iter().rev() {
            batch.unit()?.step(Step::Thread(other.tid)).wait_for(other.born);
        }
        for other in &self.ended {
            batch.unit()?.step(Step::Thread(other.tid)).wait_for_end(other.alive);
        }
        Ok(())
    }

    /// Lets every thread go. When this returns, all of them have, or will without fail, and the child is no
    /// blank any more.
    ///
    /// One program, so that nobody waits for its turn on a processor in between: the main thread does what can fail; then the
    /// control socket says "done" and is closed, all leave.
    pub(super) fn let_go(&self, child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
        let layout = child.layout();
        let main = manifest.threads.first().ok_or(RestoreError::NoMainThread)?;
        let mut batch = Batch::new(child);
        let program = batch.unit()?;
        program.step(Step::Thread(main.tid));
        // Only here: sockets had to be bound with the rights that the program had when it bound them.
        schedule(program, manifest, main, By::Receiver);
        self.main.apply(program, layout);
        schedule(program, manifest, main, By::Program);
        want_death_signal(program, main);
        process::set_dumpable(program, &manifest.process);
        register_rseq(program, main, Program::call);
        let program = batch.unit()?;
        timers::arm(program, manifest);
        program.step(Step::Leave);
        program.call(libc::SYS_write, [u64::from(child.control_number()), layout.token().0, 8]);
        program.close(child.control_number());
        // Who is woken wakes the others, so that the main thread does not wait for all of that.
        program.set_and_wake_one(layout.leave());
        leave(program, layout, manifest, main);
        batch.run()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_may_run_everywhere_is_bound_to_nothing() {
        assert!(!is_bound(&[0b1111], b"0-3\n"));
        assert!(!is_bound(&[0xff], b"0-1,3\n"));
        assert!(is_bound(&[0b0111], b"0-3\n"));
        assert!(is_bound(&[0xff], b"0-8\n"));
        assert!(!is_bound(&[1], b"nonsense"));
    }
}
