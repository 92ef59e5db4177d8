//! Who runs on which processor while something is measured.

use std::process::{Child, Command};

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::interruption;

/// Where the three parties of a fault run: who touches, who serves the destination, who has the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Wherever the kernel puts them.
    Free,
    /// All on one processor.
    OneCore,
    /// Who touches and who has the page on one, who serves on another.
    Apart,
}

impl Place {
    /// All of them, in the order in which they are printed.
    pub(super) const ALL: [Self; 3] = [Self::OneCore, Self::Apart, Self::Free];

    /// In names of figures.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::OneCore => "one_core",
            Self::Apart => "apart",
        }
    }

    /// In words.
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Free => "as the kernel likes",
            Self::OneCore => "all on one core",
            Self::Apart => "reader and source on one, receiver on another",
        }
    }

    /// Whether so many processors are enough for it.
    pub(super) const fn is_possible(self, processors: usize) -> bool {
        match self {
            Self::Free | Self::OneCore => true,
            Self::Apart => processors > 1,
        }
    }

    /// The processor of the program, before and after.
    pub(super) const fn of_program(self) -> Option<usize> {
        match self {
            Self::Free => None,
            Self::OneCore | Self::Apart => Some(0),
        }
    }

    /// The processor of the receiver.
    pub(super) const fn of_receiver(self) -> Option<usize> {
        match self {
            Self::Free => None,
            Self::OneCore => Some(0),
            Self::Apart => Some(1),
        }
    }
}

/// Starts a program that keeps to `processor`, if one is named.
///
/// # Errors
/// It cannot be started, or there is no such processor.
pub(super) fn spawn(command: &mut Command, processor: Option<usize>) -> anyhow::Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawn =
        |command: &mut Command| interruption::spawn(command).with_context(|| format!("starting {name}"));
    let Some(processor) = processor else { return spawn(command) };
    // A child has what the thread that starts it has.
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread).context("asking for the processors of this thread")?;
    keep_to(processor)?;
    let child = spawn(command);
    sched_setaffinity(this_thread, &before).context("giving this thread its processors back")?;
    child
}

/// Keeps this thread to a processor.
///
/// # Errors
/// There is no such processor.
pub(super) fn keep_to(processor: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor).with_context(|| format!("naming processor {processor}"))?;
    sched_setaffinity(Pid::from_raw(0), &only).with_context(|| format!("keeping to processor {processor}"))
}
