//! What the kernel grants a process beside its credentials: limits, and its place among others. Nobody brings a process
//! with more of it than the one that sends it has, unless the kernel lets that user take it.

use std::io::Read;

use nix::libc;
use procfs::process::Process;
use protocol::{ProcValue, Scheduling};

/// `SCHED_BATCH` and `SCHED_IDLE` are as ordinary as `SCHED_OTHER`.
const ORDINARY: [u32; 3] = [0, 3, 5];
/// `SCHED_FIFO` and `SCHED_RR`
const REAL_TIME: [u32; 2] = [1, 2];

/// The most that a process has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Hard limits by `RLIMIT_*` number.
    limits: Vec<u64>,
    /// The lowest nice value of a thread.
    nice: i64,
    /// The highest real-time priority of a thread; 0 without one.
    priority: u32,
    /// `oom_score_adj`
    reluctance: i16,
    /// `loginuid`
    login: Option<u32>,
}

impl Standing {
    /// That of `process`, as far as the kernel tells it; what it does not tell counts as nothing.
    pub(super) fn of(process: &Process) -> Self {
        let threads = process.tasks().into_iter().flatten().flatten().filter_map(|task| task.stat().ok());
        let (mut nice, mut priority) = (0, 0);
        for thread in threads {
            let real_time = thread.policy.is_some_and(|policy| REAL_TIME.contains(&policy));
            priority = priority.max(thread.rt_priority.filter(|_| real_time).unwrap_or(0));
            nice = nice.min(thread.nice);
        }
        let reluctance = process.oom_score_adj().unwrap_or(0);
        Self { limits: limits(process), nice, priority, reluctance, login: process.loginuid().ok() }
    }

    /// Whether a thread with this scheduling takes nothing that no thread of the process has.
    pub(super) fn covers(&self, wanted: &Scheduling<'_>) -> bool {
        /// `SCHED_FLAG_RESET_ON_FORK`
        const HARMLESS: u64 = 1;
        const IOPRIO_CLASS_SHIFT: u32 = 13;
        /// `IOPRIO_CLASS_NONE`, `IOPRIO_CLASS_BE` and `IOPRIO_CLASS_IDLE`
        const MODEST: [u32; 3] = [0, 2, 3];
        let attributes = wanted.attributes;
        let flags =
            attributes.get(8..).and_then(|bytes| bytes.first_chunk()).copied().map(u64::from_le_bytes);
        let priority = attributes.get(20..).and_then(|bytes| bytes.first_chunk()).copied();
        let priority = priority.map_or(u32::MAX, u32::from_le_bytes);
        let has_policy = ORDINARY.contains(&wanted.policy)
            || (REAL_TIME.contains(&wanted.policy) && priority <= self.priority);
        has_policy
            && flags.is_some_and(|flags| flags & !HARMLESS == 0)
            && i64::from(wanted.nice) >= self.nice
            && MODEST.contains(&(wanted.io_priority >> IOPRIO_CLASS_SHIFT))
    }

    /// The hard limit `number` at most.
    pub(super) fn limit(&self, number: u32) -> u64 {
        self.limits.get(number as usize).copied().unwrap_or(0)
    }

    /// What a file below `/proc/self` may be given of what is wanted.
    pub(super) fn value(&self, wanted: &ProcValue) -> Option<Vec<u8>> {
        let text = str::from_utf8(wanted.value.trim_ascii()).ok()?;
        match wanted.name.as_slice() {
            b"oom_score_adj" => Some(text.parse::<i16>().ok()?.max(self.reluctance).to_string().into_bytes()),
            b"loginuid" => (text.parse().ok() == self.login).then(|| text.as_bytes().to_vec()),
            _ => Some(text.as_bytes().to_vec()),
        }
    }
}

/// Hard limits (proc(5), `/proc/PID/limits`), which stand there by number.
fn limits(process: &Process) -> Vec<u64> {
    const NAME: usize = 25;
    let mut text = String::new();
    let Ok(mut file) = process.open_relative("limits") else { return Vec::new() };
    if file.read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    let hard = |line: &str| match line.get(NAME..)?.split_whitespace().nth(1)? {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    };
    text.lines().skip(1).map(|line| hard(line).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduling(policy: u32, nice: i32, priority: u32, io_priority: u32) -> Vec<u8> {
        let words = [56, policy, 0, 0, nice.cast_unsigned(), priority];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.resize(56, 0);
        bytes.extend(io_priority.to_le_bytes());
        bytes.resize(64, 0);
        bytes
    }

    #[test]
    fn nobody_stands_higher_than_who_sends_it() {
        let humble = Standing::default();
        let high = Standing { nice: -5, priority: 40, ..Standing::default() };
        let covers = |standing: &Standing, bytes: &[u8]| {
            Scheduling::of(bytes).is_some_and(|wanted| standing.covers(&wanted))
        };
        for (bytes, may_be, may_be_high) in [
            (scheduling(0, 0, 0, 0), true, true),
            (scheduling(3, 19, 0, 2 << 13 | 7), true, true),
            (scheduling(0, -5, 0, 0), false, true),
            (scheduling(0, -6, 0, 0), false, false),
            (scheduling(1, 0, 40, 0), false, true),
            (scheduling(2, 0, 41, 0), false, false),
            (scheduling(6, 0, 0, 0), false, false),
            (scheduling(0, 0, 0, 1 << 13), false, false),
        ] {
            assert_eq!((covers(&humble, &bytes), covers(&high, &bytes)), (may_be, may_be_high));
        }
    }

    #[test]
    fn values_are_no_better_than_those_of_who_sends_them() {
        let standing = Standing { reluctance: -3, login: Some(7), ..Standing::default() };
        let value = |name: &[u8], value: &[u8]| {
            standing.value(&ProcValue { name: name.to_vec(), value: value.to_vec() })
        };
        assert_eq!(value(b"oom_score_adj", b"-1000\n"), Some(b"-3".to_vec()));
        assert_eq!(value(b"oom_score_adj", b"9\n"), Some(b"9".to_vec()));
        assert_eq!(value(b"loginuid", b"7\n"), Some(b"7".to_vec()));
        assert_eq!(value(b"loginuid", b"0\n"), None);
    }

    #[test]
    fn the_kernel_tells_the_limits_in_their_order() {
        let own = limits(&Process::myself().expect("this process"));
        let asked: Vec<_> =
            sys::process::limits().expect("asked").into_iter().map(|limit| limit.hard).collect();
        assert_eq!(own, asked);
    }
}
