//! Progress bars on the terminal, one for each migration that takes long enough to be looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use protocol::MigrationId;

use crate::config::PROGRESS_DELAY;

/// The bars; silent when standard error is not a terminal.
#[derive(Debug, Default)]
pub struct Bars {
    screen: MultiProgress,
    bars: BTreeMap<MigrationId, Bar>,
}

#[derive(Debug)]
struct Bar {
    since: Instant,
    shown: Option<ProgressBar>,
}

impl Bars {
    /// Shows how far a migration is.
    pub fn update(&mut self, migration: MigrationId, done_bytes: u64, total_bytes: u64, now: Instant) {
        let bar = self.bars.entry(migration).or_insert(Bar { since: now, shown: None });
        if bar.shown.is_none() && now.duration_since(bar.since) >= PROGRESS_DELAY {
            bar.shown = Some(self.screen.add(new_bar(migration)));
        }
        if let Some(shown) = &bar.shown {
            shown.set_length(total_bytes.max(done_bytes));
            shown.set_position(done_bytes);
        }
    }

    /// Takes a migration's bar away.
    pub fn remove(&mut self, migration: MigrationId) {
        if let Some(shown) = self.bars.remove(&migration).and_then(|bar| bar.shown) {
            shown.finish_and_clear();
            self.screen.remove(&shown);
        }
    }

    /// Writes lines to standard error, above the bars.
    pub fn print(&self, text: fmt::Arguments<'_>) {
        // A terminal that is gone is no reason to stop: the moved processes need this daemon.
        self.screen.suspend(|| drop(writeln!(io::stderr(), "{text}")));
    }
}

fn new_bar(migration: MigrationId) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} [{bar:30}] {bytes} of {total_bytes} ({bytes_per_sec})")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let id = migration.to_string();
    ProgressBar::no_length().with_style(style.progress_chars("=> ")).with_prefix(format!("[{id:.8}]"))
}
