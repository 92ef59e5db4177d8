//! CRIU as a worker of this process: started for one request, asked over a socket pair (`criu swrk`), never linked.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair};
use prost::Message;

use crate::complaint;
use crate::config::{ANSWER_BYTES, CRIU_FAREWELL, QUESTION_DEADLINE};
use crate::criu::Criu;
use crate::members;
use crate::rpc::{Kind, Options, Request, Response};

/// Why CRIU did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwrkError {
    /// It could not be started or talked to.
    #[error("talking to criu: {0}")]
    Io(#[from] io::Error),
    /// It has ended without an answer.
    #[error("criu has ended without an answer")]
    Ended,
    /// It did not answer in time.
    #[error("criu did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// What it said is no answer.
    #[error("criu's answer cannot be read: {0}")]
    Garbled(#[from] prost::DecodeError),
    /// It says no.
    #[error("criu cannot {what}: {why}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its first error, in its own words.
        why: String,
    },
}

/// A CRIU that waits for a request, or for leave to go on with one.
#[derive(Debug)]
pub(crate) struct Swrk {
    /// It, or whoever has started it in other namespaces and ends with it; none if it is somebody else's.
    child: Option<Child>,
    /// It, once that is known.
    process: Option<OwnedFd>,
    is_wrapped: bool,
    socket: OwnedFd,
    what: &'static str,
    /// Where it writes what happens.
    log: PathBuf,
}

/// What a CRIU says while it works.
#[derive(Debug)]
pub(crate) enum Word {
    /// It has got to this point, in CRIU's words, and waits for [`Swrk::go_on`].
    Waits(String),
    /// It is done.
    Done(Box<Response>),
}

impl Swrk {
    /// Starts `criu`, behind `wrapper` if that names a command that runs another one.
    pub(crate) fn start(criu: &Criu, wrapper: &[String]) -> Result<Self, SwrkError> {
        Self::start_with(criu, wrapper, Stdio::null())
    }

    fn start_with(criu: &Criu, wrapper: &[String], stdin: Stdio) -> Result<Self, SwrkError> {
        let (child, socket) = spawn(criu, wrapper, stdin)?;
        let is_wrapped = !wrapper.is_empty();
        Ok(Self {
            child: Some(child),
            process: None,
            is_wrapped,
            socket,
            what: "answer",
            log: PathBuf::new(),
        })
    }

    /// One that somebody else has started, on `socket`.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self { child: None, process: None, is_wrapped: false, socket, what: "answer", log: PathBuf::new() }
    }

    /// Lets another process start it: returns this side's socket.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn begin(criu: &Criu) -> io::Result<OwnedFd> {
        let (child, socket) = spawn(criu, &[], Stdio::inherit())?;
        // Whoever is called here reaps it.
        drop(child);
        Ok(socket)
    }

    /// Starts `criu` on a request; `log` is where the options have it write.
    pub(crate) fn ask(
        criu: &Criu,
        wrapper: &[String],
        kind: Kind,
        (options, log): (Options, PathBuf),
    ) -> Result<Self, SwrkError> {
        // What is restored may get this process's terminal; what is dumped has its own.
        let stdin = if kind == Kind::Restore { Stdio::inherit() } else { Stdio::null() };
        let mut worker = Self::start_with(criu, wrapper, stdin)?;
        worker.request(kind, (options, log))?;
        Ok(worker)
    }

    /// Has it begin with a request; `log` is where the options have it write.
    pub(crate) fn request(
        &mut self,
        kind: Kind,
        (options, log): (Options, PathBuf),
    ) -> Result<(), SwrkError> {
        self.log = log;
        self.what = match kind {
            Kind::Dump => "dump this process",
            Kind::Restore => "restore these images",
            Kind::Empty | Kind::Notify | Kind::Version => "answer",
        };
        self.send(&Request { kind: kind.into(), options: Some(options), ..Request::default() })
    }

    /// The next thing that it says, its refusal as an error; `None` when nothing came within `patience`.
    pub(crate) fn hear(&self, patience: Duration) -> Result<Option<Word>, SwrkError> {
        if !self.is_readable(patience)? {
            return Ok(None);
        }
        let mut buffer = vec![0; ANSWER_BYTES];
        let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).map_err(io)?;
        if len == 0 {
            return Err(SwrkError::Ended);
        }
        let response = Response::decode(buffer.get(..len).unwrap_or_default())?;
        if response.kind == i32::from(Kind::Notify) {
            let script = response.notify.and_then(|notify| notify.script);
            return Ok(Some(Word::Waits(script.unwrap_or_default())));
        }
        if response.success { Ok(Some(Word::Done(Box::new(response)))) } else { Err(self.refusal(&response)) }
    }

    /// Lets it go on from where it waits, or has it give up.
    pub(crate) fn go_on(&self, success: bool) -> Result<(), SwrkError> {
        let notify_success = Some(success);
        self.send(&Request { kind: Kind::Notify.into(), notify_success, ..Request::default() })
    }

    /// Lets it go on wherever it waits until it is done.
    pub(crate) fn finish(&self, deadline: Duration) -> Result<Response, SwrkError> {
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.hear(left)? {
                None => return Err(SwrkError::Deadline(deadline)),
                Some(Word::Waits(_)) => self.go_on(true)?,
                Some(Word::Done(response)) => return Ok(*response),
            }
        }
    }

    /// Readable when there is something to [`hear`](Self::hear).
    pub(crate) fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Looks which process it is: right when it has said something.
    pub(crate) fn identify(&mut self) -> io::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let found = if self.is_wrapped { members::children_of(child.id())?.pop() } else { Some(child.id()) };
        self.process = Some(sys::pidfd::open(found.ok_or(io::ErrorKind::NotFound)?)?);
        Ok(())
    }

    /// Readable when it has ended, once it is known which process it is.
    pub(crate) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Whether it is known to be there still.
    pub(crate) fn is_alive(&self) -> bool {
        let has_ended = |process: &OwnedFd| {
            poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
        };
        self.process.as_ref().is_some_and(|process| !has_ended(process))
    }

    /// Ends it where it is: it changes nothing more.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // One that has ended already is as dead.
            let killed = self.process.as_ref().map(|process| sys::pidfd::kill(process.as_fd()));
            if killed.is_none() {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }

    /// What it has complained of so far, as its refusal.
    pub(crate) fn complaint(&self) -> SwrkError {
        self.refusal(&Response::default())
    }

    fn refusal(&self, response: &Response) -> SwrkError {
        let errno = response.errno.filter(|errno| *errno != 0);
        let why = complaint::of_log(&self.log, response.message.as_deref());
        let why = why.or_else(|| errno.map(|errno| nix::errno::Errno::from_raw(errno).desc().to_owned()));
        SwrkError::Refused { what: self.what, why: why.unwrap_or_else(|| "it does not say why".to_owned()) }
    }

    fn send(&self, request: &Request) -> Result<(), SwrkError> {
        let bytes = request.encode_to_vec();
        let parts = [IoSlice::new(&bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, &[], flags, None)
            .map(|_| ())
            .map_err(|error| io(error).into())
    }

    fn is_readable(&self, patience: Duration) -> Result<bool, SwrkError> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], left) {
                Ok(ready) => return Ok(ready > 0),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(io(error).into()),
            }
        }
    }
}

impl Drop for Swrk {
    /// A worker that still works gives up by itself when its socket closes; one that does not is killed.
    fn drop(&mut self) {
        // Both directions, so that it hears of it although the descriptor is still open here.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let patience = PollTimeout::try_from(CRIU_FAREWELL).unwrap_or(PollTimeout::MAX);
        let Some(child) = &mut self.child else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Ok(pidfd) = sys::pidfd::open(child.id()) {
            let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], patience);
        }
        if matches!(child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Starts `criu` behind `wrapper`; the socket is the one that it answers on.
fn spawn(criu: &Criu, wrapper: &[String], stdin: Stdio) -> io::Result<(Child, OwnedFd)> {
    let kind = SockType::SeqPacket;
    let (ours, its) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(its.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut words = wrapper.iter().map(String::as_str);
    let mut command = Command::new(words.next().map_or(criu.path().as_os_str(), AsRef::as_ref));
    command.args(words);
    if !wrapper.is_empty() {
        command.arg(criu.path());
    }
    command.arg("swrk").arg(its.as_raw_fd().to_string()).stdin(stdin);
    // The terminal's Ctrl-C is not for it: it would leave a stopped tree as it is.
    Ok((command.process_group(0).spawn()?, ours))
}

/// Its version, in numbers.
pub(crate) fn version(criu: &Criu) -> Result<(i32, i32), SwrkError> {
    let worker = Swrk::start(criu, &[])?;
    worker.send(&Request { kind: Kind::Version.into(), ..Request::default() })?;
    let version = worker.finish(QUESTION_DEADLINE)?.version.unwrap_or_default();
    Ok((version.major, version.minor))
}

fn io(errno: nix::errno::Errno) -> io::Error {
    errno.into()
}
