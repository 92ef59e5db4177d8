//! The receiving process of a floor.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use memory::{Addr, PAGE_SIZE, PageRange};
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use sys::net::unpace_if_local;
use sys::served_memory::ServedMemory;
use sys::uffd::{CopyOutcome, EventLog, Uffd, UffdEvent};

use super::{BLOCK, PAGE, SILENCE, hurry};
use crate::bench::place::keep_to;

/// Messages of the kernel's that are read in one go.
const EVENTS: usize = 16;
/// Milliseconds after which it is looked whether the reader has ended.
const LOOK: u8 = 20;
/// A touch that takes longer was a fault.
const FAULT: Duration = Duration::from_micros(2);

/// Takes memory: from one connection what comes, from another what it asks for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Receive {
    #[arg(long)]
    mib: u64,
    #[arg(long)]
    push: bool,
    #[arg(long)]
    install: bool,
    #[arg(long)]
    reader: bool,
    #[arg(long)]
    reader_on: Option<usize>,
}

impl Receive {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        unpace_if_local(listener.as_raw_fd(), Ipv4Addr::LOCALHOST.into());
        say(&json!({ "event": "listening", "port": listener.local_addr()?.port() }))?;
        let accept = || listener.accept().map(|(stream, _)| stream).context("accepting");
        let (mut requests, bulk) = (accept()?, accept()?);
        hurry(&requests)?;
        hurry(&bulk)?;
        let memory = Arc::new(ServedMemory::new(self.mib * 256)?);
        let begin = Instant::now();
        requests.write_all(&[1]).context("starting")?;
        if !self.install {
            read_all(bulk, self.mib << 20)?;
            return say(&json!({ "event": "done", "all_ms": ms(begin.elapsed()) }));
        }
        let reader = self.reader.then(|| Reader::start(&memory, self.reader_on)).transpose()?;
        let mut desk = Desk::new(&memory, requests, bulk)?;
        desk.left = if self.push { self.mib << 20 } else { 0 };
        let mut all = None;
        while all.is_none() || reader.as_ref().is_some_and(|reader| !reader.is_done()) {
            if desk.left == 0 && all.is_none() {
                let touched = reader.as_ref().map(Reader::touched);
                all = Some((begin.elapsed(), touched));
                continue;
            }
            desk.work()?;
        }
        let (all, touched) = all.context("it has come")?;
        let faults = reader.map(Reader::end).transpose()?;
        let served = percentiles(std::mem::take(&mut desk.served));
        say(&json!({
            "event": "done", "all_ms": ms(all), "touched": touched, "fault_us": faults, "served_us": served,
        }))
    }
}

/// Who waits for what, and what has come.
struct Desk<'a> {
    range: PageRange,
    uffd: &'a Uffd,
    events: EventLog,
    requests: TcpStream,
    bulk: TcpStream,
    /// Of the block that is on its way.
    block: Vec<u8>,
    filled: usize,
    /// Pages that came without being asked for.
    pushed: u64,
    /// Bytes that are still to come so.
    left: u64,
    asked: BTreeMap<u64, Instant>,
    served: Vec<Duration>,
    /// When something came last.
    heard: Instant,
}

impl<'a> Desk<'a> {
    fn new(memory: &'a ServedMemory, requests: TcpStream, bulk: TcpStream) -> anyhow::Result<Self> {
        bulk.set_nonblocking(true).context("preparing a connection")?;
        let events = EventLog::new(4 * EVENTS).map_err(|errno| anyhow!("room for events: {errno}"))?;
        let (range, uffd) = (memory.range(), memory.uffd());
        let (asked, served) = (BTreeMap::new(), Vec::new());
        Ok(Self {
            range,
            uffd,
            events,
            requests,
            bulk,
            block: vec![0; BLOCK],
            filled: 0,
            pushed: 0,
            left: 0,
            asked,
            served,
            heard: Instant::now(),
        })
    }

    /// Waits for anything and deals with it: who waits comes first.
    fn work(&mut self) -> anyhow::Result<()> {
        let fds = [self.uffd.as_fd(), self.requests.as_fd(), self.bulk.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // The end of the reader is no event, so nobody waits long.
        if poll(&mut fds, LOOK).context("waiting")? == 0 {
            ensure!(self.heard.elapsed() < SILENCE, "nothing comes");
            return Ok(());
        }
        self.heard = Instant::now();
        let [fault, answer, bytes] = fds.map(|fd| fd.any().unwrap_or(false));
        if fault {
            self.ask()?;
        }
        if answer {
            self.take_answer()?;
        }
        if bytes && self.left > 0 {
            self.take_block()?;
        }
        Ok(())
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        for event in self.events.read(0, self.uffd, EVENTS)? {
            if let UffdEvent::Fault { addr, .. } = event {
                let page = (addr.0 - self.range.start().0) / PAGE_SIZE;
                self.asked.insert(page, Instant::now());
                self.requests.write_all(&page.to_ne_bytes()).context("asking for a page")?;
            }
        }
        Ok(())
    }

    fn take_answer(&mut self) -> anyhow::Result<()> {
        let mut message = [0; 8 + PAGE];
        self.requests.read_exact(&mut message).context("reading a page")?;
        let (number, bytes) = message.split_first_chunk().context("a message")?;
        let page = u64::from_ne_bytes(*number);
        install(self.uffd, self.pages(page, 1)?, bytes)?;
        self.served.extend(self.asked.remove(&page).map(|since| since.elapsed()));
        Ok(())
    }

    fn take_block(&mut self) -> anyhow::Result<()> {
        let wanted = self.block.len().min(usize::try_from(self.left).unwrap_or(usize::MAX) + self.filled);
        let room = self.block.get_mut(self.filled..wanted).context("room in the block")?;
        let read = match self.bulk.read(room) {
            Ok(0) => return Err(anyhow!("the other process has ended")),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("receiving"),
        };
        self.filled += read;
        self.left -= read as u64;
        if self.filled < self.block.len() && self.left > 0 {
            return Ok(());
        }
        let at = self.pages(self.pushed, (self.filled / PAGE) as u64)?;
        install(self.uffd, at, self.block.get(..self.filled).context("the block")?)?;
        self.pushed += at.pages();
        self.filled = 0;
        Ok(())
    }

    fn pages(&self, first: u64, count: u64) -> anyhow::Result<PageRange> {
        let start = Addr(self.range.start().0 + first * PAGE_SIZE);
        PageRange::from_pages(start, count).context("pages that there are")
    }
}

/// Fills what is still missing of `at`, and wakes who waits.
pub(super) fn install(uffd: &Uffd, at: PageRange, mut bytes: &[u8]) -> anyhow::Result<()> {
    let mut rest = at;
    while !rest.is_empty() {
        let done = match uffd.copy(rest, bytes)? {
            CopyOutcome::Copied(pages) => pages,
            CopyOutcome::AlreadyPresent => {
                uffd.wake(rest.split_at_pages(1).0)?;
                1
            }
            CopyOutcome::Retry => 0,
            other => return Err(anyhow!("installing {rest}: {other:?}")),
        };
        rest = rest.split_at_pages(done).1;
        bytes = bytes.get(usize::try_from(done)? * PAGE..).unwrap_or_default();
    }
    Ok(())
}

/// A thread that touches every page once, in an order that nobody can guess.
struct Reader {
    touched: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Reader {
    fn start(memory: &Arc<ServedMemory>, processor: Option<usize>) -> anyhow::Result<Self> {
        let (touched, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::Builder::new().name("reader".to_owned()).spawn({
            let (memory, touched, done) = (Arc::clone(memory), Arc::clone(&touched), Arc::clone(&done));
            move || {
                processor.map_or(Ok(()), keep_to)?;
                let faults = touch_all(&memory, &touched);
                done.store(true, Ordering::SeqCst);
                Ok(faults)
            }
        })?;
        Ok(Self { touched, done, thread })
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    fn touched(&self) -> u64 {
        self.touched.load(Ordering::SeqCst)
    }

    fn end(self) -> anyhow::Result<Value> {
        let faults = self.thread.join().map_err(|_| anyhow!("the reader has panicked"))??;
        Ok(percentiles(faults))
    }
}

/// How long each touch took that was a fault.
fn touch_all(memory: &ServedMemory, touched: &AtomicU64) -> Vec<Duration> {
    let pages = memory.range().pages();
    let mut faults = Vec::new();
    let mut before = Instant::now();
    for page in scattered(pages) {
        std::hint::black_box(memory.touch(page));
        let now = Instant::now();
        faults.extend(Some(now - before).filter(|time| *time > FAULT));
        before = now;
        touched.fetch_add(1, Ordering::Relaxed);
    }
    faults
}

/// Every number below `count` once: a full cycle of a linear congruence, of which no step is like the one before.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    let modulus = count.next_power_of_two();
    // The multiplier is 1 modulo 4 and the increment odd, so that the cycle is full (Hull and Dobell).
    let next =
        move |number: &u64| Some(number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405) % modulus);
    let numbers = std::iter::successors(Some(0), next).take(usize::try_from(modulus).unwrap_or(usize::MAX));
    // The low bits of a congruence repeat soon: they are what is high here.
    let bits = modulus.trailing_zeros();
    numbers
        .map(move |number| if bits == 0 { 0 } else { number.reverse_bits() >> (64 - bits) })
        .filter(move |number| *number < count)
}

fn read_all(mut bulk: TcpStream, bytes: u64) -> anyhow::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let read = bulk.read(&mut buffer).context("receiving")?;
        ensure!(read > 0, "the other process has ended");
        left -= read as u64;
    }
    Ok(())
}

fn percentiles(mut times: Vec<Duration>) -> Value {
    times.sort();
    let us = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    json!({ "count": times.len(), "p50": us(50), "p99": us(99), "max": us(100) })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn say(event: &Value) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{event}").context("saying how it went")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_touched_once_and_not_one_after_the_other() {
        for count in [1, 2, 1000, 4096] {
            let order: Vec<u64> = scattered(count).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            let steps = order.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
            assert!(count < 1000 || steps < 20, "{steps} of {count} steps lead to the next page");
        }
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let found = percentiles(times);
        let us = |name: &str| found[name].as_f64().unwrap().round();
        assert_eq!((us("p50"), us("p99"), us("max")), (100.0, 198.0, 200.0));
    }
}
