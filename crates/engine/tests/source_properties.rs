//! Whatever is asked for and however scans end, the source tells of every page once and pushes each data page once.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::range;
use engine::{Config, Instant, Plan, Source, SourceAction, SourceInput};
use memory::{PAGE_SIZE, PageRange, PageSet, RangeSet};
use proptest::prelude::*;
use protocol::{Channel, MAX_PAGES_PER_FRAME};

/// What one migration looks like, in page numbers.
#[derive(Clone, Debug)]
struct Scene {
    lazy: Vec<(u64, u64)>,
    eager: Vec<u64>,
    data: BTreeSet<u64>,
    /// Page requests, each after so many actions.
    requests: Vec<(usize, u64, u64)>,
    /// Pages after which a scan stops early.
    scans: Vec<u64>,
    push_pages: u64,
    page_map_runs: usize,
}

fn any_scene() -> impl Strategy<Value = Scene> {
    (
        proptest::collection::vec((0..900_u64, 1..200_u64), 1..5),
        proptest::collection::vec(0..1000_u64, 0..5),
        proptest::collection::btree_set(0..1100_u64, 0..300),
        proptest::collection::vec((0..60_usize, 0..1000_u64, 1..65_u64), 0..10),
        proptest::collection::vec(1..300_u64, 1..10),
        1..65_u64,
        1..8_usize,
    )
        .prop_map(|(lazy, eager, data, requests, scans, push_pages, page_map_runs)| Scene {
            lazy,
            eager,
            data,
            requests,
            scans,
            push_pages,
            page_map_runs,
        })
}

fn numbers(range: PageRange) -> std::ops::Range<u64> {
    range.start().0 / PAGE_SIZE..range.end().0 / PAGE_SIZE
}

fn data_in(scene: &Scene, scanned: PageRange) -> Vec<PageRange> {
    let mut set = PageSet::new();
    for page in scene.data.range(numbers(scanned)) {
        set.insert(range(*page, 1));
    }
    set.runs().collect()
}

/// Everything that the source wanted done from `Connected` to its last action.
fn run(scene: &Scene) -> Vec<SourceAction> {
    let config = Config {
        push_pages: scene.push_pages,
        page_map_runs: scene.page_map_runs,
        scan_bytes: 100 * PAGE_SIZE,
        head_start: Duration::ZERO,
        ..Config::default()
    };
    let lazy: Vec<_> = scene.lazy.iter().map(|(start, pages)| range(*start, *pages)).collect();
    let eager: Vec<_> = scene.eager.iter().map(|page| range(*page, 1)).collect();
    let served: RangeSet = lazy.iter().chain(&eager).copied().collect();
    let mut source = Source::new(config, Instant(0));
    let mut log: Vec<SourceAction> = Vec::new();
    let mut inputs =
        std::collections::VecDeque::from([SourceInput::Connected, SourceInput::Reserved(Plan::default())]);
    let mut scans = scene.scans.iter().cycle();
    while let Some(input) = inputs.pop_front() {
        source.handle(Instant(0), input);
        while let Some(action) = source.poll_action() {
            match &action {
                SourceAction::Capture { .. } => {
                    let (eager, lazy) = (eager.clone(), lazy.clone());
                    inputs.push_back(SourceInput::Captured { eager, lazy, kept: Vec::new(), content: 0 });
                }
                SourceAction::SendPages { channel, .. } => inputs.push_back(SourceInput::Sent(*channel)),
                SourceAction::Scan(asked) => {
                    let scanned = asked.split_at_pages(*scans.next().unwrap_or(&1)).0;
                    inputs.push_back(SourceInput::Scanned { scanned, data: data_in(scene, scanned) });
                }
                _ => {}
            }
            log.push(action);
            let asked = scene.requests.iter().filter(|(after, _, _)| *after == log.len());
            let pages = asked.map(|(_, start, count)| range(*start, *count));
            let stands = log.iter().any(|action| matches!(action, SourceAction::SendSwitchover));
            let pages = pages.filter(|pages| stands && served.covers(*pages));
            inputs.extend(pages.map(SourceInput::PageRequested));
        }
        let reached = |wanted: fn(&SourceAction) -> bool| log.iter().any(wanted);
        let eager_is_out = reached(|action| matches!(action, SourceAction::SendSwitchover));
        if inputs.is_empty() && eager_is_out && source.may_still_run_here() {
            inputs.push_back(SourceInput::Ready);
        }
    }
    log
}

proptest! {
    #[test]
    fn every_page_is_told_of_once_and_every_data_page_is_pushed_once(scene in any_scene()) {
        let log = run(&scene);
        let lazy: RangeSet = scene.lazy.iter().map(|(start, pages)| range(*start, *pages)).collect();
        let (mut told, mut told_data) = (RangeSet::new(), PageSet::new());
        let (mut pushed, mut answered) = (PageSet::new(), PageSet::new());
        for action in &log {
            match action {
                SourceAction::SendPageMap { scanned, data } => {
                    prop_assert!(data.len() <= scene.page_map_runs);
                    prop_assert_eq!(told.first_in(*scanned), None);
                    told.insert(*scanned);
                    data.iter().for_each(|run| _ = told_data.insert(*run));
                }
                SourceAction::SendPages { channel: Channel::Push, pages } => {
                    prop_assert!(pages.pages() <= scene.push_pages.min(MAX_PAGES_PER_FRAME));
                    prop_assert_eq!(pushed.insert(*pages), pages.pages());
                }
                SourceAction::SendPushed(pages) => prop_assert_eq!(pushed.runs_in(*pages).next(), Some(*pages)),
                SourceAction::SendPages { pages, .. } => _ = answered.insert(*pages),
                SourceAction::SendZero(pages) => {
                    prop_assert!(numbers(*pages).all(|page| !scene.data.contains(&page)));
                }
                _ => {}
            }
        }
        prop_assert_eq!(&told, &lazy);
        let data: Vec<_> = lazy.runs().flat_map(|run| data_in(&scene, run)).collect();
        let told_runs: Vec<_> = lazy.runs().flat_map(|run| told_data.runs_in(run).collect::<Vec<_>>()).collect();
        prop_assert_eq!(told_runs, data.clone());
        for run in data {
            for page in numbers(run) {
                let addr = range(page, 1).start();
                prop_assert!(pushed.contains(addr) || answered.contains(addr), "page {page} was never sent");
            }
        }
        let done = log.iter().position(|action| matches!(action, SourceAction::SendPushDone));
        let is_push =
            |action: &SourceAction| matches!(action, SourceAction::SendPages { channel: Channel::Push, .. });
        prop_assert!(done.is_some_and(|done| !log.iter().skip(done).any(is_push)), "{log:?}");
    }
}
