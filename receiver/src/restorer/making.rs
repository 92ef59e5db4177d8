//! How something gets a name here: under one that only its guardian gives, then under its own. Whoever dies between the two
//! leaves nothing that nobody knows of.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;

use crate::confinement::Place;
use crate::guardian::Guardian;

/// Who deletes what this process has made, if it dies.
pub(super) trait Trustee {
    /// The name under which things are made. Nothing else has it.
    fn name(&self) -> &OsStr;

    /// Something is about to be made under that name in `directory`.
    fn expect(&self, directory: BorrowedFd<'_>);

    /// This was made. Whatever name it gets, it is to be deleted, and nothing is expected any more.
    fn entrust(&self, made: BorrowedFd<'_>);
}

impl Trustee for Guardian {
    fn name(&self) -> &OsStr {
        self.making_name()
    }

    fn expect(&self, directory: BorrowedFd<'_>) {
        // Without it what is made stays if this process is killed, and only then. So it is below.
        let _ = self.expect(directory);
    }

    fn entrust(&self, made: BorrowedFd<'_>) {
        let _ = self.entrust(made);
    }
}

/// Has `create` make something beside `place`, under the name of `trustee`, and entrusts it. The last thing to do is to
/// [`settle`] it.
///
/// # Errors
/// Those of `create` and of open(2); nothing is left behind then.
pub(super) fn make<T>(
    place: &Place,
    trustee: &dyn Trustee,
    create: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<(T, Place)> {
    let temporary = place.beside(trustee.name().to_owned())?;
    trustee.expect(temporary.directory());
    let made = create(&temporary.path())?;
    match look_up(&temporary) {
        Ok(itself) => trustee.entrust(itself.as_fd()),
        Err(error) => {
            let _ = remove(&temporary.path());
            return Err(error);
        }
    }
    Ok((made, temporary))
}

/// Gives what [`make`] has made its name, which nothing else may have.
///
/// # Errors
/// Those of rename(2); `EEXIST` if something has the name. It is deleted then.
pub(super) fn settle(temporary: &Place, place: &Place, trustee: &dyn Trustee) -> io::Result<()> {
    let (from, to) = (temporary.path(), place.path());
    let settled = match renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE) {
        // NFS and others do not know the flag.
        Err(Errno::EINVAL) => settle_without_flag(temporary, place, trustee),
        settled => settled.map_err(io::Error::from),
    };
    if settled.is_err() {
        let _ = remove(&from);
    }
    settled
}

fn settle_without_flag(temporary: &Place, place: &Place, trustee: &dyn Trustee) -> io::Result<()> {
    let (from, to) = (temporary.path(), place.path());
    if from.symlink_metadata()?.is_dir() {
        fs::create_dir(&to)?;
        // Over an empty directory, and over nothing else.
        return fs::rename(from, &to).inspect_err(|_| drop(fs::remove_dir(&to)));
    }
    fs::hard_link(&from, &to)?;
    // What was entrusted has the other name, and will have none.
    trustee.entrust(look_up(place)?.as_fd());
    fs::remove_file(from)
}

/// Makes a directory for nobody but its owner.
///
/// # Errors
/// Those of mkdir(2), and as for [`make`] and [`settle`].
pub(super) fn directory(place: &Place, trustee: &dyn Trustee) -> io::Result<()> {
    let (_, temporary) = make(place, trustee, |path| DirBuilder::new().mode(0o700).create(path))?;
    settle(&temporary, place, trustee)
}

/// What is at `place`, whatever it is, for nothing but being what it is (`O_PATH`).
pub(super) fn look_up(place: &Place) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(place.path())
}

/// Deletes a file, a link or an empty directory.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

/// A file without a name in the directory of `place`, or one that has lost its name at once where there are none.
///
/// # Errors
/// Those of open(2).
pub(super) fn nameless(place: &Place) -> io::Result<File> {
    let directory = place.path().parent().ok_or(ErrorKind::NotFound)?.to_owned();
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let mut name = place.name().to_owned();
            name.push(format!(".posthaste-{}", std::process::id()));
            let other = place.beside(name)?;
            let file = options.create_new(true).open(other.path())?;
            fs::remove_file(other.path())?;
            Ok(file)
        }
        opened => opened,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// Remembers what it is entrusted with.
    #[derive(Default)]
    pub(in super::super) struct Recorder {
        expected: RefCell<u32>,
        made: RefCell<Vec<OwnedFd>>,
    }

    impl Recorder {
        /// The names that all of it has now.
        pub(in super::super) fn entrusted(&self) -> Vec<PathBuf> {
            let name =
                |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("open");
            self.made.borrow().iter().map(name).collect()
        }
    }

    impl Trustee for Recorder {
        fn name(&self) -> &OsStr {
            OsStr::new(".posthaste-recorded")
        }

        fn expect(&self, directory: BorrowedFd<'_>) {
            let place = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(self.name());
            assert!(place.symlink_metadata().is_err(), "it is expected before it is there");
            *self.expected.borrow_mut() += 1;
        }

        fn entrust(&self, made: BorrowedFd<'_>) {
            let name = fs::read_link(format!("/proc/self/fd/{}", made.as_raw_fd())).expect("open");
            let is_expected = std::mem::take(&mut *self.expected.borrow_mut()) == 1;
            assert!(is_expected || !name.ends_with(self.name()), "it comes after it was expected");
            self.made.borrow_mut().push(made.try_clone_to_owned().expect("descriptors"));
        }
    }

    type Create<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("it is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ours")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_is_taken_once_and_nothing_is_left_of_a_second_one() {
        let base = std::env::temp_dir().join(format!("posthaste-making-{}", std::process::id()));
        fs::create_dir(&base).expect("room");
        let trustee = Recorder::default();
        let place = |name: &str| Place::of(&base.join(name)).expect("it is there");
        let kinds: [(&str, Create<'_>); 3] = [
            ("file", &|path| File::create_new(path).map(|_| ())),
            ("directory", &|path| fs::create_dir(path)),
            ("link", &|path| symlink("nowhere", path)),
        ];
        for (name, create) in kinds {
            for with_flag in [true, false] {
                let (target, settle_it) = (place(name), |from: &Place, to: &Place| match with_flag {
                    true => settle(from, to, &trustee),
                    false => settle_without_flag(from, to, &trustee),
                });
                let ((), temporary) = make(&target, &trustee, create).expect("room");
                settle_it(&temporary, &target).expect("the name is free");
                assert_eq!(names(&base), [name]);
                let ((), temporary) = make(&target, &trustee, create).expect("room");
                let refused = settle_it(&temporary, &target).expect_err("the name is taken");
                assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{name}");
                if !with_flag {
                    remove(&temporary.path()).expect("it stays for whoever tries to settle it");
                }
                assert_eq!(names(&base), [name]);
                remove(&target.path()).expect("ours");
            }
        }
        let file = nameless(&place("file")).expect("room");
        assert_eq!((file.metadata().expect("open").len(), names(&base).len()), (0, 0));
        fs::remove_dir(&base).expect("nothing is left");
    }
}
