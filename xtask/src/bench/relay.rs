//! A link of our own: a slow and long way between two ports of this machine, as through one router.
//!
//! ```text
//! source ──► port here ──► thread ──┐
//!                                   ├──► the router's queue ──► thread: lets the pieces ──► thread: waits until its pieces
//! source ──► port here ──► thread ──┘    first come, first out  out at the link's rate      have crossed it, writes ──► receiver
//! ```
//!
//! The same back, through a queue of its own. All connections share rate and queue of a direction: an answer to a fault
//! stands behind whatever has been pushed before it. What finds the queue full is not lost but waits in its sender's
//! socket, of which little is taken in advance.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};

/// What an idle link may make up for: waking up late would cost its rate otherwise.
const BURST: Duration = Duration::from_millis(5);
/// How long a piece occupies the link, as far as its size may be chosen.
const PIECE: Duration = Duration::from_micros(500);
/// Bytes of a piece; a small one is a packet of an Ethernet.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 1500..=65_536;
/// Pieces of one connection on their way; more than a link of these delays holds.
const ON_THE_WAY: usize = 4096;
/// Bytes that are taken from a source in advance at least; the kernel doubles that for itself.
const LEAST_TAKEN: usize = 16 << 10;
/// The router's queue is a round trip long, as is usual, or this.
const SHORTEST_QUEUE: Duration = Duration::from_millis(4);

/// What the way is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Bits a second.
    pub(super) rate: u64,
    /// From one end to the other.
    pub(super) delay: Duration,
}

impl Link {
    /// How long so many bytes occupy it.
    pub(super) fn time_of(self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How long what has just been sent stands in the router's full queue.
    pub(super) fn queue(self) -> Duration {
        SHORTEST_QUEUE.max(2 * self.delay)
    }

    /// Pieces that the router's queue holds.
    fn queued_pieces(self) -> usize {
        let piece = self.time_of(self.piece_bytes() as u64).max(Duration::from_micros(1));
        usize::try_from(self.queue().as_nanos() / piece.as_nanos()).unwrap_or(usize::MAX).max(1)
    }

    fn piece_bytes(self) -> usize {
        let bytes = self.rate / 8 * PIECE.subsec_micros() as u64 / 1_000_000;
        usize::try_from(bytes.clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end())).unwrap_or(usize::MAX)
    }
}

/// One direction of the link: who wants to send asks when its bytes have left.
#[derive(Debug)]
struct Turns {
    link: Link,
    free_at: Instant,
}

impl Turns {
    fn new(link: Link, now: Instant) -> Self {
        Self { link, free_at: now }
    }

    /// The moment at which the last of these bytes has left.
    fn take(&mut self, bytes: usize, now: Instant) -> Instant {
        let begin = now.checked_sub(BURST).map_or(self.free_at, |earliest| self.free_at.max(earliest));
        self.free_at = begin + self.link.time_of(bytes as u64);
        self.free_at
    }
}

/// The running relay; ends with its owner.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on a port of its own and connects whoever comes with `port`.
    ///
    /// # Errors
    /// No port, no thread.
    pub(super) fn start(link: Link, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for the relay")?;
        // Connections get it from here; what lies in it has not come to the router yet.
        setsockopt(&listener, sockopt::RcvBuf, &link.piece_bytes().max(LEAST_TAKEN))
            .context("a small buffer")?;
        let address = listener.local_addr().context("the relay's port")?;
        let ended = Arc::new(AtomicBool::new(false));
        let accepting = thread::Builder::new().name("relay".to_owned()).spawn({
            let ended = Arc::clone(&ended);
            move || accept(&listener, link, port, &ended)
        })?;
        Ok(Self { address, ended, accepting: Some(accepting) })
    }

    /// Where to connect to.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Whoever waits for a connection gets one.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, link: Link, port: u16, ended: &AtomicBool) {
    // Without a router nobody is connected.
    let (Ok(there), Ok(back)) = (route(link), route(link)) else { return };
    let mut open = Vec::new();
    for stream in listener.incoming().map_while(Result::ok) {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        // Who cannot be connected is hung up on.
        if let Ok(other) = connect(&stream, port, link, [&there, &back]) {
            open.extend([stream, other]);
        }
    }
    for stream in open {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn connect(
    stream: &TcpStream,
    port: u16,
    link: Link,
    [there, back]: [&SyncSender<Piece>; 2],
) -> io::Result<TcpStream> {
    let other = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    other.set_nodelay(true)?;
    carry(stream, &other, link, there)?;
    carry(&other, stream, link, back)?;
    Ok(other)
}

/// What stands in a router's queue: bytes, and where they leave for.
struct Piece {
    bytes: Vec<u8>,
    out: SyncSender<(Instant, Vec<u8>)>,
}

/// Starts a router for one direction; it ends when nobody can send to it any more.
fn route(link: Link) -> io::Result<SyncSender<Piece>> {
    let (sender, queue) = sync_channel::<Piece>(link.queued_pieces());
    let mut turns = Turns::new(link, Instant::now());
    thread::Builder::new().name("router".to_owned()).spawn(move || {
        for Piece { bytes, out } in queue {
            let left = turns.take(bytes.len(), Instant::now());
            wait_until(left);
            // Who has hung up gets nothing more.
            let _ = out.send((left, bytes));
        }
    })?;
    Ok(sender)
}

/// Carries everything from one socket to the other, through the router, by two threads that end with the connection.
fn carry(from: &TcpStream, to: &TcpStream, link: Link, router: &SyncSender<Piece>) -> io::Result<()> {
    let (from, to, router) = (from.try_clone()?, to.try_clone()?, router.clone());
    let (out, on_the_way) = sync_channel(ON_THE_WAY);
    let name = |name: &str| thread::Builder::new().name(name.to_owned());
    name("relay in").spawn(move || take_in(from, link, &router, &out))?;
    name("relay out").spawn(move || let_out(to, link.delay, &on_the_way))?;
    Ok(())
}

fn take_in(
    mut from: TcpStream,
    link: Link,
    router: &SyncSender<Piece>,
    out: &SyncSender<(Instant, Vec<u8>)>,
) {
    let mut piece = vec![0; link.piece_bytes()];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let bytes = piece.get(..length).unwrap_or_default().to_vec();
        if router.send(Piece { bytes, out: out.clone() }).is_err() {
            break;
        }
    }
}

fn let_out(mut to: TcpStream, delay: Duration, on_the_way: &Receiver<(Instant, Vec<u8>)>) {
    for (left, bytes) in on_the_way {
        wait_until(left + delay);
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn wait_until(moment: Instant) {
    while let Some(rest) = moment.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        thread::park_timeout(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { rate: 8_000_000, delay: Duration::from_millis(20) };

    #[test]
    fn bytes_take_the_time_that_the_rate_gives_them() {
        assert_eq!(LINK.time_of(1_000_000), Duration::from_secs(1));
        let pieces =
            [20_000_000, 1_000_000_000, 100_000_000_000].map(|rate| Link { rate, ..LINK }.piece_bytes());
        assert_eq!(pieces, [1500, 62_500, 65_536]);
    }

    #[test]
    fn who_sends_together_waits_for_one_another_and_an_idle_link_saves_nothing_up() {
        let start = Instant::now();
        let mut turns = Turns::new(LINK, start);
        let later = |ms| start + Duration::from_millis(ms);
        assert_eq!(turns.take(1000, start), later(1));
        assert_eq!(turns.take(1000, start), later(2));
        assert_eq!(turns.take(1000, later(100)), later(96));
    }

    #[test]
    fn the_queue_is_a_round_trip_long() {
        let queues = [20, 0].map(|ms| Link { rate: 20_000_000, delay: Duration::from_millis(ms) });
        assert_eq!(queues.map(Link::queued_pieces), [66, 6]);
    }

    #[test]
    fn who_comes_later_stands_behind_who_was_there_before() {
        let link = Link { rate: 8_000_000, delay: Duration::ZERO };
        let router = route(link).expect("a thread");
        let [(first, one), (second, two)] = [sync_channel(9), sync_channel(9)];
        for (out, length) in [(&first, 20_000), (&second, 1)] {
            router.send(Piece { bytes: vec![0; length], out: out.clone() }).expect("it runs");
        }
        let left = |queue: &Receiver<(Instant, Vec<u8>)>| queue.recv().expect("it lets everything out").0;
        let (before, after) = (left(&one), left(&two));
        assert!(after >= before + link.time_of(1));
    }

    #[test]
    fn what_goes_in_comes_out_later_and_the_answer_too() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let relay = Relay::start(LINK, listener.local_addr().expect("bound").port()).expect("a relay");
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("it listens");
        let begin = Instant::now();
        near.write_all(&[7; 4000]).expect("it is open");
        let (mut far, _) = listener.accept().expect("it connects");
        let mut bytes = [0; 4000];
        far.read_exact(&mut bytes).expect("it carries");
        far.write_all(&bytes).expect("it is open");
        near.read_exact(&mut [0; 4000]).expect("it carries back");
        assert_eq!(bytes, [7; 4000]);
        assert!(begin.elapsed() >= 2 * LINK.delay, "{:?}", begin.elapsed());
    }
}
