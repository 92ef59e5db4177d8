//! `lazy-pages`: serves the missing memory of a tree that `criu restore --lazy-pages` rebuilds, in the place of `criu
//! lazy-pages` and with its options.
//!
//! Both loops of a migration run here, over socket pairs: the page server reads images, or asks CRIU's page server for
//! pages; the fault handler has the userfaultfds that CRIU hands over.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use engine::{Config, Failure};
use fault_handler::{Ended, FaultHandler, Measurement, Outcome, Resumption};
use memory::PageRange;
use page_server::{Channels, Serving, serve};
use protocol::Manifest;
use sys::uffd::Uffd;

use crate::background::Background;
use crate::client::Client;
use crate::config::{LOOPBACK_BYTES, RESTORE_DEADLINE};
use crate::criu::Criu;
use crate::handover::Handover;
use crate::instance::Instance;
use crate::local_pages::{self, LocalPages};
use crate::served::{Line, Rebuilder, Served};
use crate::source::{Origin, Tree, front};
use crate::swrk;
use crate::wire::Form;

/// `criu-bridge lazy-pages`
#[derive(Args, Debug)]
pub(crate) struct LazyPages {
    /// Directory of the images
    #[arg(long, short = 'D', default_value = ".", value_name = "DIR")]
    images_dir: PathBuf,
    /// Directory of the socket on which criu restore hands over memory; that of the images unless given
    #[arg(long, short = 'W', value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Get pages from a page server instead of the images
    #[arg(long)]
    page_server: bool,
    /// Address of the page server
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Port of the page server
    #[arg(long, required_if_eq("page_server", "true"))]
    port: Option<u16>,
    /// Write a zero byte to this descriptor when ready
    #[arg(long, value_name = "FD")]
    status_fd: Option<u16>,
    #[command(flatten)]
    background: Background,
}

impl LazyPages {
    /// Serves until every page is in place.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn run(&self, criu: Option<&Criu>) -> anyhow::Result<u8> {
        let directory = self.work_dir.as_ref().unwrap_or(&self.images_dir);
        if let Some(status) = self.background.leave(directory)? {
            return Ok(status);
        }
        let status = self.status_fd.map(sys::inherited::claim).transpose();
        let status = status.map_err(|errno| anyhow!("descriptor of --status-fd: {errno}"))?;
        let instance = local_pages::instance(&self.images_dir)?;
        let pages = self.pages(&instance, criu)?;
        let listening = || format!("listening in '{}'", directory.display());
        let mut handover = Handover::listen(directory).with_context(listening)?;
        self.background.stay()?;
        if let Some(status) = status {
            std::fs::File::from(status).write_all(&[0]).context("writing to --status-fd")?;
        }
        handover.wait().with_context(listening)?;
        let (source, destination) = loopback().context("connecting both loops")?;
        let origin = Images { instance: instance.clone(), pages };
        let server = thread::Builder::new().name("page-server".to_owned());
        let server = server.spawn(move || serve_images(origin, source)).context("starting a thread")?;
        let mut served = Served::new(Restore { told: false }, handover);
        let handler =
            FaultHandler::new(&mut served, destination, config()).context("preparing to serve memory")?;
        let ended = handler.run();
        let origin = server.join().map_err(|_| anyhow!("the thread that reads pages has failed"))?;
        conclude(ended.map_err(|error| anyhow!(error.in_full())), origin.pages)
    }

    fn pages(&self, instance: &Instance, criu: Option<&Criu>) -> anyhow::Result<Pages> {
        match self.port.filter(|_| self.page_server) {
            None => Ok(Pages::Local(LocalPages::open(&self.images_dir, instance)?)),
            Some(port) => {
                // The server does not say what it speaks; most likely it is of the same version as the criu here.
                let version = criu.and_then(|criu| swrk::version(criu).ok());
                let form = version.map_or(Form::Long, Form::of_version);
                let client = Client::connect(&self.address, port, form);
                let client = client.with_context(|| format!("connecting to {}:{port}", self.address))?;
                Ok(Pages::Remote(Some(client)))
            }
        }
    }
}

/// Where pages come from.
#[derive(Debug)]
enum Pages {
    Local(LocalPages),
    /// Nobody once it has failed.
    Remote(Option<Client>),
}

/// A tree that lies in images.
#[derive(Debug)]
struct Images {
    instance: Instance,
    pages: Pages,
}

impl Origin for Images {
    fn stop(&mut self) -> Result<Instance, Failure> {
        Ok(self.instance.clone())
    }

    fn commit(&mut self) {}

    fn read_memory<'a>(&'a mut self, index: usize, at: PageRange, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match &mut self.pages {
            Pages::Local(pages) => {
                let pages = pages.read(index, at, buffer)?;
                front(buffer, pages)
            }
            Pages::Remote(client) => {
                let task = self.instance.tasks.get(index)?;
                let around = task.lazy.iter().find(|run| run.contains(at.start()))?;
                if let Err(error) = client.as_mut()?.fetch(task.pid, at, *around) {
                    crate::complain(&anyhow!("asking for pages: {error}"));
                    *client = None;
                }
                client.as_mut()?.lend(task.pid, at)
            }
        }
    }

    fn read_file(&mut self, _index: usize, _offset: u64, _buffer: &mut [u8]) -> Option<()> {
        None
    }

    fn reconnect(&mut self, _attempt: u32) -> Result<Channels, Failure> {
        Err(Failure::Peer("both loops are one process".to_owned()))
    }

    fn release(&mut self) {}
}

/// A tree that somebody else has CRIU restore.
#[derive(Debug)]
struct Restore {
    told: bool,
}

impl Rebuilder for Restore {
    fn reserve(&mut self, _instance: &Instance) -> Result<(), Failure> {
        Ok(())
    }

    fn prepare(&mut self, _instance: &Instance) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, _index: usize, _offset: u64, _bytes: &[u8]) -> Result<(), Failure> {
        Err(Failure::Protocol("an image that nobody asked for"))
    }

    fn begin(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn progress(&mut self, line: Line) -> Option<Result<(), Failure>> {
        if line == Line::Open || std::mem::replace(&mut self.told, true) {
            return None;
        }
        let text = "criu has ended before everything was restored";
        Some(if line == Line::Finished { Ok(()) } else { Err(Failure::Local(text.to_owned())) })
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        Ok(Resumption::Done(0))
    }

    fn process_here(&mut self, _pid: u32) -> Option<u32> {
        None
    }

    fn hold(&mut self, _uffd: &Uffd) -> Result<(), Failure> {
        Ok(())
    }

    fn finished(&mut self) {}

    fn discard(&mut self) {}

    fn measured(&mut self, _measurement: Measurement) {}
}

fn config() -> Config {
    let patience = RESTORE_DEADLINE;
    Config {
        setup_deadline: patience,
        switchover_deadline: patience,
        silence_deadline: patience,
        ..Config::default()
    }
}

fn serve_images(origin: Images, channels: Channels) -> Images {
    // One that is too large for a message is refused when it is to be sent in earnest.
    let running = Arc::new(origin.instance.manifest().unwrap_or_else(Manifest::empty));
    let mut tree = Tree::new(origin);
    let started = engine::Instant(sys::clock::monotonic_ns());
    serve(&mut tree, Serving { channels, running, config: config(), started });
    tree.origin
}

/// Three socket pairs.
fn loopback() -> std::io::Result<(Channels, fault_handler::Channels)> {
    let pair = || -> std::io::Result<(sys::Fd, mio::net::TcpStream)> {
        let (near, far) = UnixStream::pair()?;
        for end in [&near, &far] {
            end.set_nonblocking(true)?;
            nix::sys::socket::setsockopt(end, nix::sys::socket::sockopt::SndBuf, &LOOPBACK_BYTES)?;
        }
        let far = mio::net::TcpStream::from_std(TcpStream::from(OwnedFd::from(far)));
        Ok((OwnedFd::from(near).into(), far))
    };
    let [(a, control), (b, fault), (c, push)] = [pair()?, pair()?, pair()?];
    Ok((Channels::over([a, b, c]), fault_handler::Channels::new(control, fault, push)))
}

/// Says how it went, to people and to whoever has the pages.
fn conclude(ended: anyhow::Result<Ended>, pages: Pages) -> anyhow::Result<u8> {
    let client = match pages {
        Pages::Local(_) | Pages::Remote(None) => None,
        Pages::Remote(client) => client,
    };
    let ended = match ended {
        Ok(Ended { outcome: Outcome::Discarded(failure), .. }) => Err(anyhow!("{failure}")),
        other => other,
    };
    let ended = match (ended, client) {
        (Err(error), client) => {
            client.into_iter().for_each(Client::give_back);
            return Err(error);
        }
        (Ok(ended), client) => {
            // The tree runs here, whatever else has happened: never there too.
            client.map(Client::close).transpose().context("saying that all pages have come")?;
            ended
        }
    };
    let report = ended.engine.report();
    let latency = &report.fault_latency;
    crate::tell(format_args!(
        "{} pages in {} ms, {} of them for {} faults; a fault took {} us (p50), {} us (p99)",
        report.pages.data + report.pages.zero,
        report.phases.postcopy.as_millis(),
        report.pages.fault,
        report.events.faults,
        latency.p50_us(),
        latency.p99_us(),
    ));
    match ended.outcome {
        Outcome::Completed(None) if report.lost.pages == 0 => Ok(0),
        Outcome::Completed(None) => {
            bail!("{} pages are lost: touching one ends in SIGBUS", report.lost.pages)
        }
        Outcome::Completed(Some(failure)) | Outcome::Killed(failure) | Outcome::Discarded(failure) => {
            bail!("{failure}")
        }
    }
}
