//! CRIU's images, as far as pages are concerned: who is in the tree, which pages each one has, and where their bytes are.
//!
//! Frames are as in `crit`: one or two magic words, then messages behind their length. Lengths from a file are checked
//! before anything is allocated.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use memory::{Addr, PageRange};
use prost::Message;

const COMMON_MAGIC: u32 = 0x5456_4319;
const PSTREE_MAGIC: u32 = 0x5027_3030;
const FILES_MAGIC: u32 = 0x5630_3138;
const CORE_MAGIC: u32 = 0x5505_3847;
const FILE_LOCKS_MAGIC: u32 = 0x5432_3616;
/// The locks of all processes.
const FILE_LOCKS: &str = "filelocks.img";
/// `FL_LEASE`
const LEASE: u32 = 8;
/// `COMPEL_TASK_STOPPED`
const TASK_STOPPED: u32 = 3;
/// `AF_INET`, `AF_INET6`, `IPPROTO_TCP`.
const INET: u32 = 2;
const INET6: u32 = 10;
const TCP: u32 = 6;
/// Of `pagemap-*.img`.
const PAGEMAP_MAGIC: u32 = 0x5608_4025;
/// Bytes of one image that are read: a page map entry for every page of a terabyte.
const MOST_BYTES: u64 = 4 << 30;

/// `PE_PARENT`: the bytes are in the images before these.
pub const IN_PARENT: u32 = 1;
/// `PE_LAZY`: they may come after the restore.
pub const LAZY: u32 = 2;
/// `PE_PRESENT`: they are in `pages-*.img`.
pub const PRESENT: u32 = 4;

/// Why images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read.
    #[error("image '{}': {source}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("writing image '{}': {source}", path.display())]
    Unwritable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("image '{}' is malformed", .0.display())]
    Malformed(PathBuf),
}

/// `pstree_entry`
#[derive(Clone, PartialEq, Eq, Message)]
struct PstreeEntry {
    #[prost(uint32, required, tag = "1")]
    pid: u32,
}

/// `inet_sk_entry`
#[derive(Clone, PartialEq, Eq, Message)]
struct InternetSocket {
    #[prost(uint32, required, tag = "3")]
    family: u32,
    #[prost(uint32, required, tag = "5")]
    protocol: u32,
    #[prost(uint32, required, tag = "7")]
    from_port: u32,
    #[prost(uint32, required, tag = "8")]
    to_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    from: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    to: Vec<u32>,
}

/// `file_entry`
#[derive(Clone, PartialEq, Eq, Message)]
struct FileEntry {
    #[prost(message, optional, tag = "4")]
    socket: Option<InternetSocket>,
}

/// One end of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its own address.
    pub from: SocketAddr,
    /// The other end's.
    pub to: SocketAddr,
}

impl Connection {
    /// The other end.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// `file_lock_entry`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct FileLock {
    /// By which call it was taken: 1 fcntl(2), 2 flock(2), 4 fcntl(2) for the open file description.
    #[prost(uint32, required, tag = "1")]
    pub how: u32,
    /// `F_RDLCK` 0, `F_WRLCK` 1.
    #[prost(uint32, required, tag = "2")]
    pub access: u32,
    /// The process that has it, or has the descriptor: its id in the images.
    #[prost(int32, required, tag = "3")]
    pub pid: i32,
    /// The descriptor there.
    #[prost(int32, required, tag = "4")]
    pub fd: i32,
    /// Its first byte.
    #[prost(int64, required, tag = "5")]
    pub start: i64,
    /// Bytes; 0 to the end of the file, however long it grows.
    #[prost(int64, required, tag = "6")]
    pub len: i64,
}

/// `core_entry`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Core {
    #[prost(message, optional, tag = "3")]
    task: Option<TaskCore>,
}

/// `task_core_entry`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct TaskCore {
    #[prost(uint32, required, tag = "1")]
    state: u32,
}

/// `pagemap_head`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct PagemapHead {
    #[prost(uint32, required, tag = "1")]
    pages_id: u32,
}

/// `pagemap_entry`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct PagemapEntry {
    #[prost(uint64, required, tag = "1")]
    vaddr: u64,
    #[prost(uint32, required, tag = "2")]
    compat_nr_pages: u32,
    #[prost(bool, optional, tag = "3")]
    in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// A run of pages in a page map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which pages.
    pub pages: PageRange,
    /// [`IN_PARENT`], [`LAZY`], [`PRESENT`].
    pub flags: u32,
}

/// The page map of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pagemap {
    /// The number in the name of the file with the bytes.
    pub pages_id: u32,
    /// Ascending.
    pub entries: Vec<Entry>,
}

/// The processes of a tree, by their ids in the images, each once.
///
/// # Errors
/// The image cannot be read, or is malformed.
pub fn processes(directory: &Path) -> Result<Vec<u32>, ImageError> {
    let path = directory.join("pstree.img");
    let messages = messages(&path, PSTREE_MAGIC)?;
    let entries = messages.iter().map(|bytes| PstreeEntry::decode(bytes.as_slice()));
    let malformed = || ImageError::Malformed(path.clone());
    let pids = entries.map(|entry| entry.map(|entry| entry.pid).map_err(|_| malformed()));
    let pids: Vec<u32> = pids.collect::<Result<_, _>>()?;
    let distinct: BTreeSet<u32> = pids.iter().copied().collect();
    if distinct.len() == pids.len() { Ok(pids) } else { Err(malformed()) }
}

/// The ends of TCP connections that processes of the tree have open; none if it has no file at all.
///
/// # Errors
/// The image cannot be read, or is malformed.
pub fn connections(directory: &Path) -> Result<Vec<Connection>, ImageError> {
    let path = directory.join("files.img");
    let files = messages_if_any(&path, FILES_MAGIC)?.unwrap_or_default();
    let files = files.iter().map(|bytes| FileEntry::decode(bytes.as_slice()));
    let files: Vec<FileEntry> = files.collect::<Result<_, _>>().map_err(|_| ImageError::Malformed(path))?;
    Ok(files.into_iter().filter_map(|file| connection(&file.socket?)).collect())
}

/// `None` for what is none.
fn connection(socket: &InternetSocket) -> Option<Connection> {
    let end = |words: &[u32], port: u32| {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        // As they lie in the kernel's memory.
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let address = match socket.family {
            INET => IpAddr::from(*bytes.first_chunk::<4>()?),
            INET6 => IpAddr::from(*bytes.first_chunk::<16>()?),
            _ => return None,
        };
        // One end may be a socket of IPv6 and the other one of IPv4.
        Some(SocketAddr::new(address.to_canonical(), port))
    };
    let is_tcp = socket.protocol == TCP;
    let from = end(&socket.from, socket.from_port).filter(|_| is_tcp)?;
    Some(Connection { from, to: end(&socket.to, socket.to_port)? })
}

/// Takes the locks on files out of the images, but for leases (fcntl(2), `F_SETLEASE`), and returns them.
///
/// # Errors
/// The image cannot be read or written, or is malformed.
pub fn take_locks(directory: &Path) -> Result<Vec<FileLock>, ImageError> {
    let path = directory.join(FILE_LOCKS);
    let entries = messages_if_any(&path, FILE_LOCKS_MAGIC)?.unwrap_or_default();
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for entry in &entries {
        let lock = FileLock::decode(entry.as_slice()).map_err(|_| ImageError::Malformed(path.clone()))?;
        if lock.how & LEASE == 0 { taken.push(lock) } else { left.push(lock) }
    }
    if !taken.is_empty() {
        let write = || {
            let mut file = begin(&path, FILE_LOCKS_MAGIC)?;
            left.iter().try_for_each(|lock| put(&mut file, lock))?;
            file.flush()
        };
        write().map_err(|source| ImageError::Unwritable { path: path.clone(), source })?;
    }
    Ok(taken)
}

/// Whether process `pid` was stopped by a signal when it was dumped.
///
/// # Errors
/// The image cannot be read, or is malformed.
pub fn is_stopped(directory: &Path, pid: u32) -> Result<bool, ImageError> {
    let path = directory.join(format!("core-{pid}.img"));
    let messages = messages(&path, CORE_MAGIC)?;
    let core = messages.first().and_then(|bytes| Core::decode(bytes.as_slice()).ok());
    let task = core.ok_or(ImageError::Malformed(path))?.task;
    Ok(task.is_some_and(|task| task.state == TASK_STOPPED))
}

/// The page map of process `pid`; `None` if it has none, as a zombie.
///
/// # Errors
/// The image cannot be read, or is malformed: its runs must ascend, else one page would have bytes in two places.
pub fn pagemap(directory: &Path, pid: u32) -> Result<Option<Pagemap>, ImageError> {
    let path = directory.join(format!("pagemap-{pid}.img"));
    let malformed = || ImageError::Malformed(path.clone());
    let Some(messages) = messages_if_any(&path, PAGEMAP_MAGIC)? else { return Ok(None) };
    let (head, entries) = messages.split_first().ok_or_else(malformed)?;
    let head = PagemapHead::decode(head.as_slice()).map_err(|_| malformed())?;
    let decode = |bytes: &Vec<u8>| {
        let entry = PagemapEntry::decode(bytes.as_slice()).ok()?;
        let old = if entry.in_parent == Some(true) { IN_PARENT } else { PRESENT };
        let count = entry.nr_pages.unwrap_or_else(|| entry.compat_nr_pages.into());
        let pages = PageRange::from_pages(Addr(entry.vaddr), count)?;
        Some(Entry { pages, flags: entry.flags.unwrap_or(old) })
    };
    let entries: Option<Vec<Entry>> = entries.iter().map(decode).collect();
    let ascend =
        |entries: &Vec<Entry>| entries.is_sorted_by(|one, next| one.pages.end() <= next.pages.start());
    let entries = entries.filter(ascend).ok_or_else(malformed)?;
    Ok(Some(Pagemap { pages_id: head.pages_id, entries }))
}

/// The name of the file with the bytes of a page map.
#[must_use]
pub fn pages_name(pages_id: u32) -> String {
    format!("pages-{pages_id}.img")
}

/// Writes a page map, entry by entry.
#[derive(Debug)]
pub struct PagemapWriter(io::BufWriter<File>);

impl PagemapWriter {
    /// Begins `path`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path, pages_id: u32) -> io::Result<Self> {
        let mut file = begin(path, PAGEMAP_MAGIC)?;
        put(&mut file, &PagemapHead { pages_id })?;
        Ok(Self(file))
    }

    /// One more run.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, entry: Entry) -> io::Result<()> {
        let nr_pages = entry.pages.pages();
        let entry = PagemapEntry {
            vaddr: entry.pages.start().0,
            compat_nr_pages: u32::try_from(nr_pages).unwrap_or(u32::MAX),
            in_parent: None,
            flags: Some(entry.flags),
            nr_pages: Some(nr_pages),
        };
        put(&mut self.0, &entry)
    }

    /// Everything is in the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Begins an image.
fn begin(path: &Path, magic: u32) -> io::Result<io::BufWriter<File>> {
    let mut file = io::BufWriter::new(File::create(path)?);
    file.write_all(&COMMON_MAGIC.to_le_bytes())?;
    file.write_all(&magic.to_le_bytes())?;
    Ok(file)
}

/// One more message of an image.
fn put(file: &mut impl Write, message: &impl Message) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(&bytes)
}

/// As [`messages`]; `None` where there is no such file.
fn messages_if_any(path: &Path, magic: u32) -> Result<Option<Vec<Vec<u8>>>, ImageError> {
    match messages(path, magic) {
        Err(ImageError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        messages => messages.map(Some),
    }
}

/// The messages of an image that begins with `magic`.
fn messages(path: &Path, magic: u32) -> Result<Vec<Vec<u8>>, ImageError> {
    let unreadable = |source| ImageError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    io::Read::read_to_end(&mut io::Read::take(file, MOST_BYTES), &mut bytes).map_err(unreadable)?;
    split(&bytes, magic).ok_or_else(|| ImageError::Malformed(path.to_owned()))
}

fn split(bytes: &[u8], magic: u32) -> Option<Vec<Vec<u8>>> {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
    let mut rest = if word(bytes)? == COMMON_MAGIC { bytes.get(4..)? } else { bytes };
    if word(rest)? != magic {
        return None;
    }
    rest = rest.get(4..)?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let len = usize::try_from(word(rest)?).ok()?;
        let (message, behind) = rest.get(4..)?.split_at_checked(len)?;
        messages.push(message.to_vec());
        rest = behind;
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_map_that_was_written_is_read() {
        let directory = std::env::temp_dir().join(format!("criu-bridge-images-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let pages = |start, count| PageRange::from_pages(Addr(start), count).expect("a small range");
        let entries = vec![
            Entry { pages: pages(0x1000, 3), flags: PRESENT },
            Entry { pages: pages(0x8000, 1), flags: LAZY },
        ];
        let mut writer = PagemapWriter::create(&directory.join("pagemap-7.img"), 3).expect("room");
        entries.iter().for_each(|entry| writer.add(*entry).expect("room"));
        writer.finish().expect("room");
        let read = pagemap(&directory, 7).expect("what was written");
        assert_eq!(read, Some(Pagemap { pages_id: 3, entries }));
        assert_eq!(pagemap(&directory, 8).expect("no such process"), None);
        std::fs::write(directory.join("pagemap-8.img"), [0x19, 0x43, 0x56, 0x54, 1, 2]).expect("room");
        assert!(matches!(pagemap(&directory, 8), Err(ImageError::Malformed(_))));
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_page_or_a_process_that_is_there_twice_is_malformed() {
        let directory = std::env::temp_dir().join(format!("criu-bridge-twice-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let pages = |start, count| PageRange::from_pages(Addr(start), count).expect("a small range");
        let mut writer = PagemapWriter::create(&directory.join("pagemap-7.img"), 3).expect("room");
        for pages in [pages(0x1000, 3), pages(0x2000, 1)] {
            writer.add(Entry { pages, flags: PRESENT }).expect("room");
        }
        writer.finish().expect("room");
        assert!(matches!(pagemap(&directory, 7), Err(ImageError::Malformed(_))));
        let mut tree = PSTREE_MAGIC.to_le_bytes().to_vec();
        for pid in [[8, 7], [8, 9], [8, 7]] {
            tree.extend(2_u32.to_le_bytes());
            tree.extend(pid);
        }
        std::fs::write(directory.join("pstree.img"), &tree).expect("room");
        assert!(matches!(processes(&directory), Err(ImageError::Malformed(_))));
        std::fs::write(directory.join("pstree.img"), &tree[..tree.len() - 6]).expect("room");
        assert_eq!(processes(&directory).expect("well formed"), [7, 9]);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn locks_are_taken_out_and_leases_are_left() {
        let directory = std::env::temp_dir().join(format!("criu-bridge-locks-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        assert_eq!(take_locks(&directory).expect("no file, no lock"), []);
        let lock = FileLock { how: 1, access: 1, pid: 7, fd: 3, start: 10, len: 0 };
        let lease = FileLock { how: LEASE, ..lock };
        let path = directory.join(FILE_LOCKS);
        let mut file = begin(&path, FILE_LOCKS_MAGIC).expect("room");
        [lease, lock].iter().try_for_each(|lock| put(&mut file, lock)).expect("room");
        file.flush().expect("room");
        assert_eq!(take_locks(&directory).expect("well formed"), [lock]);
        let left = messages(&path, FILE_LOCKS_MAGIC).expect("well formed");
        assert_eq!(left, [lease.encode_to_vec()]);
        assert_eq!(take_locks(&directory).expect("well formed"), []);
        std::fs::write(&path, [0x19, 0x43, 0x56, 0x54, 1, 2]).expect("room");
        assert!(matches!(take_locks(&directory), Err(ImageError::Malformed(_))));
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn connections_are_what_has_two_ends() {
        let socket = |protocol, to_port| InternetSocket {
            family: INET,
            protocol,
            from_port: 80,
            to_port,
            from: vec![u32::from_ne_bytes([127, 0, 0, 1])],
            to: vec![u32::from_ne_bytes([127, 0, 0, 2])],
        };
        let ends = connection(&socket(TCP, 4000)).expect("it has two ends");
        assert_eq!(ends.from, "127.0.0.1:80".parse().expect("an address"));
        assert_eq!(ends.reversed().from, "127.0.0.2:4000".parse().expect("an address"));
        assert_eq!((connection(&socket(TCP, 0)), connection(&socket(17, 4000))), (None, None));
        let mapped = |host| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([127, 0, 0, host])].to_vec();
        let dual = InternetSocket { family: INET6, from: mapped(1), to: mapped(2), ..socket(TCP, 4000) };
        assert_eq!(connection(&dual), Some(ends));
        let cut = InternetSocket { family: INET6, ..socket(TCP, 4000) };
        assert_eq!(connection(&cut), None);
        let mut image = FILES_MAGIC.to_le_bytes().to_vec();
        for socket in [Some(socket(TCP, 4000)), None] {
            let bytes = FileEntry { socket }.encode_to_vec();
            image.extend(u32::try_from(bytes.len()).expect("short").to_le_bytes());
            image.extend(bytes);
        }
        let directory = std::env::temp_dir().join(format!("criu-bridge-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        assert_eq!(connections(&directory).expect("no file, no connection"), []);
        std::fs::write(directory.join("files.img"), &image).expect("room");
        assert_eq!(connections(&directory).expect("well formed"), [ends]);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn a_length_beyond_the_end_of_the_file_is_malformed() {
        let mut bytes = PSTREE_MAGIC.to_le_bytes().to_vec();
        bytes.extend(u32::MAX.to_le_bytes());
        assert_eq!(split(&bytes, PSTREE_MAGIC), None);
    }
}
