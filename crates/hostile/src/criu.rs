//! What the bridge takes from CRIU: images, pages over its page protocol, and answers to requests.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use criu_bridge::client::Client;
use criu_bridge::images::pagemap;
use criu_bridge::local_pages::{LocalPages, instance};
use criu_bridge::page_server::Service;
use criu_bridge::wire::Form;
use criu_bridge::{complaint, rpc};
use memory::{Addr, PAGE_SIZE, PageRange};
use prost::Message;

/// Pages in the file that is the only one with pages.
const PAGES: u64 = 4;
/// Pages that are read at a time, and their bytes.
const PIECE: u64 = 3;
const PIECE_BYTES: usize = 3 << 12;

/// A directory for one input.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let thread = std::thread::current().id();
        let name = format!("hostile-{}-{thread:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// A directory of images: the tree and the page maps of its first two processes are cut out of `bytes`, in which
    /// the length of each comes first. Page maps that lie before it are its own.
    fn with_images(bytes: &[u8]) -> io::Result<Self> {
        let directory = Self::new()?;
        let mut rest = bytes;
        for name in ["pstree.img", "pagemap-1.img", "pagemap-2.img"] {
            let (length, behind) = rest.split_at(rest.len().min(2));
            let length = length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let (image, behind) = behind.split_at(length.min(behind.len()));
            fs::write(directory.0.join(name), image)?;
            rest = behind;
        }
        let content: Vec<u8> = (1..=PAGES).flat_map(|page| page.to_le_bytes().repeat(512)).collect();
        fs::write(directory.0.join("pages-1.img"), content)?;
        symlink(".", directory.0.join("parent"))?;
        Ok(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing reads it again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Images of a tree: refused, or every lazy page is in one place, and no page is read that is not one of the file's.
pub fn criu_images(bytes: &[u8]) {
    let directory = Directory::with_images(bytes).expect("a temporary directory");
    let Ok(instance) = instance(&directory.0) else { return };
    let Some(sequence) = instance.sequence() else { return };
    let passages = sequence.tasks.iter().chain(&sequence.files);
    assert!(passages.clone().is_sorted_by(|one, next| one.source.end() <= next.source.start()));
    assert!(instance.manifest().is_none_or(|manifest| manifest.lazy.len() == sequence.tasks.len()));
    let Ok(pages) = LocalPages::open(&directory.0, &instance) else { return };
    for (index, task) in instance.tasks.iter().enumerate() {
        assert!(task.lazy.is_sorted_by(|one, next| one.end() < next.start()), "runs that touch are one");
        for run in &task.lazy {
            read(&pages, index, *run);
        }
    }
}

/// The beginning and the end of a run.
fn read(pages: &LocalPages, index: usize, run: PageRange) {
    let mut room = [0; PIECE_BYTES];
    let (first, _) = run.split_at_pages(PIECE);
    let (_, last) = run.split_at_pages(run.pages() - 1);
    for at in [first, last] {
        if let Some(found) = pages.read(index, at, &mut room) {
            assert!((1..=at.pages()).contains(&found));
            let number = room.first_chunk().map(|word| u64::from_le_bytes(*word));
            assert!(number.is_some_and(|number| (1..=PAGES).contains(&number)), "a page of no file");
        }
    }
}

/// The page protocol: the first byte chooses who listens to the others, a server that takes pages, one that gives them
/// out, or whoever asks for pages in one of the two forms.
pub fn criu_pages(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 4 {
        0 => take(bytes),
        1 => lend(bytes),
        2 => ask(bytes, Form::Short),
        _ => ask(bytes, Form::Long),
    }
}

/// What has come to a good end is a page map for each process, or one that is refused.
fn take(bytes: &[u8]) {
    let directory = Directory::new().expect("a temporary directory");
    let mut answers = Vec::new();
    let ended = Service::taking(&directory.0).serve(bytes, &mut answers);
    assert!(answers.len() <= bytes.len(), "an answer is shorter than what it answers");
    let written: u64 = sizes(&directory.0).sum();
    assert!(written <= 16 + 8 * bytes.len() as u64, "it has bytes that nobody sent");
    if ended.is_ok() {
        let _either = pagemap(&directory.0, 1);
    }
}

fn sizes(directory: &Path) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(directory).expect("it is there");
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
}

/// A server of two processes with two runs of lazy pages each.
fn lend(bytes: &[u8]) {
    const IMAGES: &[u8] = include_bytes!("../../../fuzz/corpus/criu_images/seed-two");
    let directory = Directory::with_images(IMAGES).expect("a temporary directory");
    let service = Service::lending(&directory.0).expect("images that were written for this");
    let mut answers = Counted(0);
    let _either = service.serve(bytes, &mut answers);
    let records = bytes.len() as u64 / 24 + 1;
    assert!(answers.0 <= records * (32 + PAGES * PAGE_SIZE), "it has pages that nobody has");
}

/// Where answers go.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server that has its answers ready.
struct Answers<'bytes>(&'bytes [u8]);

impl Read for Answers<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Answers<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pages are asked for here and there, and the same ones again, until an answer is none.
fn ask(bytes: &[u8], form: Form) {
    let around = PageRange::new(Addr(0x0f_f000), Addr(0x31_0000)).expect("a run");
    let mut client = Client::over(Answers(bytes), form);
    for start in [0x0f_f000, 0x10_0000, 0x10_1000, 0x10_0000, 0x30_d000, 0x20_0000, 0x30_f000] {
        let wanted = PageRange::new(Addr(start), around.end()).expect("a part of it");
        let (wanted, _) = wanted.split_at_pages(PIECE);
        if client.fetch(1, wanted, around).is_err() {
            return client.give_back();
        }
        let lent = client.lend(1, wanted).map_or(0, |bytes| bytes.len() as u64);
        assert!((1..=wanted.len()).contains(&lent));
    }
    let _either = client.close();
}

/// What CRIU answers, and what it has written into its log: the line for people has nothing for a terminal in it.
pub fn criu_answers(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let said = match choice % 2 {
        0 => rpc::Response::decode(bytes).ok().and_then(|response| response.message),
        _ => Some(String::from_utf8_lossy(bytes).into_owned()),
    };
    let told = complaint::of_log(Path::new("/nonexistent/log"), said.as_deref());
    assert!(!told.is_some_and(|told| told.chars().any(char::is_control)), "it could write to a terminal");
}
