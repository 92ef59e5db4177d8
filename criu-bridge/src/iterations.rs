//! Migration in iterations, with the shape of phaul: a tree is copied again and again while it runs, each time only what it
//! has written since, until it is worth no more; then it is stopped, and the rest follows.
//!
//! [`Source`] decides when that is, and asks whoever does the work: a [`Local`] on its side, which copies, dumps and has the
//! tree restored, and a [`Remote`] on the other, which takes each copy. [`Destination`] is such a remote, with a directory for
//! each iteration. Neither connects to anybody; pages and words between machines are their users' business.
//!
//! CRIU can tell what was written only where the kernel has soft-dirty bits (`CONFIG_MEM_SOFT_DIRTY`). Where it has none, a
//! [`Local`] says so ([`Local::tracking`]), nothing is copied ahead, and the tree moves by post-copy.
//!
//! ```
//! use criu_bridge::iterations::{Growth, LastWhy, Limits, Verdict};
//!
//! let limits = Limits::default();
//! // Nothing to compare the first one with.
//! assert_eq!(limits.verdict(1, None, 10_000), Verdict::Again);
//! assert_eq!(limits.verdict(2, Some(10_000), 900), Verdict::Again);
//! assert_eq!(limits.verdict(3, Some(900), 932), Verdict::Last(LastWhy::Grows));
//! assert_eq!(limits.verdict(3, Some(900), 63), Verdict::Last(LastWhy::FewPages));
//! let slower = Limits { growth: Growth::Percent(10), ..limits };
//! assert_eq!(slower.verdict(3, Some(900), 932), Verdict::Again);
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// When another iteration is worth it no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Fewer pages than that are left for the stop.
    pub fewest_pages: u64,
    /// Iterations, at most.
    pub most_iterations: u32,
    /// How much more than the one before it an iteration may have to copy.
    pub growth: Growth,
}

/// From which growth on iterations do not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// So many pages or more, as in phaul.
    Pages(u64),
    /// More than so many percent, as in its ancestor p.haul.
    Percent(u64),
}

/// What follows an iteration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Another one.
    Again,
    /// The stop.
    Last(LastWhy),
}

/// Why an iteration was the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastWhy {
    /// Hardly anything was left.
    FewPages,
    /// There were as many as there may be.
    Iterations,
    /// The tree writes faster than it is copied.
    Grows,
}

impl Default for Limits {
    /// 64 pages, 8 iterations, 32 pages of growth: phaul's.
    fn default() -> Self {
        Self { fewest_pages: 64, most_iterations: 8, growth: Growth::Pages(32) }
    }
}

impl Limits {
    /// What follows the iteration with number `done`, from 1 up, which had `written` pages to copy; `before` is how many the
    /// one before it had. The first one has nothing to be compared with: it copies all there is.
    #[must_use]
    pub const fn verdict(&self, done: u32, before: Option<u64>, written: u64) -> Verdict {
        if written < self.fewest_pages {
            return Verdict::Last(LastWhy::FewPages);
        }
        if let Some(before) = before
            && self.growth.is_reached(before, written)
        {
            return Verdict::Last(LastWhy::Grows);
        }
        if done >= self.most_iterations { Verdict::Last(LastWhy::Iterations) } else { Verdict::Again }
    }
}

impl Growth {
    const fn is_reached(self, before: u64, written: u64) -> bool {
        match self {
            Self::Pages(pages) => written.saturating_sub(before) >= pages,
            Self::Percent(percent) => {
                let grown = written.saturating_sub(before) as u128 * 100;
                grown > before as u128 * percent as u128
            }
        }
    }
}

/// The side that takes each copy.
pub trait Remote {
    /// Why it cannot.
    type Error;

    /// Makes ready for one more copy.
    ///
    /// # Errors
    /// Why not; the tree goes on at its source.
    fn start_iter(&mut self) -> Result<(), Self::Error>;

    /// Everything of this copy has been sent: takes what is on its way.
    ///
    /// # Errors
    /// Why not; the tree goes on at its source.
    fn stop_iter(&mut self) -> Result<(), Self::Error>;
}

/// The side where the tree runs.
pub trait Local {
    /// Why it cannot.
    type Error;

    /// Whether it can tell what a running tree writes; if not, the reason for the user.
    fn tracking(&mut self) -> Result<(), String>;

    /// Copies what the running tree has written since the last time, all of it at first, and returns how many pages.
    ///
    /// # Errors
    /// Why not; the tree goes on here.
    fn copy(&mut self) -> Result<u64, Self::Error>;

    /// Stops the tree, dumps what is left of it, copies that and has it restored there. If that succeeds the tree does not run
    /// here any more; on an error it goes on here.
    ///
    /// # Errors
    /// Why not.
    fn dump_copy_restore(&mut self, course: &Course) -> Result<(), Self::Error>;
}

/// What was done before the stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Course {
    /// So many iterations.
    Iterations(u32, LastWhy),
    /// None, for this reason: the tree's memory follows when it runs.
    PostCopy(String),
}

/// A tree that has moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved<E> {
    /// How.
    pub course: Course,
    /// What the other side said when it was told that this is all: the tree runs there whatever that is.
    pub farewell: Result<(), E>,
}

/// Moves a tree in iterations.
#[derive(Debug)]
pub struct Source<L, R> {
    local: L,
    remote: R,
    limits: Limits,
}

impl<E, L: Local<Error = E>, R: Remote<Error = E>> Source<L, R> {
    /// Between these two.
    pub const fn new(local: L, remote: R, limits: Limits) -> Self {
        Self { local, remote, limits }
    }

    /// Moves the tree, and tells how it went. On an error it goes on where it was.
    ///
    /// # Errors
    /// The first one of either side.
    pub fn migrate(&mut self) -> Result<Moved<E>, E> {
        let course = match self.local.tracking() {
            Ok(()) => self.iterate()?,
            Err(why) => Course::PostCopy(why),
        };
        self.remote.start_iter()?;
        self.local.dump_copy_restore(&course)?;
        // It does not run here any more, so nothing that follows is a migration that failed.
        Ok(Moved { course, farewell: self.remote.stop_iter() })
    }

    fn iterate(&mut self) -> Result<Course, E> {
        let (mut done, mut before) = (0, None);
        loop {
            self.remote.start_iter()?;
            let written = self.local.copy()?;
            self.remote.stop_iter()?;
            done += 1;
            if let Verdict::Last(why) = self.limits.verdict(done, before, written) {
                return Ok(Course::Iterations(done, why));
            }
            before = Some(written);
        }
    }
}

/// Directories `0`, `1`, `2` … for the images of each iteration, mode 0700, each with the one before it as CRIU's `parent`.
#[derive(Debug)]
pub struct Destination {
    directory: PathBuf,
    /// Begun so far.
    begun: u32,
    /// Of the iteration that is under way.
    open: bool,
}

impl Destination {
    /// Below `directory`, which is there.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory, begun: 0, open: false }
    }

    /// Where the images of the last iteration belong; what is to be restored is there when all are over.
    #[must_use]
    pub fn last_images_dir(&self) -> Option<PathBuf> {
        self.begun.checked_sub(1).map(|last| self.directory.join(last.to_string()))
    }

    /// Deletes everything.
    ///
    /// # Errors
    /// Something is left.
    pub fn discard(self) -> io::Result<()> {
        (0..self.begun).try_for_each(|number| fs::remove_dir_all(self.directory.join(number.to_string())))
    }
}

impl Remote for Destination {
    type Error = io::Error;

    fn start_iter(&mut self) -> io::Result<()> {
        if self.open {
            return Err(io::Error::other("the iteration before this one is not over"));
        }
        let path = self.directory.join(self.begun.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        if let Some(before) = self.begun.checked_sub(1) {
            // What is not begun is not there, for the next attempt and for who discards all.
            symlink(Path::new("..").join(before.to_string()), path.join("parent"))
                .inspect_err(|_| _ = fs::remove_dir_all(&path))?;
        }
        self.begun += 1;
        self.open = true;
        Ok(())
    }

    fn stop_iter(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.open, false) {
            true => Ok(()),
            false => Err(io::Error::other("no iteration is under way")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_iterations_end_and_why() {
        use LastWhy::{FewPages, Grows, Iterations};
        let pages = Limits::default();
        let percent = Limits { growth: Growth::Percent(10), ..pages };
        let table = [
            (pages, 1, None, 1 << 20, Verdict::Again),
            (pages, 1, None, 63, Verdict::Last(FewPages)),
            (pages, 1, None, 64, Verdict::Again),
            (pages, 2, Some(1000), 1031, Verdict::Again),
            (pages, 2, Some(1000), 1032, Verdict::Last(Grows)),
            (pages, 2, Some(0), u64::MAX, Verdict::Last(Grows)),
            (pages, 7, Some(1000), 100, Verdict::Again),
            (pages, 8, Some(1000), 100, Verdict::Last(Iterations)),
            (pages, 9, Some(1000), 100, Verdict::Last(Iterations)),
            (percent, 2, Some(1000), 1100, Verdict::Again),
            (percent, 2, Some(1000), 1101, Verdict::Last(Grows)),
            (percent, 2, Some(u64::MAX), u64::MAX, Verdict::Again),
            (percent, 2, Some(100), 20, Verdict::Last(FewPages)),
        ];
        for (limits, done, before, written, verdict) in table {
            assert_eq!(limits.verdict(done, before, written), verdict, "{done}, {before:?}, {written}");
        }
    }

    /// A tree that writes so many pages while it is copied.
    struct Writer<'log> {
        written: Vec<u64>,
        tracked: Result<(), String>,
        restored: Result<(), &'static str>,
        log: &'log std::cell::RefCell<Vec<&'static str>>,
    }

    impl Local for Writer<'_> {
        type Error = &'static str;

        fn tracking(&mut self) -> Result<(), String> {
            self.tracked.clone()
        }

        fn copy(&mut self) -> Result<u64, &'static str> {
            self.log.borrow_mut().push("copy");
            if self.written.is_empty() { Err("it has ended") } else { Ok(self.written.remove(0)) }
        }

        fn dump_copy_restore(&mut self, _course: &Course) -> Result<(), &'static str> {
            self.log.borrow_mut().push("restore");
            self.restored
        }
    }

    struct Taker<'log>(&'log std::cell::RefCell<Vec<&'static str>>, Result<(), &'static str>);

    impl Remote for Taker<'_> {
        type Error = &'static str;

        fn start_iter(&mut self) -> Result<(), &'static str> {
            self.0.borrow_mut().push("start");
            Ok(())
        }

        fn stop_iter(&mut self) -> Result<(), &'static str> {
            self.0.borrow_mut().push("stop");
            self.1
        }
    }

    fn migrated(
        written: &[u64],
        tracked: Result<(), String>,
        restored: Result<(), &'static str>,
    ) -> (Result<Course, &'static str>, Vec<&'static str>) {
        let log = std::cell::RefCell::default();
        let writer = Writer { written: written.to_vec(), tracked, restored, log: &log };
        let course = Source::new(writer, Taker(&log, Ok(())), Limits::default()).migrate();
        (course.map(|moved| moved.course), log.into_inner())
    }

    #[test]
    fn a_tree_is_copied_until_little_is_left_and_then_stopped() {
        let (course, log) = migrated(&[5000, 300, 20], Ok(()), Ok(()));
        assert_eq!(course, Ok(Course::Iterations(3, LastWhy::FewPages)));
        let iteration = ["start", "copy", "stop"];
        assert_eq!(log, [iteration, iteration, iteration, ["start", "restore", "stop"]].concat());
    }

    #[test]
    fn a_tree_that_nobody_can_follow_is_not_copied_ahead() {
        let (course, log) = migrated(&[5000], Err("no soft-dirty bits".to_owned()), Ok(()));
        assert_eq!(course, Ok(Course::PostCopy("no soft-dirty bits".to_owned())));
        assert_eq!(log, ["start", "restore", "stop"]);
    }

    #[test]
    fn a_tree_that_has_moved_has_not_failed_whatever_is_said_afterwards() {
        let log = std::cell::RefCell::default();
        let tracked = Err("no soft-dirty bits".to_owned());
        let writer = Writer { written: Vec::new(), tracked, restored: Ok(()), log: &log };
        let moved = Source::new(writer, Taker(&log, Err("gone")), Limits::default()).migrate();
        let moved = moved.expect("it runs there");
        assert_eq!(moved.farewell, Err("gone"));
        assert!(matches!(moved.course, Course::PostCopy(_)));
    }

    #[test]
    fn an_iteration_that_cannot_begin_leaves_nothing() {
        const LONGEST: usize = 4095;
        let top = std::env::temp_dir().join(format!("criu-bridge-begun-{}", std::process::id()));
        let mut base = top.clone();
        while base.as_os_str().len() < LONGEST - 300 {
            base.push("d".repeat(200));
        }
        // A directory's name still fits, and not that of a link in it.
        base.push("d".repeat(LONGEST - 5 - 1 - base.as_os_str().len()));
        fs::create_dir_all(&base).expect("a temporary directory");
        let mut destination = Destination::new(base.clone());
        destination.start_iter().expect("room");
        destination.stop_iter().expect("it is under way");
        assert!(destination.start_iter().is_err());
        assert!(!base.join("1").exists());
        destination.discard().expect("all of it is ours");
        fs::remove_dir_all(&top).expect("it is ours");
    }

    #[test]
    fn the_first_error_ends_it() {
        assert_eq!(migrated(&[5000], Ok(()), Ok(())).0, Err("it has ended"));
        assert_eq!(migrated(&[5], Ok(()), Err("refused")).0, Err("refused"));
    }

    #[test]
    fn each_iteration_has_a_directory_of_its_own_with_the_one_before_as_parent() {
        let base = std::env::temp_dir().join(format!("criu-bridge-iterations-{}", std::process::id()));
        fs::create_dir_all(&base).expect("a temporary directory");
        let mut destination = Destination::new(base.clone());
        assert_eq!(destination.last_images_dir(), None);
        assert!(destination.stop_iter().is_err());
        for number in 0..3 {
            destination.start_iter().expect("room");
            assert!(destination.start_iter().is_err());
            let images = destination.last_images_dir().expect("it has begun");
            assert_eq!(images, base.join(number.to_string()));
            fs::write(images.join("pages-1.img"), number.to_string()).expect("room");
            destination.stop_iter().expect("it is under way");
        }
        let through = base.join("2/parent/parent/pages-1.img");
        assert_eq!(fs::read_to_string(through).expect("two parents up"), "0");
        destination.discard().expect("all of it is ours");
        assert_eq!(fs::read_dir(&base).expect("it is there").count(), 0);
        fs::remove_dir_all(&base).expect("it is ours");
    }
}
