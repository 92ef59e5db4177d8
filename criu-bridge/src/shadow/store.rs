//! Shadows on disk.
//!
//! ```text
//! STORE/NAME/origin           of which tree it is
//!            lock             held while that tree's source is here
//!            expected         it has gone to come back with the next epoch
//!            pages            one file with the pages of all epochs, in slots
//!            epoch-N/         a complete one: tree, index, record; the newest two are kept
//!            incoming/        one that is written, or was torn
//!            promotion        it runs here, or is about to
//! ```
//!
//! An epoch is complete when its directory has its name: that is given last, when everything in it and all its pages are
//! on disk. What is not complete is never looked at.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memory::PAGE_SIZE;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::epoch::{self, EpochId, Origin, Pages};
use super::files::{contents, open, read, sync, write};
use super::index::Index;
use super::promotion::{NONE_YET, Promotion};
use crate::config::{KEPT_EPOCHS, SHADOW_LOOK_MS, SHADOW_RETURN};
use crate::instance::Instance;

/// Where shadows are unless `--store` says otherwise.
pub(crate) const DEFAULT_STORE: &str = "/var/lib/posthaste/shadows";

const ORIGIN: &str = "origin";
const LOCK: &str = "lock";
const PAGES: &str = "pages";
const EXPECTED: &str = "expected";
const PROMOTION: &str = "promotion";
const INCOMING: &str = "incoming";
const RETIRED: &str = "retired";
const EPOCH: &str = "epoch-";
const TREE: &str = "tree";
const INDEX: &str = "index";
const RECORD: &str = "record";

/// What is known of a complete epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which one it is.
    pub(crate) id: EpochId,
    /// Its pages.
    pub(crate) pages: Pages,
    /// How long the tree stood still for it, in microseconds.
    pub(crate) freeze_us: u64,
    /// From the tree's stop until it was complete, in microseconds.
    pub(crate) lag_us: u64,
    /// When it was complete, in milliseconds since 1970.
    pub(crate) stored_ms: u64,
    /// From one to the next, in milliseconds.
    pub(crate) every_ms: u64,
}

/// Where the source of a shadow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It has announced the next epoch.
    Here,
    /// It has brought one just now, and is about to.
    Expected,
    /// Nobody knows.
    Gone,
}

/// A directory with shadows.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

/// One shadow.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    path: PathBuf,
}

/// A complete epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// Its number.
    pub(crate) number: u64,
    path: PathBuf,
    /// What is known of it.
    pub(crate) record: Record,
}

impl Store {
    /// The one in this directory, which need not be there.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The shadow with this name, made if it is not there.
    pub(crate) fn make(&self, name: &str) -> io::Result<Shadow> {
        let path = self.0.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        look_whose(&path)?;
        sync(&self.0)?;
        Ok(Shadow { path })
    }

    /// The shadow with this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Shadow> {
        let path = self.0.join(name);
        // Nothing else that has a name is taken for one, or even deleted.
        let is_one = epoch::is_name(name) && look_whose(&path).is_ok() && path.join(ORIGIN).is_file();
        is_one.then_some(Shadow { path })
    }

    /// Every shadow, by name.
    pub(crate) fn all(&self) -> io::Result<Vec<(String, Shadow)>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            all.extend(name.to_str().and_then(|name| Some((name.to_owned(), self.find(name)?))));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(all)
    }
}

impl Shadow {
    /// Of which tree it is; none if that has not been said yet.
    pub(crate) fn origin(&self) -> io::Result<Option<Origin>> {
        read(&self.path.join(ORIGIN))
    }

    /// Says of which tree it is.
    pub(crate) fn claim(&self, origin: &Origin) -> io::Result<()> {
        self.put(ORIGIN, origin)
    }

    /// What runs of it, or has run; one whose `promote` was killed before anything ran is none.
    pub(crate) fn promotion(&self) -> io::Result<Option<Promotion>> {
        let promotion: Option<Promotion> = read(&self.path.join(PROMOTION))?;
        Ok(promotion.filter(|promotion| promotion.epoch != NONE_YET || promotion.is_alive()))
    }

    /// Says what runs of it.
    pub(crate) fn promote(&self, promotion: Option<&Promotion>) -> io::Result<()> {
        match promotion {
            Some(promotion) => self.put(PROMOTION, promotion),
            None => fs::remove_file(self.path.join(PROMOTION)),
        }
    }

    /// Takes the lock within `patience`; `None` if somebody else keeps it.
    pub(crate) fn lock(&self, patience: Duration) -> io::Result<Option<Flock<File>>> {
        let until = Instant::now() + patience;
        loop {
            let file = open(File::options().write(true).create(true), &self.path.join(LOCK))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(lock)),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => {
                    let _ = poll(&mut [], PollTimeout::from(SHADOW_LOOK_MS));
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    /// Takes the lock within `patience` for a source. One that builds on no epoch leaves the one that is awaited, which does,
    /// the time to come back.
    pub(crate) fn lock_for(&self, has_base: bool, patience: Duration) -> io::Result<Option<Flock<File>>> {
        let until = Instant::now() + 2 * patience;
        loop {
            let lock = self.lock(patience)?;
            if lock.is_none() || has_base || !self.is_awaited() || self.promotion()?.is_some() {
                return Ok(lock);
            }
            drop(lock);
            if Instant::now() >= until {
                return Ok(None);
            }
            let _ = poll(&mut [], PollTimeout::from(SHADOW_LOOK_MS));
        }
    }

    /// Whether its source is here; waits for one that has only gone to come back with the next epoch.
    pub(crate) fn answers(&self) -> io::Result<bool> {
        loop {
            match self.presence()? {
                Presence::Here => return Ok(true),
                Presence::Gone => return Ok(false),
                Presence::Expected => _ = poll(&mut [], PollTimeout::from(SHADOW_LOOK_MS)),
            }
        }
    }

    /// Where its source is. It is not disturbed by that, and nobody who looks takes another one for it.
    pub(crate) fn presence(&self) -> io::Result<Presence> {
        let is_here = match open(File::options().read(true), &self.path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            lock => match Flock::lock(lock?, FlockArg::LockSharedNonblock) {
                Ok(_) => false,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => true,
                Err((_, errno)) => return Err(errno.into()),
            },
        };
        Ok(match is_here {
            true => Presence::Here,
            false if self.is_awaited() => Presence::Expected,
            false => Presence::Gone,
        })
    }

    /// Whether its source has gone just now, to come back with the next epoch.
    pub(crate) fn is_awaited(&self) -> bool {
        let since = fs::symlink_metadata(self.path.join(EXPECTED)).and_then(|mark| mark.modified());
        since.is_ok_and(|since| since.elapsed().is_ok_and(|since| since < SHADOW_RETURN))
    }

    /// The source is gone, to come back in a moment unless its tree has ended.
    pub(crate) fn expect(&self, is_expected: bool) {
        let path = self.path.join(EXPECTED);
        // It only saves somebody from waiting, or has somebody wait for some seconds.
        let mut options = File::options();
        let mark = options.write(true).create(true).truncate(true);
        let _ = if is_expected { open(mark, &path).map(drop) } else { fs::remove_file(path) };
    }

    /// The complete epochs, the newest one first.
    pub(crate) fn epochs(&self) -> io::Result<Vec<Stored>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(EPOCH)?.parse().ok());
            let (Some(number), path) = (number, entry.path()) else { continue };
            if !entry.file_type()?.is_dir() {
                continue;
            }
            // One that is retired in this moment is gone.
            if let Some(record) = read(&path.join(RECORD))? {
                all.push(Stored { number, path, record });
            }
        }
        all.sort_by_key(|epoch| std::cmp::Reverse(epoch.number));
        Ok(all)
    }

    /// The file with the pages of all epochs.
    pub(crate) fn pages(&self) -> io::Result<File> {
        open(File::options().read(true).write(true).create(true), &self.path.join(PAGES))
    }

    /// Removes what was torn. Only for who has the lock.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        for name in [INCOMING, RETIRED] {
            match fs::remove_dir_all(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes an epoch complete, whose pages are in `pages`, and lets go of those that are too old. Only for who has the lock.
    pub(crate) fn commit(
        &self,
        instance: &Instance,
        index: &Index,
        record: &Record,
        pages: &File,
    ) -> io::Result<u64> {
        let tree = protocol::encode(instance).map_err(io::Error::other)?;
        self.tidy()?;
        let incoming = self.path.join(INCOMING);
        DirBuilder::new().mode(0o700).create(&incoming)?;
        write(&incoming.join(TREE), &tree)?;
        write(&incoming.join(INDEX), &index.to_bytes())?;
        write(&incoming.join(RECORD), &serde_json::to_vec(record)?)?;
        sync(&incoming)?;
        pages.sync_all()?;
        if self.promotion()?.is_some() {
            return Err(io::Error::other(PROMOTED));
        }
        let kept = self.epochs()?;
        let number = kept.first().map_or(1, |newest| newest.number + 1);
        fs::rename(&incoming, self.path.join(format!("{EPOCH}{number:010}")))?;
        sync(&self.path)?;
        for old in kept.iter().skip(KEPT_EPOCHS - 1) {
            // What cannot be removed is removed with the next one.
            let retired = self.path.join(RETIRED);
            let _ = fs::rename(&old.path, &retired).and_then(|()| fs::remove_dir_all(&retired));
        }
        Ok(number)
    }

    /// Gives back the room behind the pages of the epochs that are there. Only for who has the lock.
    pub(crate) fn trim(&self) -> io::Result<()> {
        let mut end = 0;
        for epoch in self.epochs()? {
            end = end.max(epoch.index()?.end());
        }
        let pages = self.pages()?;
        if pages.metadata()?.len() > end * PAGE_SIZE { pages.set_len(end * PAGE_SIZE) } else { Ok(()) }
    }

    /// Deletes it.
    pub(crate) fn delete(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    /// Bytes that it takes on disk.
    pub(crate) fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.pages()?.metadata()?.blocks() * 512)
    }

    fn put(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let part = self.path.join(format!("{name}.part"));
        write(&part, &serde_json::to_vec(value)?)?;
        fs::rename(&part, self.path.join(name))?;
        sync(&self.path)
    }
}

/// Why no more epochs of a shadow are taken.
pub(crate) const PROMOTED: &str = "this shadow was promoted: its tree has a second copy there";

/// Why an epoch is not built on the one before.
pub(crate) const SCATTERED: &str = "its pages lie in too many places";
/// The same.
pub(crate) const GONE: &str = "the epoch before is not here any more";

impl Stored {
    /// What it holds.
    pub(crate) fn load(&self) -> io::Result<(Instance, Index)> {
        let tree = contents(&self.path.join(TREE))?;
        let instance = protocol::decode(&tree).map_err(io::Error::other)?;
        Ok((instance, self.index()?))
    }

    /// Where its pages are.
    pub(crate) fn index(&self) -> io::Result<Index> {
        Index::from_bytes(&contents(&self.path.join(INDEX))?)
    }

    /// How old it is by this machine's clock: since the tree stood still. `None` if it is from the future.
    pub(crate) fn age(&self) -> Option<Duration> {
        let since = now_ms().checked_sub(self.record.stored_ms)?;
        Some(Duration::from_millis(since) + Duration::from_micros(self.record.lag_us))
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses a directory that others can write to, or have made.
fn look_whose(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let is_ours =
        found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if is_ours {
        Ok(())
    } else {
        Err(io::Error::other("its directory belongs to others, or is open to them"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::{boot_id, started};
    use super::*;

    fn store(name: &str) -> (PathBuf, Shadow) {
        let path = std::env::temp_dir().join(format!("criu-bridge-store-{name}-{}", std::process::id()));
        let shadow = Store::at(&path).make("one").expect("a temporary directory");
        shadow.claim(&Origin::default()).expect("room");
        (path, shadow)
    }

    fn promotion(epoch: u64, pid: u32) -> Promotion {
        let boot = boot_id().expect("a kernel that tells");
        Promotion { epoch, pid, started: started(pid).unwrap_or(0), boot }
    }

    #[test]
    fn a_promotion_that_was_killed_before_anything_ran_is_none() {
        let (path, shadow) = store("promotion");
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let gone = promotion(NONE_YET, child.id());
        child.wait().expect("it ends");
        let here = promotion(NONE_YET, std::process::id());
        for (promotion, counts) in
            [(gone.clone(), false), (here, true), (Promotion { epoch: 3, ..gone }, true)]
        {
            shadow.promote(Some(&promotion)).expect("room");
            assert_eq!(shadow.promotion().expect("what was written").is_some(), counts, "{promotion:?}");
        }
        fs::remove_dir_all(path).expect("it is ours");
    }

    #[test]
    fn who_looks_at_a_shadow_disturbs_nobody() {
        let (path, shadow) = store("presence");
        assert_eq!(shadow.presence().expect("nobody was there"), Presence::Gone);
        let source = shadow.lock(Duration::ZERO).expect("a file").expect("nobody has it");
        assert_eq!(shadow.presence().expect("it is there"), Presence::Here);
        drop(source);
        let file = open(File::options().read(true), &shadow.path.join(LOCK)).expect("it was made");
        let _other = Flock::lock(file, FlockArg::LockSharedNonblock).expect("nobody has it");
        assert_eq!(shadow.presence().expect("it looks too"), Presence::Gone);
        fs::remove_dir_all(path).expect("it is ours");
    }

    #[test]
    fn a_link_in_a_store_leads_nowhere() {
        let (path, shadow) = store("links");
        let elsewhere = path.join("elsewhere");
        fs::write(&elsewhere, "precious").expect("room");
        for name in [PAGES, LOCK, EXPECTED, "promotion.part"] {
            symlink(&elsewhere, shadow.path.join(name)).expect("room");
        }
        assert!(
            shadow.pages().is_err() && shadow.lock(Duration::ZERO).is_err() && shadow.presence().is_err()
        );
        assert!(shadow.promote(Some(&promotion(1, 1))).is_err());
        shadow.expect(true);
        assert_eq!(fs::read_to_string(&elsewhere).expect("it is there"), "precious");
        fs::remove_dir_all(path).expect("it is ours");
    }
}
