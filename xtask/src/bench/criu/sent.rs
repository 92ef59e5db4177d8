//! A move by `criu-bridge send` to a `criu-bridge receive` of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::super::programs::{Foreign, position};
use super::steps::{Killed, wait_for};
use super::{Course, Restored, lines};

/// Returns when every page has been carried over.
pub(super) fn carry(course: &Course<'_>) -> anyhow::Result<Restored> {
    let journal = course.images.join("events");
    let said = journal.to_str().context("a path of text")?;
    let place = ["-D", course.directory()?];
    let take = [&["receive", "0", "--once", "--events", said], &place[..]].concat();
    let mut take =
        Killed::start(&mut course.bridge(&take, "receive.log")?).context("starting criu-bridge receive")?;
    let port = event(&mut take, &journal, "listening")?["port"].as_u64().context("the event names a port")?;
    let (pid, there) = (course.pid.to_string(), format!("127.0.0.1:{port}"));
    let before = lines(course.out)?.len();
    let send = [&["send", &pid, &there], &place[..]].concat();
    let mut send =
        Killed::start(&mut course.bridge(&send, "send.log")?).context("starting criu-bridge send")?;
    let root = Foreign::of(&event(&mut take, &journal, "resumed")?)?;
    event(&mut take, &journal, "complete")?;
    send.expect_success("criu-bridge send")?;
    Ok(Restored { process: take, root: Some(root), said: before, resident: Vec::new() })
}

/// The first event of this name, waited for.
fn event(take: &mut Killed, journal: &Path, name: &str) -> anyhow::Result<Value> {
    let mut found = None;
    wait_for(|| {
        let mut events = events(journal);
        found = position(events.iter(), name)?.map(|at| events.swap_remove(at));
        ensure!(found.is_some() || !take.has_ended()?, "criu-bridge receive has ended");
        Ok(found.is_some())
    })
    .with_context(|| format!("waiting for the event '{name}'"))?;
    found.context("the event has come")
}

/// What has been written so far, but for a line that is not whole yet.
fn events(journal: &Path) -> Vec<Value> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
