//! The `--events` file: every line whole, in one write, as soon as it is known.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::MigrationId;
use serde::Serialize;

/// Where events go; nowhere by default.
#[derive(Default)]
pub struct Journal {
    sink: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("open", &self.sink.is_some()).finish()
    }
}

#[derive(Serialize)]
struct Line<'a, E> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<String>,
    #[serde(flatten)]
    event: &'a E,
}

impl Journal {
    /// Appends to the file at `path`; `-` is standard output.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self { sink: Some(Box::new(io::stdout())) });
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { sink: Some(Box::new(file)) })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// The write. Nothing is written from then on: half a journal would be taken for a whole one.
    pub fn write<E: Serialize>(&mut self, migration: Option<MigrationId>, event: &E) -> io::Result<()> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let migration = migration.map(|id| id.to_string());
        let mut line = serde_json::to_vec(&Line { time: rfc3339(SystemTime::now()), migration, event })?;
        line.push(b'\n');
        let written = sink.write_all(&line).and_then(|()| sink.flush());
        if written.is_err() {
            self.sink = None;
        }
        written
    }
}

/// `2026-01-31T23:59:59.123456Z`
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = sys::clock::civil_date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (second, micros) = (second % 60, since.subsec_micros());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days_and_year_ends_are_right() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
            (1_767_225_600, "2026-01-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
