//! What kind of world a seed makes.

use std::time::Duration;

use engine::{Config, OnLoss, Plan};
use memory::PAGE_SIZE;

use crate::random::Random;

/// What goes wrong from outside. Times are steps of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disturbance {
    None,
    /// The destination cannot have what the manifest asks for.
    Refused,
    /// A thread does not stop.
    CaptureFails,
    /// Mapping does not work after all.
    MapFails,
    /// The threads cannot be let go.
    ResumeFails,
    /// All connections end. Either side is told, or finds out by a deadline.
    Cut {
        at: u32,
        silent: bool,
    },
    /// Connections end now and then, one or all, with a word or in silence, and the source can open new ones.
    Interruptions {
        /// In which this may happen: so many steps from the beginning.
        steps: u32,
        /// How likely it is in each of them, in a thousandth.
        permille: u64,
    },
    /// The loop that serves the memory is killed now and then, and another one goes on in its place.
    PagerDies {
        permille: u64,
    },
    /// The source's process dies.
    SourceCrash {
        at: u32,
    },
    /// The receiver dies, and the migrated process with it.
    DestinationCrash {
        at: u32,
    },
}

/// What a seed decides beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) disturbance: Disturbance,
    pub(crate) config: Config,
    /// Which pages travel when.
    pub(crate) plan: Plan,
    pub(crate) latency_ns: u64,
    pub(crate) jitter_ns: u64,
    pub(crate) threads: u64,
    pub(crate) budget: u32,
    /// How often the program moves on between two steps of the fault loop, in per cent.
    pub(crate) bustle: u64,
    /// The fault loop reads page frames before it has a place for them.
    pub(crate) impatient: bool,
    /// The fault loop does not look which ranges a child lacks, and finds out by the kernel's refusals. Then nothing
    /// may grow into such a range.
    pub(crate) careless_at_fork: bool,
}

impl Settings {
    pub(crate) fn new(random: &mut Random) -> Self {
        let at = u32::try_from(random.below(400)).unwrap_or(0);
        let disturbance = match random.below(100) {
            0..=29 => Disturbance::None,
            30..=44 => Disturbance::Interruptions {
                steps: u32::try_from(random.between(100, 2000)).unwrap_or(0),
                permille: random.between(2, 40),
            },
            45..=54 => Disturbance::PagerDies { permille: random.between(1, 20) },
            55..=57 => Disturbance::Refused,
            58..=60 => Disturbance::CaptureFails,
            61..=63 => Disturbance::MapFails,
            64..=66 => Disturbance::ResumeFails,
            67..=79 => Disturbance::Cut { at, silent: false },
            80..=84 => Disturbance::Cut { at, silent: true },
            85..=93 => Disturbance::SourceCrash { at },
            _ => Disturbance::DestinationCrash { at },
        };
        let plan = Plan {
            ahead: random.percent(50),
            follows: random.percent(70),
            max_downtime: Duration::from_micros(random.below(500)),
            bandwidth: if random.percent(20) { random.between(1 << 20, 1 << 32) } else { 0 },
        };
        Self {
            disturbance,
            config: Config { takes_ahead: plan.ahead, ..config(random) },
            plan,
            latency_ns: random.between(1_000, 200_000),
            jitter_ns: random.between(0, 100_000),
            threads: random.between(1, 5),
            budget: u32::try_from(random.between(0, 120)).unwrap_or(0),
            bustle: random.between(0, 40),
            impatient: random.percent(10),
            careless_at_fork: random.percent(30),
        }
    }
}

/// Small limits, so that each is met.
fn config(random: &mut Random) -> Config {
    Config {
        head_start: Duration::from_micros(random.below(2000)),
        head_start_pause: Duration::from_micros(random.between(1, 300)),
        precopy_rounds: u32::try_from(random.between(1, 8)).unwrap_or(1),
        precopy_idle_rounds: u32::try_from(random.between(1, 4)).unwrap_or(1),
        precopy_rest: Duration::from_micros(random.below(100)),
        precopy_rest_pages: random.below(20),
        push_pages: random.between(1, 64),
        push_window: u32::try_from(random.between(1, 3)).unwrap_or(1),
        prefetch_pages: random.between(0, 63),
        scan_bytes: random.between(1, 200) * PAGE_SIZE,
        page_map_runs: usize::try_from(random.between(1, 12)).unwrap_or(1),
        pages_in_flight: random.between(1, 100),
        zero_fill_pages: random.between(1, 16),
        poison_pages: if random.percent(30) { random.below(50) } else { u64::MAX },
        leftover_delay: Duration::from_micros(random.between(1, 2000)),
        on_loss: match random.below(10) {
            0..=6 => OnLoss::Poison,
            7..=8 => OnLoss::Kill,
            _ => OnLoss::Wait,
        },
        ..Config::default()
    }
}
