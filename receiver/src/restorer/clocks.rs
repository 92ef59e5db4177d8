//! Clocks that begin with the machine: in the program they go on from what they showed at the source.
//!
//! A time namespace shifts them (time_namespaces(7)). On the machine of the source the shift is the source's own; on another
//! one it is the difference, taken when the manifest of the running program arrives. By then the source's clocks have gone
//! on a little, which [`MARGIN_NS`] makes up for: a clock may jump a little ahead, but never goes back.

use protocol::{ClockRecord, Manifest};
use sys::clock;
use sys::number::words;

/// How much later than the source's clocks the program's may be.
const MARGIN_NS: i128 = 5_000_000;
/// What nobody notices.
const NOTICEABLE_NS: i128 = 1_000_000;
const SECOND: i128 = 1_000_000_000;

/// How far the two clocks, monotonic and boot time, are ahead of the machine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Offsets {
    monotonic_ns: i128,
    boottime_ns: i128,
}

impl Offsets {
    /// Those that the program of `manifest` needs here.
    pub(super) fn of(manifest: &Manifest, same_kernel: bool) -> Self {
        let ClockRecord { monotonic_ns, boottime_ns, offsets } = &manifest.host.clocks;
        if same_kernel {
            return Self::parse(offsets);
        }
        let own = Self::own();
        let ahead = |there: u64, here: u64, own: i128| i128::from(there) - i128::from(here) + own + MARGIN_NS;
        Self {
            monotonic_ns: ahead(*monotonic_ns, clock::monotonic_ns(), own.monotonic_ns),
            boottime_ns: ahead(*boottime_ns, clock::boottime_ns(), own.boottime_ns),
        }
    }

    /// Those of this process.
    pub(super) fn own() -> Self {
        Self::of_process("self")
    }

    /// Those of a process, by its directory in `/proc`; none where the kernel has no time namespaces.
    pub(super) fn of_process(process: &str) -> Self {
        Self::parse(&std::fs::read(format!("/proc/{process}/timens_offsets")).unwrap_or_default())
    }

    /// What the kernel takes, unless it is what this process has anyway.
    pub(super) fn to_write(self) -> Option<String> {
        let line = |name: &str, ns: i128| {
            let (seconds, rest) = (ns.div_euclid(SECOND), ns.rem_euclid(SECOND));
            format!("{name} {seconds} {rest}\n")
        };
        let text = line("monotonic", self.monotonic_ns) + &line("boottime", self.boottime_ns);
        (!self.is_like(Self::own())).then_some(text)
    }

    /// Whether nobody could tell the one from the other.
    pub(super) fn is_like(self, other: Self) -> bool {
        let near = |one: i128, other: i128| (one - other).abs() < NOTICEABLE_NS;
        near(self.monotonic_ns, other.monotonic_ns) && near(self.boottime_ns, other.boottime_ns)
    }

    /// Says so if the clocks of `process` are not what they should be.
    pub(super) fn report(self, process: u32) {
        let found = Self::of_process(&process.to_string());
        if !self.is_like(found) {
            let difference_ms = (found.monotonic_ns - self.monotonic_ns) / 1_000_000;
            tracing::warn!(difference_ms, "CLOCK_MONOTONIC jumps: no time namespace may be made here");
        }
    }

    /// `monotonic SECONDS NANOSECONDS`, and the same for `boottime`.
    fn parse(text: &[u8]) -> Self {
        let of = |name: &[u8]| {
            text.split(|byte| *byte == b'\n').find_map(|line| {
                let words: Vec<&[u8]> = words(line).collect();
                let [found, seconds, rest] = words.as_slice() else { return None };
                let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
                let total = i128::from(number(seconds)?) * SECOND + i128::from(number(rest)?);
                (*found == name).then_some(total)
            })
        };
        Self { monotonic_ns: of(b"monotonic").unwrap_or(0), boottime_ns: of(b"boottime").unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        let found = Offsets::parse(b"monotonic           5         7\nboottime           -1 999999999\n");
        assert_eq!(found, Offsets { monotonic_ns: 5_000_000_007, boottime_ns: -1 });
        let text = found.to_write();
        assert_eq!(text.as_deref(), Some("monotonic 5 7\nboottime -1 999999999\n"));
    }

    #[test]
    fn on_another_machine_clocks_go_on_and_never_back() {
        let mut manifest = protocol::sample::manifest();
        manifest.host.clocks.monotonic_ns = clock::monotonic_ns() + 1_000_000_000_000;
        let offsets = Offsets::of(&manifest, false);
        let ahead = offsets.monotonic_ns - Offsets::own().monotonic_ns - 1_000 * SECOND;
        assert!((0..=MARGIN_NS).contains(&ahead), "{ahead}");
    }
}
