//! `threads`: a ring of threads that pass a turn around, and short-lived ones that come and go beside it.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::progress::Progress;
use crate::random::mix;

/// Turns of every ring thread that make a round.
const TURNS_PER_ROUND: u64 = 5;
const SHORT_LIVED_PER_ROUND: u64 = 4;

thread_local! {
    /// What this thread has done; the ring holds the same number in shared memory.
    static TURNS: Cell<u64> = const { Cell::new(0) };
    static IDENTITY: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// What the threads share: whose turn it is and how many turns each has had.
struct Ring {
    state: Mutex<State>,
    /// One for each thread; the last one belongs to the main thread.
    turn_of: Vec<Condvar>,
}

struct State {
    turn: usize,
    turns: Vec<u64>,
    stop: bool,
    fault: Option<String>,
}

/// Lets the ring run round after round.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let size = usize::try_from(progress.options().threads).context("the number of threads")?;
    let ring = Arc::new(Ring {
        state: Mutex::new(State { turn: size, turns: vec![0; size], stop: false, fault: None }),
        turn_of: (0..=size).map(|_| Condvar::new()).collect(),
    });
    let members = (0..size).map(|member| spawn(&ring, member)).collect::<Result<Vec<_>>>()?;
    let outcome = rounds(progress, &ring, size);
    ring.lock().stop = true;
    ring.turn_of.iter().for_each(Condvar::notify_all);
    for member in members {
        member.join().map_err(|_| anyhow!("a thread panicked"))?;
    }
    outcome
}

fn spawn(ring: &Arc<Ring>, member: usize) -> Result<JoinHandle<()>> {
    let ring = Arc::clone(ring);
    thread::Builder::new()
        .name(format!("ring-{member}"))
        .stack_size(256 << 10)
        .spawn(move || ring.take_turns(member))
        .context("starting a thread")
}

fn rounds(progress: &mut Progress, ring: &Ring, size: usize) -> Result<()> {
    let mut turns = 0;
    while progress.goes_on() {
        for _ in 0..TURNS_PER_ROUND {
            ring.once_around(size)?;
        }
        turns += TURNS_PER_ROUND;
        let state = ring.lock();
        ensure!(
            state.turns.iter().all(|had| *had == turns),
            "not every thread had {turns} turns: {:?}",
            state.turns
        );
        drop(state);
        (0..SHORT_LIVED_PER_ROUND).try_for_each(|number| live_shortly(turns ^ number))?;
        progress.round_ok()?;
    }
    Ok(())
}

/// Starts a thread, lets it compute, joins it and compares.
fn live_shortly(seed: u64) -> Result<()> {
    let found = thread::spawn(move || {
        IDENTITY.set(seed);
        (0..100).for_each(|_| TURNS.set(TURNS.get() + 1));
        mix(IDENTITY.get()) ^ TURNS.get()
    })
    .join()
    .map_err(|_| anyhow!("a short-lived thread panicked"))?;
    ensure!(found == mix(seed) ^ 100, "a short-lived thread computed {found:#x}");
    Ok(())
}

impl Ring {
    /// A panic elsewhere ends the run by itself; its lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_turn(&self, member: usize) -> MutexGuard<'_, State> {
        self.turn_of[member]
            .wait_while(self.lock(), |state| state.turn != member && !state.stop)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, state: &mut State, to: usize) {
        state.turn = to;
        self.turn_of[to].notify_one();
    }

    /// Gives the turn to the first thread and waits until the last has given it back.
    fn once_around(&self, size: usize) -> Result<()> {
        self.pass(&mut self.lock(), 0);
        let state = self.wait_for_turn(size);
        state.fault.as_ref().map_or(Ok(()), |fault| Err(anyhow!("{fault}")))
    }

    fn take_turns(&self, member: usize) {
        IDENTITY.set(member as u64);
        let name = format!("ring-{member}");
        loop {
            let mut state = self.wait_for_turn(member);
            if state.stop {
                return;
            }
            state.turns[member] += 1;
            TURNS.set(TURNS.get() + 1);
            let known = TURNS.get() == state.turns[member] && IDENTITY.get() == member as u64;
            if !known || thread::current().name() != Some(&name) {
                state.fault = Some(format!("thread {member} finds thread-local data of another"));
            }
            self.pass(&mut state, member + 1);
        }
    }
}
