//! Nonsense at the right and the wrong moment: the engines may end the migration, but they never panic, and what they
//! are asked to remember stays within what was given to them.

use engine::{
    Config, Content, Destination, DestinationInput, Failure, InstallOutcome, Instant, Place, Plan, Source,
    SourceInput, SpaceId,
};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::Channel;

use crate::random::Choices;

/// Inputs that each engine gets.
const INPUTS: u64 = 200;

/// Feeds both engines with what `random` chooses.
pub fn run(random: &mut impl Choices) {
    let mut now = Instant(1);
    let config =
        Config { scan_bytes: 8 * PAGE_SIZE, pages_in_flight: 20, data_pages: 1 << 16, ..Config::default() };
    let config = Config { takes_ahead: random.percent(50), ..config };
    let mut source = Source::new(config, now);
    let mut destination = Destination::new(config, now);
    if random.percent(70) {
        for input in [SourceInput::Connected, SourceInput::Reserved(Plan::default()), captured(random)] {
            source.handle(now, input);
            while source.poll_action().is_some() {}
        }
        let (eager, lazy) = (ranges(random), ranges(random));
        for input in [
            DestinationInput::ReserveRequested,
            DestinationInput::Reserved,
            DestinationInput::SwitchoverRequested { eager, lazy, kept: Vec::new() },
            DestinationInput::Mapped { places: Vec::new() },
        ] {
            destination.handle(now, input);
            while destination.poll_action().is_some() {}
        }
    }
    for _ in 0..INPUTS {
        if !random.goes_on() {
            return;
        }
        let most = 1 << random.below(40);
        now = Instant(now.0 + random.below(most));
        source.handle(now, source_input(random));
        destination.handle(now, destination_input(random));
        for _ in 0..random.below(20) {
            source.poll_action();
            destination.poll_action();
        }
        let (_, _) = (source.poll_timeout(), destination.poll_timeout());
        assert!(
            destination.progress().done_pages <= destination.progress().total_pages,
            "progress is past its end"
        );
    }
}

fn range(random: &mut impl Choices) -> PageRange {
    let start = if random.percent(90) { random.below(100) } else { random.below(u64::MAX) >> 17 };
    let len = if random.percent(90) { random.below(40) } else { random.below(u64::MAX) >> 17 };
    PageRange::from_pages(Addr(start * PAGE_SIZE), len)
        .unwrap_or_else(|| PageRange::from_pages(Addr(0), 1).expect("the first page is a page"))
}

fn places(random: &mut impl Choices) -> Vec<Place> {
    let space = |random: &mut _| SpaceId(u32::try_from(Choices::below(random, 4)).unwrap_or(0));
    (0..random.below(3))
        .map(|_| Place { space: space(random), at: range(random), source: range(random).start() })
        .collect()
}

fn ranges(random: &mut impl Choices) -> Vec<PageRange> {
    (0..random.below(6)).map(|_| range(random)).collect()
}

/// What the source finds out for itself: as long as it likes, but never more data than a machine holds.
fn captured(random: &mut impl Choices) -> SourceInput {
    SourceInput::Captured {
        eager: small_ranges(random),
        lazy: ranges(random),
        kept: small_ranges(random),
        content: random.below(1 << 40),
    }
}

fn plan(random: &mut impl Choices) -> Plan {
    let (ahead, follows) = (random.percent(50), random.percent(50));
    Plan { ahead, follows, bandwidth: random.below(1 << 30), ..Plan::default() }
}

fn small_ranges(random: &mut impl Choices) -> Vec<PageRange> {
    ranges(random).into_iter().filter(|range| range.pages() < 1 << 16).collect()
}

fn channel(random: &mut impl Choices) -> Channel {
    random.pick(&Channel::ALL).unwrap_or(Channel::Push)
}

fn source_input(random: &mut impl Choices) -> SourceInput {
    match random.below(45) {
        0 => SourceInput::Connected,
        1 => SourceInput::Reserved(plan(random)),
        2 => captured(random),
        3 => SourceInput::CaptureFailed(Failure::ProcessGone),
        4..7 => SourceInput::Ready,
        7 => SourceInput::Running { patience_s: u16::try_from(random.below(3)).unwrap_or(0) },
        8..20 => SourceInput::PageRequested(range(random)),
        20..30 => SourceInput::Scanned { scanned: range(random), data: small_ranges(random) },
        30..32 => SourceInput::Sent(channel(random)),
        32 => SourceInput::Reconnected,
        33 => SourceInput::ReconnectFailed(Failure::LinkLost(channel(random))),
        34 => SourceInput::Unscanned(range(random)),
        35 => SourceInput::Listed { arrived: random.percent(50), pages: small_ranges(random) },
        36 => SourceInput::ListDone,
        37 => SourceInput::Drained,
        38 => SourceInput::Broken(Failure::LinkLost(channel(random))),
        39 => SourceInput::Aborted(Failure::ProcessGone),
        40..43 => SourceInput::Swept { written: small_ranges(random), lost: ranges(random) },
        43 => SourceInput::RoundTaken,
        _ => SourceInput::Tick,
    }
}

fn destination_input(random: &mut impl Choices) -> DestinationInput {
    let space = SpaceId(u32::try_from(random.below(3)).unwrap_or(0));
    let outcomes = [
        InstallOutcome::Installed,
        InstallOutcome::AlreadyPresent,
        InstallOutcome::Retry,
        InstallOutcome::RangeGone,
        InstallOutcome::SpaceGone,
    ];
    let outcome = random.pick(&outcomes).unwrap_or(InstallOutcome::Retry);
    let content = random.pick(&[Content::Data, Content::Zero, Content::Lost]).unwrap_or(Content::Data);
    match random.below(73) {
        0 => DestinationInput::ReserveRequested,
        65 => DestinationInput::ContentArrived,
        1 => DestinationInput::Reserved,
        2 => {
            let (eager, lazy, kept) = (ranges(random), ranges(random), ranges(random));
            DestinationInput::SwitchoverRequested { eager, lazy, kept }
        }
        70 => DestinationInput::RoundEnded { last: random.percent(30) },
        71 => DestinationInput::Remade(ranges(random)),
        3 => DestinationInput::Mapped { places: places(random) },
        67..70 => DestinationInput::Assembled,
        4 => DestinationInput::PrepareFailed(Failure::ProcessGone),
        5..15 => DestinationInput::PagesArrived { channel: channel(random), pages: range(random), content },
        15..25 => DestinationInput::Installed { space, pages: range(random), outcome },
        25..27 => DestinationInput::Filled { space, at: range(random), outcome },
        27..32 => DestinationInput::Run { epoch: random.below(u64::MAX) },
        32..35 => DestinationInput::Resumed,
        35..40 => DestinationInput::PageMap { scanned: range(random), data: ranges(random) },
        40 => DestinationInput::PageMapDone,
        41 => DestinationInput::PushDone,
        42..52 => DestinationInput::Fault { space, addr: range(random).start(), thread: 1 },
        52..55 => DestinationInput::Remapped { space, from: range(random), to: range(random).start() },
        55..57 => DestinationInput::Removed { space, pages: range(random) },
        57..59 => DestinationInput::Unmapped { space, pages: range(random) },
        59 => DestinationInput::Forked { parent: space, child: SpaceId(space.0 + 1) },
        60 => DestinationInput::SpaceGone(space),
        61 => DestinationInput::Broken(Failure::Deadline("nothing")),
        62..64 => DestinationInput::Reconnected,
        64 => DestinationInput::TakenOver,
        _ => DestinationInput::Tick,
    }
}
