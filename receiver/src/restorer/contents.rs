//! Content that comes by itself, ahead of the manifest that refers to it: what was too large for it, and files that are not
//! here.
//!
//! ```text
//! memfd, deleted file    made at once, handed to whoever makes the objects
//! file that is not here  written under another name (`making.rs`); has its own before anything opens it, and loses it
//!                        again if the process does not run
//! file that is here      compared, never written
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::fstatvfs;
use protocol::{
    ContentKind, ContentRecord, DescriptionKind, FileRecord, FileVerdict, Header, Kind, Manifest,
};

use super::RestoreError;
use super::error::shown;
use super::ghosts::{self, Ghosts};
use super::making::{self, Trustee};
use crate::confinement::{self, Place};
use crate::peer;

/// Bytes that are compared at a time.
const STEP: usize = 256 << 10;

/// What has come so far. Dropping it deletes the files that it made, and directories on the way to them, unless they are
/// [kept](Self::keep).
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Paths of the files that are wanted, by index.
    wanted: BTreeMap<u64, Vec<u8>>,
    arriving: Option<Arriving>,
    objects: BTreeMap<u64, File>,
    files: BTreeSet<u64>,
    /// Everything has come that the source announced.
    complete: bool,
    made: Vec<Place>,
    directories: Vec<Place>,
}

#[derive(Debug)]
struct Arriving {
    index: u64,
    record: ContentRecord,
    /// Up to where it has come.
    at: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Object(File),
    New { file: File, place: Place },
    Present(File),
}

/// The verdicts on files, where those that are to come along say so.
pub(super) fn want(manifest: &Manifest, verdicts: &mut [FileVerdict]) {
    const KIND: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    for description in manifest.descriptions.iter().filter(|description| description.mode & KIND == REGULAR) {
        let DescriptionKind::File { file } = description.kind else { continue };
        let (Some(record), Some(verdict)) =
            (manifest.files.get(file as usize), verdicts.get_mut(file as usize))
        else {
            continue;
        };
        let is_of_kernel =
            [b"/proc/".as_slice(), b"/sys/"].iter().any(|place| record.path.starts_with(place));
        if *verdict == FileVerdict::Travels && !is_of_kernel && !record.path.ends_with(b" (deleted)") {
            *verdict = FileVerdict::Wanted;
        }
    }
}

impl Contents {
    /// Of a manifest with these verdicts. Proves that what is wanted can be made, while the program still runs there.
    pub(super) fn prepare(manifest: &Manifest, verdicts: &[FileVerdict]) -> Result<Self, RestoreError> {
        let mut contents = Self::default();
        for ((index, record), verdict) in (0..).zip(&manifest.files).zip(verdicts) {
            if *verdict == FileVerdict::Wanted {
                let proved = peer::with_its_rights(|| prove(record));
                proved.map_err(|source| refusal(&record.path, source))?;
                contents.wanted.insert(index, record.path.clone());
            }
        }
        Ok(contents)
    }

    /// Takes a frame.
    pub(super) fn take(
        &mut self,
        header: Header,
        body: &[u8],
        trustee: &dyn Trustee,
    ) -> Result<(), RestoreError> {
        let nonsense =
            || RestoreError::Content { what: "content that nobody has asked for or that does not fit" };
        if header.kind == Kind::ContentBytes {
            let arriving = self.arriving.as_mut().ok_or_else(nonsense)?;
            let path = arriving.record.file.path.clone();
            let taken = peer::with_its_rights(|| arriving.take(header.argument, body));
            return taken.map_err(|source| refusal(&path, source));
        }
        self.finish(trustee)?;
        if header.count == 0 {
            self.complete = true;
            return Ok(());
        }
        let kind = ContentKind::from_number(header.count).ok_or_else(nonsense)?;
        let record: ContentRecord = protocol::decode(body).map_err(|_| nonsense())?;
        let index = header.argument;
        if kind == ContentKind::File && self.wanted.get(&index) != Some(&record.file.path) {
            return Err(nonsense());
        }
        let path = record.file.path.clone();
        let begun = peer::with_its_rights(|| self.begin(kind, index, record, trustee));
        begun.map_err(|source| refusal(&path, source))
    }

    fn begin(
        &mut self,
        kind: ContentKind,
        index: u64,
        record: ContentRecord,
        trustee: &dyn Trustee,
    ) -> io::Result<()> {
        let sink = match kind {
            ContentKind::Memory => Sink::Object(memory(&record)?),
            ContentKind::Deleted => Sink::Object(Ghosts::nameless(&record.file, trustee)?),
            ContentKind::File => self.file(&record, trustee)?,
        };
        self.arriving = Some(Arriving { index, record, at: 0, sink });
        Ok(())
    }

    fn file(&mut self, record: &ContentRecord, trustee: &dyn Trustee) -> io::Result<Sink> {
        let path = Path::new(OsStr::from_bytes(&record.file.path));
        match open_present(path) {
            Ok(file) => return Ok(Sink::Present(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let missing = path.ancestors().skip(1).take_while(|parent| !confinement::is_there(parent));
        for parent in missing.collect::<Vec<_>>().into_iter().rev() {
            let place = Place::of(parent)?;
            making::directory(&place, trustee)?;
            self.directories.push(place);
            let place = self.directories.last().ok_or(ErrorKind::NotFound)?;
            let directory = ghosts::open_directory(&place.path())?;
            // As with the file itself. The program has to get there, as it got there at the source.
            let _ = fchown(&directory, Some(record.file.user), Some(record.file.group));
            directory.set_permissions(Permissions::from_mode(0o755))?;
        }
        let place = Place::of(path)?;
        let new =
            |path: &Path| File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
        let (file, temporary) = making::make(&place, trustee, new)?;
        self.made.push(temporary);
        Ok(Sink::New { file, place })
    }

    /// Ends what has come last.
    fn finish(&mut self, trustee: &dyn Trustee) -> Result<(), RestoreError> {
        let Some(arriving) = self.arriving.take() else { return Ok(()) };
        let path = arriving.record.file.path.clone();
        peer::with_its_rights(|| self.finish_one(arriving, trustee)).map_err(|source| refusal(&path, source))
    }

    fn finish_one(&mut self, arriving: Arriving, trustee: &dyn Trustee) -> io::Result<()> {
        let Arriving { index, record, at, sink } = arriving;
        match sink {
            Sink::Object(file) => {
                file.set_len(record.size)?;
                self.objects.insert(index, file);
            }
            Sink::Present(file) => {
                compare_zeros(&file, at, record.size)?;
                if file.metadata()?.len() != record.size {
                    return Err(different());
                }
                self.files.insert(index);
            }
            Sink::New { file, place } => {
                file.set_len(record.size)?;
                // Only root may give files away; to whoever else sends, it belongs.
                let _ = fchown(&file, Some(record.file.user), Some(record.file.group));
                file.set_permissions(Permissions::from_mode(record.file.mode & 0o7777))?;
                ghosts::set_times(&file, &record.file)?;
                let temporary = self.made.pop().ok_or(ErrorKind::NotFound)?;
                making::settle(&temporary, &place, trustee)?;
                self.made.push(place);
                self.files.insert(index);
            }
        }
        Ok(())
    }

    /// Whether everything has come that the image of `manifest` needs.
    pub(super) fn check(&mut self, manifest: &Manifest) -> Result<(), RestoreError> {
        let files = manifest.descriptions.iter().filter_map(|description| match description.kind {
            DescriptionKind::File { file } => Some(u64::from(file)),
            _ => None,
        });
        let objects = (0_u64..).zip(&manifest.objects).filter(|(_, record)| record.streamed);
        let is_here =
            files.into_iter().all(|file| !self.wanted.contains_key(&file) || self.files.contains(&file))
                && objects.into_iter().all(|(index, _)| self.objects.contains_key(&index));
        let has_come = self.complete || (self.files.is_empty() && self.objects.is_empty());
        if is_here && has_come && self.arriving.is_none() {
            return Ok(());
        }
        Err(RestoreError::Content { what: "content of a file or of memory is missing" })
    }

    /// The object whose content has come, made and filled.
    pub(super) fn object(&mut self, index: u32) -> Option<File> {
        self.objects.remove(&u64::from(index))
    }

    /// The process runs: what was made stays.
    pub(super) fn keep(&mut self) {
        self.made.clear();
        self.directories.clear();
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        peer::with_its_rights(|| {
            for place in &self.made {
                if let Err(error) = fs::remove_file(place.path()) {
                    let name = place.name().display();
                    tracing::warn!(%name, %error, "a file made for a process that does not come is left behind");
                }
            }
            for place in self.directories.iter().rev() {
                // Somebody else may have put something there.
                let _ = fs::remove_dir(place.path());
            }
        });
    }
}

impl Arriving {
    fn take(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.record.size);
        let end = end.filter(|_| offset >= self.at && !bytes.is_empty());
        let end = end.ok_or_else(|| io::Error::other("its content does not fit its size"))?;
        match &self.sink {
            Sink::Object(file) | Sink::New { file, .. } => file.write_all_at(bytes, offset)?,
            Sink::Present(file) => {
                compare_zeros(file, self.at, offset)?;
                compare(file, offset, bytes)?;
            }
        }
        self.at = end;
        Ok(())
    }
}

fn memory(record: &ContentRecord) -> io::Result<File> {
    let name = record.file.path.strip_prefix(b"/memfd:").unwrap_or(b"shared");
    let name = CString::new(name).map_err(io::Error::other)?;
    Ok(memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?.into())
}

fn open_present(path: &Path) -> io::Result<File> {
    let file = confinement::file(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)?;
    let is_file = file.metadata()?.is_file();
    if is_file { Ok(file) } else { Err(io::Error::other("it is not a file here")) }
}

/// Proves that a file can be compared, or made with the size that it has now.
fn prove(record: &FileRecord) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(&record.path));
    match open_present(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let directory =
        path.ancestors().skip(1).find(|parent| confinement::is_there(parent)).ok_or(ErrorKind::NotFound)?;
    let space = fstatvfs(&making::nameless(&Place::of(&directory.join("file"))?)?)?;
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    if free < record.size {
        return Err(io::Error::other(format!("it has {} bytes, and there is room for {free}", record.size)));
    }
    Ok(())
}

fn compare(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut here = vec![0; bytes.len()];
    match file.read_exact_at(&mut here, at) {
        Ok(()) if here == bytes => Ok(()),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Err(different()),
    }
}

/// Compares a stretch of zeros.
fn compare_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; STEP];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).unwrap_or(STEP).min(STEP);
        compare(file, at, zeros.get(..len).unwrap_or_default())?;
        at += len as u64;
    }
    Ok(())
}

fn different() -> io::Error {
    io::Error::other("another file has this name here: move it away, or provide the same one")
}

fn refusal(path: &[u8], source: io::Error) -> RestoreError {
    RestoreError::Ship { path: shown(path), source }
}
