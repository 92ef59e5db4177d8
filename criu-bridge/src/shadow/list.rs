//! `shadows`: what is kept here.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use memory::PAGE_SIZE;
use serde::Serialize;

use super::epoch::{Origin, Pages};
use super::store::{DEFAULT_STORE, Presence, Shadow, Store};

/// `criu-bridge shadows`
#[derive(Args, Debug)]
pub(crate) struct Shadows {
    /// Where shadows are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STORE)]
    store: PathBuf,
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
    /// Remove this shadow instead
    #[arg(long, value_name = "SHADOW")]
    remove: Option<String>,
}

/// How a shadow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its original answers.
    Kept,
    /// Nobody answers.
    Silent,
    /// It runs here.
    Promoted,
}

/// What is said of a shadow.
#[derive(Debug, Serialize)]
struct Line {
    shadow: String,
    state: State,
    origin: Option<Origin>,
    disk_bytes: u64,
    /// The newest one first.
    epochs: Vec<EpochLine>,
}

/// What is said of an epoch.
#[derive(Debug, Serialize)]
struct EpochLine {
    epoch: u64,
    age_ms: u64,
    bytes: u64,
    pages: Pages,
    freeze_us: u64,
    lag_us: u64,
    every_ms: u64,
}

impl Shadows {
    /// Lists or removes.
    ///
    /// # Errors
    /// The store cannot be read, or there is no such shadow.
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let store = Store::at(&self.store);
        let at = || format!("shadows in '{}'", self.store.display());
        if let Some(name) = &self.remove {
            let shadow = store.find(name);
            let shadow = shadow.with_context(|| format!("there is no shadow '{name}' among the {}", at()))?;
            let lock = if shadow.answers().with_context(at)? { None } else { shadow.lock(Duration::ZERO)? };
            if lock.is_none() {
                bail!("the original of shadow '{name}' answers: end its criu-bridge shadow first");
            }
            shadow.delete().with_context(at)?;
            return Ok(0);
        }
        let mut lines = Vec::new();
        for (name, shadow) in store.all().with_context(at)? {
            lines.push(Line::of(name, &shadow).with_context(at)?);
        }
        if self.json {
            crate::say(&serde_json::to_string_pretty(&lines)?);
        } else {
            crate::say(table(&lines).trim_end());
        }
        Ok(0)
    }
}

impl Line {
    fn of(shadow: String, stored: &Shadow) -> std::io::Result<Self> {
        let state = match stored.promotion()? {
            Some(promotion) if promotion.is_alive() => State::Promoted,
            _ if stored.presence()? == Presence::Gone => State::Silent,
            _ => State::Kept,
        };
        let epochs = stored.epochs()?.into_iter().map(|epoch| EpochLine {
            epoch: epoch.number,
            age_ms: u64::try_from(epoch.age().unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            bytes: epoch.record.pages.all() * PAGE_SIZE,
            pages: epoch.record.pages,
            freeze_us: epoch.record.freeze_us,
            lag_us: epoch.record.lag_us,
            every_ms: epoch.record.every_ms,
        });
        let epochs = epochs.collect();
        Ok(Self { shadow, state, origin: stored.origin()?, disk_bytes: stored.disk_bytes()?, epochs })
    }
}

fn table(lines: &[Line]) -> String {
    let mut rows = vec![
        [
            "SHADOW",
            "STATE",
            "ORIGINAL",
            "EPOCH",
            "AGE",
            "SIZE",
            "BY VALUE",
            "BY REFERENCE",
            "ZERO",
            "FREEZE",
            "LAG",
        ]
        .map(str::to_owned),
    ];
    for line in lines {
        let state = match line.state {
            State::Kept => "kept",
            State::Silent => "silent",
            State::Promoted => "promoted",
        };
        let origin = line.origin.as_ref().map(|origin| format!("{} on {}", origin.pid, origin.host));
        let origin = origin.unwrap_or_default();
        for (at, epoch) in line.epochs.iter().enumerate() {
            let first = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
            rows.push([
                first(&line.shadow),
                first(state),
                first(&origin),
                epoch.epoch.to_string(),
                format!("{}.{} s", epoch.age_ms / 1000, epoch.age_ms % 1000 / 100),
                mebibytes(epoch.bytes),
                mebibytes(epoch.pages.by_value * PAGE_SIZE),
                mebibytes(epoch.pages.by_reference * PAGE_SIZE),
                mebibytes(epoch.pages.zero * PAGE_SIZE),
                format!("{} ms", epoch.freeze_us / 1000),
                format!("{} ms", epoch.lag_us / 1000),
            ]);
        }
        if line.epochs.is_empty() {
            let mut row = [line.shadow.as_str(), state, &origin, "none", "", "", "", "", "", "", ""];
            rows.push(std::mem::take(&mut row).map(str::to_owned));
        }
    }
    let width =
        |column: usize| rows.iter().map(|row| row.get(column).map_or(0, String::len)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..11).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}
