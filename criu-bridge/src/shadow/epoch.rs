//! One epoch of a shadow as both sides talk of it: of which tree, what it builds on, and where each of its pages is.
//!
//! The pages of an epoch have numbers from 0 up, in the order of the tree's
//! [sequence](crate::instance::Sequence): memory of all processes, then images. Each is a zero page, one of the epoch
//! before, or one that travels; those that travel are the eager pages of a migration, one behind the other from the
//! first page on.

use memory::{Addr, PAGE_SIZE, PageRange};
use serde::{Deserialize, Serialize};

use crate::config::{LONGEST_NAME, LONGEST_SHADOW_NAME};

/// What an epoch is known by, on both sides: random.
pub type EpochId = [u8; 16];

/// What a source says of an epoch that it brings.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// The shadow's name.
    #[serde(with = "crate::text")]
    pub shadow: String,
    /// Of which tree.
    pub origin: Origin,
    /// This epoch.
    pub id: EpochId,
    /// The one that pages are taken from; none if all of them travel.
    pub base: Option<EpochId>,
    /// From one stop of the tree to the next, in milliseconds.
    pub every_ms: u64,
    /// What it holds, once the tree has stopped.
    pub content: Option<Content>,
}

/// A tree: never the same for two of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The name of its machine.
    #[serde(with = "crate::text")]
    pub host: String,
    /// The machine's boot.
    #[serde(with = "crate::text")]
    pub boot: String,
    /// The root's process id there.
    pub pid: u32,
    /// When that was started, in clock ticks since the boot.
    pub started: u64,
    /// What the root is called.
    #[serde(with = "crate::text")]
    pub command: String,
}

/// The pages of an epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Content {
    /// All of them, in order.
    pub runs: Vec<Run>,
    /// How long the tree stood still, in microseconds.
    pub freeze_us: u64,
    /// How long ago it was stopped when this was written, in microseconds.
    pub age_us: u64,
}

/// Pages that are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// How many.
    pub pages: u64,
    /// Where they are.
    pub source: PageSource,
}

/// Where the bytes of pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PageSource {
    /// They travel.
    Value,
    /// There are none.
    Zero,
    /// In the epoch before, from this page on.
    Reference(u64),
}

/// How many pages of which kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pages {
    /// They travelled.
    pub by_value: u64,
    /// They are those of the epoch before.
    pub by_reference: u64,
    /// They are zero.
    pub zero: u64,
}

impl Origin {
    /// Whether it is the same tree, whatever that and its machine are called by now.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.boot, self.pid, self.started) == (&other.boot, other.pid, other.started)
    }
}

impl Epoch {
    /// Whether it has a name, and nothing in it that could not be shown to somebody.
    #[must_use]
    pub fn is_presentable(&self) -> bool {
        let Origin { host, boot, command, .. } = &self.origin;
        let is_short = |text: &&String| text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
        is_name(&self.shadow) && [host, boot, command].iter().all(is_short)
    }
}

impl Pages {
    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.by_value.saturating_add(self.by_reference).saturating_add(self.zero)
    }
}

impl Content {
    /// Adds pages behind the others.
    pub fn push(&mut self, pages: u64, source: PageSource) {
        if let Some(last) = self.runs.last_mut() {
            let goes_on = match (last.source, source) {
                (PageSource::Value, PageSource::Value) | (PageSource::Zero, PageSource::Zero) => true,
                (PageSource::Reference(from), PageSource::Reference(next)) => next == from + last.pages,
                _ => false,
            };
            if goes_on {
                last.pages += pages;
                return;
            }
        }
        self.runs.push(Run { pages, source });
    }

    /// Counts the pages; `None` unless they are `all` pages and those of the epoch before are below `before`.
    #[must_use]
    pub fn count(&self, all: u64, before: u64) -> Option<Pages> {
        let mut counted = Pages::default();
        let mut left = all;
        for Run { pages, source } in &self.runs {
            left = left.checked_sub(*pages).filter(|_| *pages > 0)?;
            match source {
                PageSource::Value => counted.by_value += pages,
                PageSource::Zero => counted.zero += pages,
                PageSource::Reference(from) => {
                    from.checked_add(*pages).filter(|end| *end <= before)?;
                    counted.by_reference += pages;
                }
            }
        }
        Some(counted).filter(|_| left == 0)
    }
}

/// The eager pages of the migration that brings `count` pages; `None` if there are not so many.
#[must_use]
pub fn travelling(count: u64) -> Option<PageRange> {
    PageRange::from_pages(Addr(PAGE_SIZE), count)
}

/// The number among them of the first page of `at`.
#[must_use]
pub const fn number_of(at: PageRange) -> u64 {
    (at.start().0 / PAGE_SIZE).saturating_sub(1)
}

/// Whether a shadow may be called so: it becomes the name of a directory.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=LONGEST_SHADOW_NAME).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_follow_each_other_are_one_run() {
        let mut content = Content::default();
        for (pages, source) in [
            (1, PageSource::Value),
            (2, PageSource::Value),
            (1, PageSource::Reference(7)),
            (1, PageSource::Reference(8)),
            (1, PageSource::Reference(7)),
            (5, PageSource::Zero),
        ] {
            content.push(pages, source);
        }
        assert_eq!(content.runs.len(), 4);
        let counted = content.count(11, 9).expect("eleven pages");
        assert_eq!(counted, Pages { by_value: 3, by_reference: 3, zero: 5 });
        assert_eq!(counted.all(), 11);
    }

    #[test]
    fn pages_that_nobody_has_are_refused() {
        let content = |pages, source| Content { runs: vec![Run { pages, source }], ..Content::default() };
        assert_eq!(content(3, PageSource::Reference(2)).count(3, 4), None);
        assert_eq!(content(2, PageSource::Reference(u64::MAX)).count(2, u64::MAX), None);
        assert_eq!(content(3, PageSource::Value).count(2, 0), None);
        assert_eq!(content(3, PageSource::Value).count(4, 0), None);
        assert_eq!(content(0, PageSource::Zero).count(0, 0), None);
    }

    #[test]
    fn what_could_write_to_a_terminal_is_no_origin() {
        let epoch = |host: &str| Epoch {
            shadow: "one".to_owned(),
            origin: Origin { host: host.to_owned(), ..Origin::default() },
            ..Epoch::default()
        };
        assert!(epoch("north").is_presentable());
        assert!(!epoch("\u{1b}[2J").is_presentable());
        assert!(!epoch(&"h".repeat(LONGEST_NAME + 1)).is_presentable());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        assert!(is_name("redis-4711@host.example"));
        for name in ["", ".", "..", "a/b", "-x", "a b", "\u{e4}", &"a".repeat(LONGEST_SHADOW_NAME + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
