//! Files of the program: whether those here are the same, and opening them.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use nix::libc;
use protocol::{DescriptionKind, FileProof, FileRecord, FileVerdict, Manifest};
use sys::status::{self, FileType};
use sys::{Errno, Fd, capability, file, identity};

use super::RestoreError;
use super::descriptors::path_of;
use super::error::shown;
use super::mappings::MappedFor;
use crate::peer::Held;
use crate::{confinement, peer};

/// `O_RDWR`
const READ_WRITE: usize = 2;
/// `O_NOCTTY`: a terminal that is opened shall not become ours.
const NO_TERMINAL: usize = 0o400;
/// `O_NOFOLLOW`
const NO_LINK: usize = 0o400_000;
/// `O_NONBLOCK`: opening a pipe that has come to be at a path shall not wait for its other end.
const NOT_WAITING: usize = 0o4000;

/// The verdict on each of the manifest's files, in its order.
pub(super) fn verdicts(manifest: &Manifest, boot_id: [u8; 16]) -> Vec<FileVerdict> {
    let same_kernel = manifest.host.boot_id == boot_id;
    manifest.files.iter().map(|file| verdict(file, same_kernel)).collect()
}

/// Whether the file with this index comes along.
pub(super) fn is_wanted(verdicts: &[FileVerdict], file: u32) -> bool {
    verdicts.get(file as usize) == Some(&FileVerdict::Wanted)
}

/// Whether the file here has the very content that `record` describes.
pub(super) fn verdict(record: &FileRecord, same_kernel: bool) -> FileVerdict {
    match is_same(record, same_kernel) {
        Ok(true) => FileVerdict::Same,
        Ok(false) | Err(_) => FileVerdict::Travels,
    }
}

fn is_same(record: &FileRecord, same_kernel: bool) -> Result<bool, Errno> {
    let fd = open(&record.path, file::READ_ONLY)?;
    let found = identity::record(&record.path, &status::of_fd(&fd)?, FileProof::None);
    // One inode of one kernel: both mappings show the same page cache, whoever writes to it.
    if same_kernel && found.identity == record.identity {
        return Ok(true);
    }
    match &record.proof {
        FileProof::None => Ok(false),
        // A build id says nothing of a file that is shorter: its last pages would be gone.
        FileProof::BuildId(_) if found.size != record.size => Ok(false),
        proof @ (FileProof::BuildId(_) | FileProof::Content(_)) => Ok(identity::file_proof(&fd)? == *proof),
    }
}

/// Opens a mapped file. One that the program only might make writable is opened for reading if that is all that can be
/// had.
pub(super) fn open_mapped(path: &[u8], purpose: MappedFor) -> Result<OwnedFd, Errno> {
    let opened = match purpose {
        MappedFor::Reading => open(path, file::READ_ONLY),
        MappedFor::WritingLater => open(path, READ_WRITE).or_else(|_| open(path, file::READ_ONLY)),
        MappedFor::Writing => open(path, READ_WRITE),
    };
    opened.map(OwnedFd::from)
}

/// The flags with which a file is opened again: access mode, `O_APPEND`, `O_DSYNC`, `O_DIRECT`, `O_DIRECTORY`,
/// `O_NOATIME`, `O_SYNC`, `O_PATH`, `O_NOFOLLOW`.
pub(super) const KEPT: u32 =
    0o3 | 0o2000 | 0o10_000 | 0o40_000 | 0o200_000 | 0o1_000_000 | 0o4_010_000 | 0o10_000_000 | 0o400_000;

/// Opens `path` as a descriptor of the program had it; a regular file or a directory.
pub(super) fn open_again(manifest: &Manifest, file: u32, flags: u32) -> Result<OwnedFd, RestoreError> {
    let held = Held::Open { flags: flags & KEPT, among: KEPT };
    let flags = (flags & KEPT) as usize | NOT_WAITING;
    let record = record(manifest, file)?;
    let path = &record.path;
    let found = || peer::with_its_rights(|| other_name(record, manifest.host.boot_id));
    let opened = open(path, flags).or_else(|errno| match found() {
        Some(name) => open(&name, flags),
        None => Err(errno),
    });
    let opened = opened.or_else(|errno| open_held(path, flags, held).ok_or(errno));
    let fd = opened.map_err(|errno| missing("the open file", path, errno))?;
    match status::of_fd(&fd).map(|status| status.file_type) {
        Ok(FileType::Regular | FileType::Directory | FileType::Link) => Ok(fd.into()),
        Ok(_) if flags & file::PATH_ONLY != 0 => Ok(fd.into()),
        Ok(_) => Err(RestoreError::NotAFile { path: shown(path) }),
        Err(errno) => Err(missing("the open file", path, errno)),
    }
}

/// Proves that [`open_again`] can be done. What has been deleted since the source looked (`same_kernel`) is no obstacle:
/// the final manifest has the file without its name, or not at all.
pub(super) fn prove(
    manifest: &Manifest,
    file: u32,
    flags: u32,
    same_kernel: bool,
) -> Result<(), RestoreError> {
    match open_again(manifest, file, flags) {
        Err(RestoreError::File { source: Errno::ENOENT, .. })
            if same_kernel && may_be_deleted(record(manifest, file)?) =>
        {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Whether the place of a file that is not here is the one that it was in: the nearest directory above is of the same file
/// system. What a receiver sees none of, as another container's files, is of another.
fn may_be_deleted(record: &FileRecord) -> bool {
    let above = Path::new(OsStr::from_bytes(&record.path)).ancestors().skip(1);
    let nearest = above.map(|path| open(path.as_os_str().as_bytes(), file::PATH_ONLY)).find_map(Result::ok);
    let (device, _) = record.identity;
    nearest.and_then(|found| status::of_fd(&found).ok()).is_some_and(|found| found.device.number() == device)
}

/// Whether the sender may not open `path` like that by itself.
pub(super) fn is_denied(path: &[u8], flags: u32) -> bool {
    peer::is_restricted() && open(path, flags as usize | NOT_WAITING).is_err()
}

/// Another name of a file whose own was deleted, if the same directory has one: the very inode, so on one machine only.
fn other_name(record: &FileRecord, boot_id: [u8; 16]) -> Option<Vec<u8>> {
    identity::boot_id().ok().filter(|here| *here == boot_id)?;
    let path = Path::new(OsStr::from_bytes(record.path.strip_suffix(b" (deleted)")?));
    let (_, inode) = record.identity;
    let parent = path.parent()?;
    let directory = confinement::file(parent, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    let same = entries.flatten().filter(|entry| entry.ino() == inode);
    let mut names = same.map(|entry| parent.join(entry.file_name()));
    let is_it = |path: &PathBuf| {
        let found = CString::new(path.as_os_str().as_bytes()).ok();
        let found = found.and_then(|path| confinement::open(&path, file::PATH_ONLY | NO_LINK).ok());
        let found = found.and_then(|found| status::of_fd(&found).ok());
        found.is_some_and(|found| (found.device.number(), found.inode) == record.identity)
    };
    names.find(is_it).map(|path| path.into_os_string().into_encoded_bytes())
}

/// Whether `path` leads to what `/proc` tells of process `pid` or of the first of its PID namespace.
pub(super) fn is_of_process(path: &[u8], pid: u32) -> bool {
    // Process 1 is another one here too.
    [pid, 1].into_iter().any(|pid| {
        let own = path.strip_prefix(format!("/proc/{pid}").as_bytes());
        own.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
    })
}

/// Whether a path below `/proc/PID` may lead to anything but what `/proc` tells of process `pid` itself, or a namespace
/// that it is in.
pub(super) fn leads_out_of_proc(path: &[u8], pid: u32) -> bool {
    if let Some(namespace) = path.strip_prefix(format!("/proc/{pid}/ns/").as_bytes()) {
        return namespace.contains(&b'/');
    }
    const LINKS: [&[u8]; 7] = [b"root", b"cwd", b"exe", b"fd", b"map_files", b"ns", b"mem"];
    path.split(|byte| *byte == b'/').any(|component| LINKS.contains(&component))
}

/// Opens the device at `path`.
pub(super) fn open_device(path: &[u8], flags: u32) -> Result<OwnedFd, RestoreError> {
    /// Those that hold nothing (`/dev/null` and the like); a terminal that is somebody's is none of them.
    const MEMORY_DEVICES: u32 = 1;
    let opened = open(path, (flags & 0o3) as usize | NOT_WAITING).and_then(|opened| {
        let found = status::of_fd(&opened)?;
        let is_one = found.file_type == FileType::Character && found.special.major == MEMORY_DEVICES;
        if is_one || !peer::is_restricted() { Ok(opened) } else { Err(Errno::EACCES) }
    });
    opened.map(OwnedFd::from).map_err(|errno| missing("the device", path, errno))
}

/// Proves that `path` is a directory.
pub(super) fn prove_directory(path: &[u8]) -> Result<(), RestoreError> {
    let flags = file::PATH_ONLY | file::DIRECTORY;
    let opened =
        open(path, flags).or_else(|errno| open_held(path, flags, Held::WorkingDirectory).ok_or(errno));
    opened.map(|_| ()).map_err(|errno| missing("the working directory", path, errno))
}

/// Opens the program's executable.
pub(super) fn open_executable(path: &[u8]) -> Result<OwnedFd, RestoreError> {
    let opened = open(path, file::READ_ONLY);
    let opened = opened.or_else(|errno| open_held(path, file::READ_ONLY, Held::Program).ok_or(errno));
    opened.map(OwnedFd::from).map_err(|errno| missing("the program", path, errno))
}

/// Opens a regular file or a directory that the sender may not open any more, but has.
fn open_held(path: &[u8], flags: usize, held: Held) -> Option<Fd> {
    if !peer::is_restricted() {
        return None;
    }
    /// `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`, `CAP_FOWNER`
    const FILES: u64 = 0b111 << 1;
    let path = CString::new(path).ok()?;
    // Nothing happens to a file that is only looked up.
    let there = confinement::open(&path, file::PATH_ONLY | flags & NO_LINK).ok()?;
    let file_type = status::of_fd(&there).ok()?.file_type;
    let there = File::from(OwnedFd::from(there));
    if !matches!(file_type, FileType::Regular | FileType::Directory) || !peer::has(held, &there) {
        return None;
    }
    let again = CString::new(format!("/proc/self/fd/{}", there.as_raw_fd())).ok()?;
    // What it has was opened by somebody who may, with who knows which rights beside.
    capability::with(FILES, || file::open(&again, flags & !NO_LINK | NO_TERMINAL)).ok()?.ok()
}

/// Refuses names that lead out of `--root`.
pub(super) fn check_names(manifest: &Manifest) -> Result<(), RestoreError> {
    let files = manifest.files.iter().map(|file| &file.path);
    let ghosts = manifest.ghosts.iter().map(|ghost| &ghost.path);
    let pipes = manifest.pipes.iter().map(|pipe| &pipe.path);
    let own = |path: &&Vec<u8>| !is_of_process(path, manifest.process.pid);
    let names = files.chain(ghosts).chain(pipes).chain([&manifest.process.working_directory]).filter(own);
    let sockets = manifest.descriptions.iter().filter_map(|description| match &description.kind {
        DescriptionKind::Socket(socket) => Some([&socket.address, &socket.peer_address]),
        _ => None,
    });
    let sockets =
        sockets.flatten().filter_map(|address| path_of(address)).map(|path| path.as_os_str().as_bytes());
    for name in names.map(Vec::as_slice).chain(sockets) {
        let permitted = peer::with_its_rights(|| confinement::permit(name));
        permitted.map_err(|source| RestoreError::Outside { path: shown(name), source })?;
    }
    Ok(())
}

/// The manifest's file `index`.
pub(super) fn record(manifest: &Manifest, index: u32) -> Result<&FileRecord, RestoreError> {
    manifest.files.get(index as usize).ok_or(RestoreError::Dangling { what: "file", index })
}

/// The error for a path that cannot be opened.
pub(super) fn missing(what: &'static str, path: &[u8], errno: Errno) -> RestoreError {
    RestoreError::File { what, path: shown(path), source: errno }
}

fn open(path: &[u8], flags: usize) -> Result<Fd, Errno> {
    let path = CString::new(path).map_err(|_| Errno::ENOENT)?;
    peer::with_its_rights(|| confinement::open(&path, flags | NO_TERMINAL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_proc_tells_of_a_process_is_known_by_its_path() {
        assert!(leads_out_of_proc(b"/proc/12/cwd/file", 12) && leads_out_of_proc(b"/proc/1/ns/net", 12));
        assert!(leads_out_of_proc(b"/proc/12/ns/net/../../root/file", 12));
        assert!(!leads_out_of_proc(b"/proc/12/ns/net", 12) && !leads_out_of_proc(b"/proc/12/smaps", 12));
        assert!(is_of_process(b"/proc/12/smaps", 12) && is_of_process(b"/proc/12", 12));
        assert!(!is_of_process(b"/proc/123/smaps", 12) && !is_of_process(b"/proc/meminfo", 12));
    }

    #[test]
    fn a_copy_is_the_same_until_it_is_rewritten() {
        let directory = std::env::temp_dir().join(format!("posthaste-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("mapped");
        std::fs::write(&path, b"what the program has mapped").expect("a file");
        let record = identity::file_record(path.as_os_str().as_bytes(), true).expect("readable");
        assert_eq!(verdict(&record, true), FileVerdict::Same);
        let elsewhere = FileRecord { identity: (0, 0), ..record.clone() };
        assert_eq!(verdict(&elsewhere, true), FileVerdict::Same);
        std::fs::write(&path, b"what somebody else wrote...").expect("a file");
        assert_eq!(verdict(&record, true), FileVerdict::Same, "both sides see the same page cache");
        assert_eq!(verdict(&elsewhere, true), FileVerdict::Travels);
        assert_eq!(verdict(&record, false), FileVerdict::Travels);
        std::fs::remove_dir_all(&directory).expect("ours");
        assert_eq!(verdict(&record, true), FileVerdict::Travels);
    }
}
