//! What had lost its name at the source: made here under a name, for as long as it takes to open it, and deleted again.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc;
use protocol::{GhostRecord, Manifest};

use super::RestoreError;
use super::making::{self, Trustee};
use crate::confinement::{self, Place};
use crate::peer;

/// Where nothing can be made.
const PROC: &[u8] = b"/proc/";
/// Names that are tried in one directory.
const ATTEMPTS: u32 = 100;

/// Every ghost of a manifest, under the name that it has for now. Dropping deletes the names, and directories that had
/// to be made for them.
#[derive(Debug)]
pub(super) struct Ghosts {
    made: Vec<Made>,
    /// Directories made on the way, outermost first.
    parents: Vec<Place>,
}

/// A ghost under its name.
#[derive(Debug)]
struct Made {
    /// Where others find it.
    path: PathBuf,
    place: Place,
}

impl Ghosts {
    /// Makes every ghost of `manifest`, with owner and permissions.
    pub(super) fn make(manifest: &Manifest, trustee: &dyn Trustee) -> Result<Self, RestoreError> {
        let mut ghosts = Self { made: Vec::new(), parents: Vec::new() };
        for record in &manifest.ghosts {
            let path = OsStr::from_bytes(&record.path);
            peer::with_its_rights(|| ghosts.one(record, trustee)).map_err(|source| RestoreError::Ghost {
                path: path.to_string_lossy().into_owned(),
                source,
            })?;
        }
        Ok(ghosts)
    }

    /// A file without a name, as `record` had it.
    pub(super) fn nameless(record: &GhostRecord, trustee: &dyn Trustee) -> io::Result<File> {
        let mut ghosts = Self { made: Vec::new(), parents: Vec::new() };
        ghosts.one(record, trustee)?;
        let made = ghosts.made.first().ok_or(ErrorKind::NotFound)?;
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(made.place.path())
    }

    /// Where ghost `index` is.
    pub(super) fn path(&self, index: u32) -> Result<&Path, RestoreError> {
        self.made(index).map(|made| made.path.as_path())
    }

    /// Ghost `index`, a file, for reading and writing.
    pub(super) fn open(&self, index: u32) -> Result<File, RestoreError> {
        let made = self.made(index)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
        let opened = peer::with_its_rights(|| options.open(made.place.path()));
        opened.map_err(|source| RestoreError::Ghost { path: made.path.display().to_string(), source })
    }

    /// Ghost `index`, whatever it is, for nothing but being what it is (`O_PATH`).
    pub(super) fn open_itself(&self, index: u32) -> Result<File, RestoreError> {
        let made = self.made(index)?;
        making::look_up(&made.place)
            .map_err(|source| RestoreError::Ghost { path: made.path.display().to_string(), source })
    }

    fn made(&self, index: u32) -> Result<&Made, RestoreError> {
        let found = self.made.get(index as usize);
        found.ok_or(RestoreError::Dangling { what: "deleted file", index })
    }

    /// Where it was, or where everybody may put files: what had no name there need not have one in that place.
    fn one(&mut self, record: &GhostRecord, trustee: &dyn Trustee) -> io::Result<()> {
        let wanted = Path::new(OsStr::from_bytes(&record.path));
        let name = wanted.file_name().unwrap_or(OsStr::new("deleted"));
        let is_kept = !record.path.starts_with(PROC) && self.make_parents(wanted, trustee).is_ok();
        let under_free_name = |parent| under_free_name(record, parent, name, trustee);
        let made = match wanted.parent().filter(|_| is_kept).map(under_free_name) {
            Some(Ok(made)) => made,
            _ => under_free_name(&std::env::temp_dir())?,
        };
        self.made.push(made);
        Ok(())
    }

    fn make_parents(&mut self, path: &Path, trustee: &dyn Trustee) -> io::Result<()> {
        let missing = path.ancestors().skip(1).take_while(|parent| !confinement::is_there(parent));
        for parent in missing.collect::<Vec<_>>().into_iter().rev() {
            let place = Place::of(parent)?;
            making::directory(&place, trustee)?;
            self.parents.push(place);
        }
        Ok(())
    }
}

impl Drop for Ghosts {
    fn drop(&mut self) {
        for place in self.made.iter().map(|made| &made.place).chain(self.parents.iter().rev()) {
            let removed = peer::with_its_rights(|| making::remove(&place.path()));
            if let Err(error) = removed {
                let name = place.name().display();
                tracing::warn!(%name, %error, "a name made for a deleted file is left behind");
            }
        }
    }
}

/// Makes a ghost in `directory`: as `name`, or as a name like it that nothing has.
fn under_free_name(
    record: &GhostRecord,
    directory: &Path,
    name: &OsStr,
    trustee: &dyn Trustee,
) -> io::Result<Made> {
    let mut place = Place::of(&directory.join(name))?;
    for attempt in 0..ATTEMPTS {
        let made = making::make(&place, trustee, |path| create(record, path));
        match made.and_then(|((), temporary)| making::settle(&temporary, &place, trustee)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let mut other = name.to_owned();
                other.push(format!(".posthaste-{}-{attempt}", std::process::id()));
                place = place.beside(other)?;
            }
            Err(error) => return Err(error),
            Ok(()) => return Ok(Made { path: directory.join(place.name()), place }),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn create(record: &GhostRecord, path: &Path) -> io::Result<()> {
    const PERMISSIONS: u32 = 0o7777;
    let permissions = Permissions::from_mode(record.mode & PERMISSIONS);
    // What belonged to a process that has ended may be root's there, and means nothing here.
    let (user, group) =
        if record.path.starts_with(PROC) { (None, None) } else { (Some(record.user), Some(record.group)) };
    match record.mode & libc::S_IFMT {
        libc::S_IFLNK => {
            symlink(OsStr::from_bytes(&record.target), path)?;
            return lchown(path, user, group);
        }
        libc::S_IFDIR => DirBuilder::new().mode(0o700).create(path)?,
        libc::S_IFREG => {
            let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            fchown(&file, user, group)?;
            return file.set_permissions(permissions);
        }
        other => return Err(io::Error::other(format!("a file of kind {other:o} cannot be made"))),
    }
    let directory = open_directory(path)?;
    fchown(&directory, user, group)?;
    directory.set_permissions(permissions)
}

/// Opens a directory that was made just now, and nothing that somebody has put in its place.
pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Gives a file the times that it had; the last thing done to it.
pub(super) fn set_times(file: &File, record: &GhostRecord) -> io::Result<()> {
    let times =
        FileTimes::new().set_accessed(time(record.accessed_ns)).set_modified(time(record.modified_ns));
    file.set_times(times)
}

fn time(since_1970_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(since_1970_ns.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let found = if since_1970_ns < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    found.unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::making::tests::Recorder;
    use super::*;

    #[test]
    fn ghosts_have_owner_mode_and_kind_and_leave_no_name() {
        let base = std::env::temp_dir().join(format!("posthaste-ghosts-{}", std::process::id()));
        let record = |name: &str, mode: u32| GhostRecord {
            path: base.join(name).into_os_string().into_encoded_bytes(),
            mode,
            target: b"/nowhere".to_vec(),
            user: nix::unistd::getuid().as_raw(),
            group: nix::unistd::getgid().as_raw(),
            modified_ns: -5,
            ..GhostRecord::default()
        };
        let mut manifest = protocol::sample::manifest();
        manifest.ghosts = vec![
            record("a/file", libc::S_IFREG | 0o4605),
            record("a/b/directory", libc::S_IFDIR | 0o500),
            record("a/link", libc::S_IFLNK | 0o777),
            record("a/file", libc::S_IFREG | 0o600),
        ];
        let trustee = Recorder::default();
        let ghosts = Ghosts::make(&manifest, &trustee).expect("room");
        let entrusted = trustee.entrusted();
        let in_base = |name: &str| base.join(name);
        for name in ["a", "a/file", "a/b", "a/b/directory", "a/link"].map(in_base).iter().chain([&base]) {
            assert!(entrusted.contains(name), "nobody else knows of {}", name.display());
        }
        let file = ghosts.open(0).expect("made");
        set_times(&file, &manifest.ghosts[0]).expect("ours");
        let link = ghosts.open_itself(2).expect("made");
        assert_ne!(ghosts.path(0).expect("made"), ghosts.path(3).expect("made"));
        drop(ghosts);
        assert!(!base.exists());
        let found = file.metadata().expect("open");
        assert_eq!(
            (found.mode(), found.nlink(), found.mtime_nsec()),
            (libc::S_IFREG | 0o4605, 0, 999_999_995)
        );
        assert!(link.metadata().expect("open").is_symlink());
    }
}
