//! `page-server`: the other end of CRIU's page connections, in the place of `criu page-server` and with its options.
//!
//! Without `--lazy-pages` it writes what a dump sends into images; with it, it gives out the pages of images. It serves
//! one connection, as CRIU's does. Who can reach the port can write images: so it listens on loopback unless told
//! otherwise.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use memory::PAGE_SIZE;

use crate::config::{DUMP_SILENCE, MOST_PAGES};
use crate::images::{Entry, IN_PARENT, ImageError, PRESENT, PagemapWriter, pages_name};
use crate::instance::Instance;
use crate::local_pages::{self, LocalPages};
use crate::wire::{Command, Form, Record};

/// Below these numbers are the pages that the dump itself writes into the same directory.
const FIRST_PAGES_ID: u32 = 0x1_0001;
/// The low byte of an owner: what the rest is the id of.
const PROCESS: u64 = 1;
const SHARED_MEMORY: u64 = 2;

/// `criu-bridge page-server`
#[derive(Args, Debug)]
pub struct PageServer {
    /// Directory of the images
    #[arg(long, short = 'D', default_value = ".", value_name = "DIR")]
    images_dir: PathBuf,
    /// Give out the pages of the images instead of taking pages
    #[arg(long)]
    lazy_pages: bool,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Port to listen on; 0 takes a free one and says which
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Write a zero byte to this descriptor when ready
    #[arg(long, value_name = "FD")]
    status_fd: Option<u16>,
}

impl PageServer {
    /// Serves one connection.
    ///
    /// # Errors
    /// Why not.
    pub fn run(&self) -> anyhow::Result<u8> {
        let status = self.status_fd.map(sys::inherited::claim).transpose();
        let status = status.map_err(|errno| anyhow!("descriptor of --status-fd: {errno}"))?;
        let service = if self.lazy_pages {
            Service::lending(&self.images_dir)?
        } else {
            Service::taking(&self.images_dir)
        };
        let listening = || format!("listening on {}:{}", self.address, self.port);
        let listener = TcpListener::bind((self.address.as_str(), self.port)).with_context(listening)?;
        let address = listener.local_addr().with_context(listening)?;
        sys::net::unpace_if_local(listener.as_raw_fd(), address.ip());
        crate::tell(format_args!("port {}", address.port()));
        if let Some(status) = status {
            File::from(status).write_all(&[0]).context("writing to --status-fd")?;
        }
        let (stream, _) = listener.accept().with_context(listening)?;
        drop(listener);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DUMP_SILENCE))?;
        let input = BufReader::with_capacity(1 << 20, &stream);
        service.serve(input, &stream).context("serving pages")?;
        Ok(0)
    }
}

/// One connection's service.
#[derive(Debug)]
pub struct Service(Box<dyn Answering>);

impl Service {
    /// Writes images of what comes into `directory`.
    #[must_use]
    pub fn taking(directory: &Path) -> Self {
        Self(Box::new(Taking { directory: directory.to_owned(), next: FIRST_PAGES_ID, open: None }))
    }

    /// Gives out the lazy pages of the images in `directory`.
    ///
    /// # Errors
    /// An image cannot be read, or is malformed.
    pub fn lending(directory: &Path) -> Result<Self, ImageError> {
        let instance = local_pages::instance(directory)?;
        let pages = LocalPages::open(directory, &instance)?;
        Ok(Self(Box::new(Lending { instance, pages })))
    }

    /// Answers until the closing word, or the end of the connection where that is a good one.
    ///
    /// # Errors
    /// What was said has no place here, or an image cannot be read or written.
    pub fn serve(self, mut input: impl Read, mut out: impl Write) -> io::Result<()> {
        let Self(mut answering) = self;
        let mut form = None;
        loop {
            let next = match form {
                None => Record::read_first(&mut input)?,
                Some(form) => Record::read(&mut input, form)?.map(|record| (record, form)),
            };
            let Some((record, known)) = next else {
                return if answering.may_just_end() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            };
            form = Some(known);
            if record.command == Command::Close {
                answering.finish()?;
                out.write_all(&0_i32.to_le_bytes())?;
                // Who closes first has to remember the connection for a while.
                let _ = input.read(&mut [0]);
                return Ok(());
            }
            answering.answer(record, known, &mut input, &mut out)?;
        }
    }
}

/// What is done with a record.
trait Answering: Debug {
    /// Does it; what is behind the record is still to be read from `pages`.
    fn answer(
        &mut self,
        record: Record,
        form: Form,
        pages: &mut dyn Read,
        out: &mut dyn Write,
    ) -> io::Result<()>;

    /// Everything has come.
    fn finish(&mut self) -> io::Result<()>;

    /// Whether a connection that ends without a word has ended well.
    fn may_just_end(&self) -> bool;
}

/// Gives out pages of images.
#[derive(Debug)]
struct Lending {
    instance: Instance,
    pages: LocalPages,
}

impl Answering for Lending {
    fn answer(
        &mut self,
        record: Record,
        form: Form,
        _: &mut dyn Read,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let index = self.instance.tasks.iter().position(|task| u64::from(task.pid) == record.owner);
        let (Command::Get, Some(index), Some(wanted)) = (record.command, index, record.range()) else {
            return Err(unexpected(record));
        };
        let (wanted, _) = wanted.split_at_pages(MOST_PAGES);
        let mut bytes = vec![0; usize::try_from(wanted.len()).map_err(io::Error::other)?];
        let pages = self.pages.read(index, wanted, &mut bytes).ok_or_else(|| unexpected(record))?;
        let answer = Record { command: Command::AddWithFlags, flags: PRESENT, pages, ..record };
        let len = usize::try_from(pages * PAGE_SIZE).map_err(io::Error::other)?;
        out.write_all(&answer.to_bytes(form))?;
        out.write_all(bytes.get(..len).unwrap_or_default())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn may_just_end(&self) -> bool {
        true
    }
}

/// Writes images of what comes.
#[derive(Debug)]
struct Taking {
    directory: PathBuf,
    /// The number of the next file with pages.
    next: u32,
    open: Option<OpenImage>,
}

/// The page map that is being written.
#[derive(Debug)]
struct OpenImage {
    owner: u64,
    map: PagemapWriter,
    pages: File,
    has_parent: bool,
}

impl Taking {
    /// The name of a page map; `None` for an owner of no known kind.
    fn name(owner: u64) -> Option<String> {
        let id = owner >> 8;
        match owner & 0xff {
            PROCESS => Some(format!("pagemap-{id}.img")),
            SHARED_MEMORY => Some(format!("pagemap-shmem-{id}.img")),
            _ => None,
        }
    }

    fn parent(&self, name: &str) -> bool {
        self.directory.join("parent").join(name).exists()
    }

    fn begin(&mut self, record: Record) -> io::Result<&OpenImage> {
        self.finish()?;
        let name = Self::name(record.owner).ok_or_else(|| unexpected(record))?;
        let map = PagemapWriter::create(&self.directory.join(&name), self.next)?;
        let pages = File::create(self.directory.join(pages_name(self.next)))?;
        self.next += 1;
        let has_parent = self.parent(&name);
        Ok(self.open.insert(OpenImage { owner: record.owner, map, pages, has_parent }))
    }

    fn add(&mut self, record: Record, flags: u32, pages: &mut dyn Read) -> io::Result<()> {
        let entry = record.range().map(|pages| Entry { pages, flags }).ok_or_else(|| unexpected(record))?;
        let open = self.open.as_mut().filter(|open| open.owner == record.owner);
        let open = open.ok_or_else(|| unexpected(record))?;
        open.map.add(entry)?;
        if flags & PRESENT == 0 {
            return Ok(());
        }
        let len = entry.pages.len();
        if io::copy(&mut pages.take(len), &mut open.pages)? == len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl Answering for Taking {
    fn answer(
        &mut self,
        record: Record,
        _: Form,
        pages: &mut dyn Read,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match record.command {
            Command::Open => self.begin(record).map(|_| ()),
            Command::OpenAndSay => {
                let has_parent = self.begin(record)?.has_parent;
                out.write_all(&[u8::from(has_parent)])
            }
            Command::Parent => {
                let name = Self::name(record.owner).ok_or_else(|| unexpected(record))?;
                out.write_all(&i32::from(self.parent(&name)).to_le_bytes())
            }
            Command::AddWithFlags => self.add(record, record.flags, pages),
            Command::Add => self.add(record, PRESENT, pages),
            Command::Hole => self.add(record, IN_PARENT, pages),
            Command::Get | Command::Close => Err(unexpected(record)),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open.take().map_or(Ok(()), |open| open.map.finish())
    }

    fn may_just_end(&self) -> bool {
        false
    }
}

fn unexpected(record: Record) -> io::Error {
    let Record { command, pages, address, owner, .. } = record;
    let text = format!("{command:?} of {pages} pages at {address:#x} of {owner:#x} has no place here");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_come_are_in_the_images() {
        let directory = std::env::temp_dir().join(format!("criu-bridge-taking-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let mut taking = Taking { directory: directory.clone(), next: FIRST_PAGES_ID, open: None };
        let owner = 7 << 8 | PROCESS;
        let open = Record { command: Command::OpenAndSay, flags: 0, pages: 0, address: 0, owner };
        let add = Record { command: Command::AddWithFlags, flags: PRESENT, pages: 2, address: 0x1000, owner };
        let mut said = Vec::new();
        taking.answer(open, Form::Long, &mut io::empty(), &mut said).expect("room");
        assert_eq!(said, [0]);
        assert!(taking.answer(add, Form::Long, &mut [1; 4096].as_slice(), &mut said).is_err());
        taking.answer(open, Form::Long, &mut io::empty(), &mut said).expect("room");
        taking.answer(add, Form::Long, &mut [1; 8192].as_slice(), &mut said).expect("room");
        taking.finish().expect("room");
        let map = crate::images::pagemap(&directory, 7).expect("well formed").expect("it is there");
        assert_eq!((map.pages_id, map.entries.len()), (FIRST_PAGES_ID + 1, 1));
        let pages = std::fs::read(directory.join(pages_name(map.pages_id))).expect("it is there");
        assert_eq!(pages, [1; 8192]);
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn an_owner_of_no_known_kind_gets_no_file() {
        assert_eq!(Taking::name(5 << 8 | SHARED_MEMORY), Some("pagemap-shmem-5.img".to_owned()));
        assert_eq!(Taking::name(5 << 8 | 9), None);
    }
}
