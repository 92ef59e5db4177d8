//! The report of a migration, put together from what source, engine and loop have measured.

use std::time::Duration;

use engine::LostPages;
use fault_handler::{Outcome, Traffic};
use memory::{PAGE_SIZE, PageRange};
use protocol::SourceReport;

use crate::events::SessionEvent;
use crate::report::{FaultLatency, Pages, Phases, Ram, Report};

/// From the last instruction at the source to the first one here, as the source saw it: threads parked, image
/// captured, `Run` sent, `Running` received. Without the source's word, what was seen here.
pub(super) fn downtime_us(source: Option<&SourceReport>, here: Duration) -> u64 {
    source.map_or_else(
        || us(here),
        |source| {
            let parts = [source.park_us, source.capture_us, source.switchover_us, source.resume_us];
            parts.into_iter().fold(0, u64::saturating_add)
        },
    )
}

/// What is told of memory that never came: the first ranges, so that an event stays a line.
pub(super) fn lost(lost: &LostPages) -> SessionEvent {
    const TOLD_RANGES: usize = 256;
    let range = |range: &PageRange| format!("{:x}-{:x}", range.start().0, range.end().0);
    SessionEvent::Lost {
        pages: lost.pages,
        ranges: lost.ranges.iter().take(TOLD_RANGES).map(range).collect(),
    }
}

/// The whole report.
pub(super) fn report(
    outcome: &Outcome,
    engine: &engine::Report,
    traffic: &Traffic,
    source: Option<&SourceReport>,
    same_file_pages: u64,
) -> Report {
    let counts = &engine.pages;
    let downtime_us = downtime_us(source, engine.downtime);
    let source = source.copied().unwrap_or_default();
    let rebuild_us = us(engine.phases.map + engine.phases.eager).min(source.switchover_us);
    let status = if *outcome == Outcome::Completed(None) { "completed" } else { "failed" };
    let pages = Pages {
        ahead: counts.ahead,
        eager: counts.eager,
        fault: counts.fault,
        prefetch: counts.prefetch,
        push: counts.push,
        data: counts.data,
        zero: counts.zero,
        same_file: same_file_pages,
        lost: counts.lost + engine.lost.pages,
    };
    Report {
        status: status.to_owned(),
        total_time: us(engine.total) / 1000,
        downtime: downtime_us / 1000,
        setup_time: source.setup_us / 1000,
        ram: ram(engine, traffic, &pages),
        postcopy_blocktime: engine.fault_latency.total_us() / 1000,
        total_us: us(engine.total),
        downtime_us,
        phases: Phases {
            setup_us: source.setup_us,
            ahead_us: source.ahead_us,
            park_us: source.park_us,
            capture_us: source.capture_us,
            switchover_us: source.switchover_us,
            send_us: source.switchover_us - rebuild_us,
            rebuild_us,
            resume_us: source.resume_us,
            scan_us: source.scan_us,
            postcopy_us: us(engine.phases.postcopy),
        },
        pages,
        fault_latency: FaultLatency {
            count: engine.fault_latency.count(),
            p50_us: engine.fault_latency.p50_us(),
            p99_us: engine.fault_latency.p99_us(),
            max_us: engine.fault_latency.max_us(),
            buckets: engine.fault_latency.buckets().collect(),
        },
        relayed_connections: 0,
    }
}

fn ram(engine: &engine::Report, traffic: &Traffic, pages: &Pages) -> Ram {
    let postcopy_bytes = traffic.received.saturating_sub(traffic.before_resume);
    let postcopy_us = us(engine.phases.postcopy).max(1);
    let postcopy_pages = pages.fault + pages.prefetch + pages.push;
    Ram {
        transferred: traffic.received,
        remaining: engine.lost.pages * PAGE_SIZE,
        total: (pages.data + pages.zero + pages.same_file + pages.lost) * PAGE_SIZE,
        duplicate: pages.zero,
        normal: pages.data,
        normal_bytes: pages.data * PAGE_SIZE,
        page_size: PAGE_SIZE,
        postcopy_requests: traffic.requests,
        postcopy_bytes,
        downtime_bytes: traffic.before_resume.saturating_sub(traffic.before_switchover),
        pages_per_second: postcopy_pages.saturating_mul(1_000_000) / postcopy_us,
        mbps: Duration::from_micros(postcopy_bytes.saturating_mul(8)).as_secs_f64()
            / Duration::from_micros(postcopy_us).as_secs_f64(),
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_is_the_whole_stop_as_the_source_saw_it() {
        let source = SourceReport {
            setup_us: 5000,
            park_us: 1,
            capture_us: 20,
            switchover_us: 300,
            resume_us: 4000,
            ..SourceReport::default()
        };
        assert_eq!(downtime_us(Some(&source), Duration::from_secs(9)), 4321);
        assert_eq!(downtime_us(None, Duration::from_micros(77)), 77);
    }

    #[test]
    fn handing_over_is_sending_and_rebuilding() {
        let source = SourceReport { switchover_us: 900, ..SourceReport::default() };
        let mut engine = engine::Report::default();
        (engine.phases.map, engine.phases.eager) = (Duration::from_micros(500), Duration::from_micros(100));
        let split = |engine: &engine::Report| {
            let outcome = Outcome::Completed(None);
            let phases = report(&outcome, engine, &Traffic::default(), Some(&source), 0).phases;
            (phases.send_us, phases.rebuild_us)
        };
        assert_eq!(split(&engine), (300, 600));
        engine.phases.map = Duration::from_secs(1);
        assert_eq!(split(&engine), (0, 900));
    }

    #[test]
    fn a_migration_that_lost_pages_is_not_reported_as_completed() {
        let engine = engine::Report::default();
        let lost = Outcome::Completed(Some(engine::Failure::ProcessGone));
        let status = |outcome| report(outcome, &engine, &Traffic::default(), None, 0).status;
        assert_eq!(status(&Outcome::Completed(None)), "completed");
        assert_eq!(status(&lost), "failed");
    }

    #[test]
    fn what_came_while_the_process_stood_is_told_from_what_came_later() {
        let traffic = Traffic { received: 1000, before_switchover: 100, before_resume: 300, requests: 2 };
        let mut engine = engine::Report::default();
        engine.phases.postcopy = Duration::from_micros(700);
        let ram = report(&Outcome::Completed(None), &engine, &traffic, None, 0).ram;
        assert_eq!((ram.downtime_bytes, ram.postcopy_bytes, ram.postcopy_requests), (200, 700, 2));
        assert!((ram.mbps - 8.0).abs() < 1e-9, "{}", ram.mbps);
    }
}
