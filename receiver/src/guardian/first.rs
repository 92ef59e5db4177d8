//! The guardian's own process: the first of its namespaces.

use std::ffi::OsStr;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use memory::Addr;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, getegid, geteuid, setpgid, setsid, unlinkat};
use protocol::ProcessRecord;
use sys::birth::{self, Birth, BirthError, Child, Kind, Reaped};
use sys::uffd::Uffd;

use super::message::{Order, Word};
use super::{pid_behind, receive};
use crate::peer;
use crate::restorer::trampoline;

/// By which ids a process is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its id in its own PID namespace.
    pub pid: u32,
    /// The session that it is in there.
    pub session: u32,
    /// And the process group.
    pub group: u32,
    /// It has the same in the receiver's PID namespace, and so have its threads.
    pub outside_too: bool,
}

/// The namespaces of a process, besides those that every one gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces<'a> {
    /// Whether all of them belong to a user namespace of its own: who is not root gets no others.
    pub user: bool,
    /// Whether it has System V objects of its own.
    pub ipc: bool,
    /// Whether it has pseudo-terminals of its own, with numbers that are its own.
    pub terminals: bool,
    /// What its clocks are ahead by, if they shall not be the machine's.
    pub clocks: Option<&'a str>,
}

/// What a blank child is started with.
#[derive(Clone, Copy, Debug)]
pub struct Blank<'a> {
    /// What of the world is its own.
    pub namespaces: Namespaces<'a>,
    /// The ids that it shall have.
    pub identity: Identity,
    /// The memory of the hole: interpreter and first program are in it.
    pub memory: BorrowedFd<'a>,
    /// The child's end of the control socket.
    pub control: BorrowedFd<'a>,
    /// The number that the control socket shall have in the child.
    pub control_number: u32,
    /// Where the hole is.
    pub hole: Addr,
    /// Its length in bytes.
    pub hole_len: u64,
    /// The first operation.
    pub first: Addr,
}

impl Identity {
    /// That of `process`. One whose session or group has its leader outside of its namespace becomes its own leader.
    #[must_use]
    pub fn of(process: &ProcessRecord, outside_too: bool) -> Self {
        let pid = process.pid;
        let [session, group] = match process.session_and_group {
            [0, _] | [_, 0] => [pid; 2],
            ids => ids,
        };
        Self { pid, session, group, outside_too }
    }

    /// Has the calling process, which is in the session already unless it is to lead it, join session and group.
    fn join(self) -> bool {
        if self.session == self.pid {
            return setsid().is_ok();
        }
        let group = if self.group == self.pid { 0 } else { self.group.cast_signed() };
        self.group == self.session || setpgid(Pid::from_raw(0), Pid::from_raw(group)).is_ok()
    }

    const fn kind(self) -> Kind {
        if self.outside_too { Kind::WithIdInBoth(self.pid) } else { Kind::WithId(self.pid) }
    }
}

/// Who this process is, as its user namespace has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    user: Uid,
    group: Gid,
}

impl Ids {
    /// The caller's own.
    pub(super) fn own() -> Self {
        Self { user: geteuid(), group: getegid() }
    }
}

/// Lives as the first process of the new namespaces, and never returns. `ids` are those of its parent.
pub(super) fn run(socket: &OwnedFd, blank: &Blank<'_>, ids: Ids, making: &OsStr) -> ! {
    // Out of the terminal's process group: Ctrl-C is for the receiver.
    let _ = setsid();
    sys::thread::set_name(c"guardian");
    let code = match serve(socket, blank, ids, making) {
        Ok(()) => 0,
        Err(word) => {
            say(socket, word, &[]);
            1
        }
    };
    sys::thread::exit_process(code)
}

/// Lives as the first process of namespaces in which somebody else builds the processes, and never returns.
pub(super) fn run_over(
    socket: &OwnedFd,
    terminals: bool,
    kept: &[BorrowedFd<'_>],
    begin: &dyn Fn() -> std::io::Result<OwnedFd>,
    making: &OsStr,
) -> ! {
    let _ = setsid();
    sys::thread::set_name(c"guardian");
    let code = match watch_over(socket, terminals, kept, begin, making) {
        Ok(()) => 0,
        Err(word) => {
            say(socket, word, &[]);
            1
        }
    };
    sys::thread::exit_process(code)
}

fn watch_over(
    socket: &OwnedFd,
    terminals: bool,
    kept: &[BorrowedFd<'_>],
    begin: &dyn Fn() -> std::io::Result<OwnedFd>,
    making: &OsStr,
) -> Result<(), Word> {
    let kept: Vec<_> = kept.iter().copied().chain([socket.as_fd()]).collect();
    birth::close_all_but(&kept).map_err(|errno| Word::NoChild(errno.0))?;
    mount_proc().map_err(|errno| Word::NoProc(errno as i32))?;
    if terminals {
        mount_terminals().map_err(|errno| Word::NoTerminals(errno as i32))?;
    }
    // Before signals are blocked: what is started inherits that.
    let begun = begin().map_err(|error| Word::NoChild(error.raw_os_error().unwrap_or(0)))?;
    let deaths = deaths().map_err(|errno| Word::NoChild(errno as i32))?;
    say(socket, Word::Ready, &[begun.as_raw_fd()]);
    drop(begun);
    watch(socket, &deaths, NOBODY, making);
    Ok(())
}

/// Makes the process that keeps what this one holds for as long as it takes the kernel to kill the namespace: a process
/// that dies closes its descriptors before its namespace is killed (`do_exit`), and with the last userfaultfd what is
/// missing would turn into zeros. It has the highest id that is free: the kernel kills in the order of the ids.
fn make_keeper() -> Option<Child> {
    const LIMIT: &str = "/proc/sys/kernel/pid_max";
    const ATTEMPTS: u32 = 16;
    let limit: u32 = fs::read_to_string(LIMIT).ok()?.trim().parse().ok()?;
    for id in (limit.saturating_sub(ATTEMPTS)..limit).rev() {
        match birth::birth(Kind::Keeper(id)) {
            Ok(Birth::Child) => {
                let _ = birth::block_all_signals();
                let _ = be_called(b"keeper");
                wait_for_the_end();
            }
            Ok(Birth::Parent(keeper)) => return Some(keeper),
            Err(BirthError::Clone(errno)) if errno == sys::Errno::EEXIST => {}
            Err(_) => return None,
        }
    }
    None
}

/// Gives this process a command line of its own, and a name: `pkill -f receiver` is to find who can be spared.
fn be_called(name: &[u8]) -> std::io::Result<()> {
    let fields = sys::proc::stat::own().map_err(|_| Errno::EINVAL)?;
    let mut words = vec![0; usize::try_from(fields.arg_end.saturating_sub(fields.arg_start)).unwrap_or(0)];
    words.iter_mut().zip(name).for_each(|(byte, letter)| *byte = *letter);
    fs::File::options().write(true).open("/proc/self/mem")?.write_all_at(&words, fields.arg_start)?;
    sys::thread::set_name(c"keeper");
    Ok(())
}

/// Tells of children that have ended.
fn deaths() -> Result<SignalFd, Errno> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn serve(socket: &OwnedFd, blank: &Blank<'_>, ids: Ids, making: &OsStr) -> Result<(), Word> {
    let no_child = |errno: Errno| Word::NoChild(errno as i32);
    birth::close_all_but(&[socket.as_fd(), blank.memory, blank.control])
        .map_err(|errno| Word::NoChild(errno.0))?;
    if blank.namespaces.user {
        map_ids(ids).map_err(|error| Word::NoChild(error.raw_os_error().unwrap_or(0)))?;
    }
    mount_proc().map_err(|errno| Word::NoProc(errno as i32))?;
    if blank.namespaces.terminals {
        mount_terminals().map_err(|errno| Word::NoTerminals(errno as i32))?;
    }
    if blank.namespaces.ipc {
        birth::new_ipc_namespace().map_err(|errno| Word::NoChild(errno.0))?;
    }
    if let Some(offsets) = blank.namespaces.clocks {
        // Without the right to do so the clocks stay those of this machine, which the session sees and says.
        let _ = birth::new_time_namespace(offsets);
    }
    let deaths = deaths().map_err(no_child)?;
    let Identity { pid, session, .. } = blank.identity;
    if session == pid || session == OWN {
        start(socket, blank, false)?;
    } else if let Birth::Child = birth::birth(Kind::WithId(session)).map_err(no_process)? {
        lead(socket, blank);
    }
    let _ = birth::close_all_but(&[socket.as_fd(), deaths.as_fd()]);
    watch(socket, &deaths, pid.cast_signed(), making);
    Ok(())
}

/// The session that this process leads, as the first of its PID namespace.
const OWN: u32 = 1;
/// Userfaultfds that are held before it is looked for those that can go.
const HELD_AT_FIRST: usize = 64;

/// Lives as the leader of the session that the child is to be in, and ends when the child is there.
fn lead(socket: &OwnedFd, blank: &Blank<'_>) -> ! {
    let led = setsid().map_err(|errno| Word::NoChild(errno as i32)).and_then(|_| start(socket, blank, true));
    if let Err(word) = led {
        say(socket, word, &[]);
    }
    sys::thread::exit_process(0)
}

/// Starts the child, in the session that this process leads unless it is to lead its own, and presents it. For a process
/// group that is neither there is a leader for a moment.
fn start(socket: &OwnedFd, blank: &Blank<'_>, beside: bool) -> Result<(), Word> {
    let Identity { pid, session, group, .. } = blank.identity;
    let mut leader = None;
    if session != pid && group != pid && group != session {
        match birth::birth(Kind::WithId(group)).map_err(no_process)? {
            Birth::Child => wait_for_the_end(),
            Birth::Parent(child) => {
                let of = Pid::from_raw(child.pid);
                setpgid(of, of).map_err(|errno| Word::NoChild(errno as i32))?;
                leader = Some(of);
            }
        }
    }
    let born = if beside { birth::birth_beside } else { birth::birth };
    match born(blank.identity.kind()).map_err(no_process)? {
        Birth::Child => become_blank(blank, leader),
        Birth::Parent(child) => say(socket, Word::Ready, &[child.pidfd.as_raw_fd()]),
    }
    Ok(())
}

/// Lives until it is killed.
fn wait_for_the_end() -> ! {
    loop {
        nix::unistd::pause();
    }
}

fn no_process(error: BirthError) -> Word {
    match error {
        BirthError::Clone(errno) | BirthError::Count(errno) => Word::NoChild(errno.0),
        BirthError::Threads(_) => Word::NoChild(Errno::EBUSY as i32),
    }
}

/// Gives this process, in its new user namespace, the ids that it had before (user_namespaces(7)). Its supplementary
/// groups go on to count, and are shown as the overflow group.
fn map_ids(Ids { user, group }: Ids) -> std::io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// A `/proc` that shows the new PID namespace, seen from the new mount namespace only.
fn mount_proc() -> Result<(), Errno> {
    const NONE: Option<&str> = None;
    // Slave, not private: what is mounted on this machine later shall still appear in the program's world.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE)
}

/// A `/dev/pts` with no terminal in it yet.
fn mount_terminals() -> Result<(), Errno> {
    /// Group 5 is `tty` where terminals are a group's; a user namespace does not have it.
    const OPTIONS: [&str; 2] =
        ["newinstance,gid=5,mode=620,ptmxmode=666", "newinstance,mode=620,ptmxmode=666"];
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mounted = |options| mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some(options));
    OPTIONS.into_iter().map(mounted).find(Result::is_ok).unwrap_or_else(|| mounted(OPTIONS[1]))?;
    // In a container it is one file system's, and leads to that one's terminals wherever it is opened.
    let device = |path| fs::metadata(path).ok().map(|data: fs::Metadata| data.dev());
    let is_bound = fs::symlink_metadata(MULTIPLEXER).is_ok_and(|data| !data.is_symlink())
        && device(MULTIPLEXER) != device("/dev");
    match is_bound {
        true => mount(Some("/dev/pts/ptmx"), MULTIPLEXER, None::<&str>, MsFlags::MS_BIND, None::<&str>),
        false => Ok(()),
    }
}

/// Where new pseudo-terminals come from.
const MULTIPLEXER: &str = "/dev/ptmx";

/// The child's way from a copy of the session to a blank: nothing of it returns.
fn become_blank(blank: &Blank<'_>, leader: Option<Pid>) -> ! {
    let joined = blank.identity.join();
    if let Some(leader) = leader {
        let _ = kill(leader, Signal::SIGKILL);
    }
    if !joined {
        sys::thread::exit_process(124);
    }
    let _ = birth::block_all_signals();
    let number = i32::try_from(blank.control_number).unwrap_or(i32::MAX);
    let Ok(control) = nix::fcntl::fcntl(blank.control, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(number)) else {
        sys::thread::exit_process(125)
    };
    if control != number {
        sys::thread::exit_process(125);
    }
    if let Ok(control) = sys::fd::received(control) {
        let _ = birth::close_all_but(&[blank.memory, control.as_fd()]);
        let _ = trampoline::enter(blank.memory, blank.hole, blank.hole_len, blank.first);
    }
    sys::thread::exit_process(126)
}

/// The id of no process.
const NOBODY: i32 = 0;

/// What the watch knows.
struct Watch<'a> {
    /// Whose end is told.
    child: i32,
    /// Who goes on holding what is held when this process dies; none when nothing is missing any more.
    keeper: Option<Child>,
    held: Vec<Uffd>,
    /// When so many are held, those of memory that is gone are let go.
    held_at_most: usize,
    made: Vec<OwnedFd>,
    /// Where something is being made, under this name.
    making: (Option<OwnedFd>, &'a OsStr),
    complete: bool,
    listening: bool,
}

/// Reaps and obeys until no process is left, and nothing that somebody may yet have to delete.
fn watch(socket: &OwnedFd, deaths: &SignalFd, child: i32, making: &OsStr) {
    let mut state = Watch {
        child,
        keeper: make_keeper(),
        held: Vec::new(),
        held_at_most: HELD_AT_FIRST,
        made: Vec::new(),
        making: (None, making),
        complete: false,
        listening: true,
    };
    while reap(socket, state.child) || state.is_needed() {
        let mut interests = vec![
            PollFd::new(deaths.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        if !state.listening {
            interests.truncate(1);
        }
        interests
            .extend(state.keeper.as_ref().map(|keeper| PollFd::new(keeper.pidfd.as_fd(), PollFlags::POLLIN)));
        if poll(&mut interests, PollTimeout::NONE).is_err() {
            continue;
        }
        let has_event = |interest: &PollFd<'_>| interest.any().unwrap_or(true);
        let ordered = state.listening && interests.get(1).is_some_and(has_event);
        let is_keeper_gone = state.keeper.is_some() && interests.last().is_some_and(has_event);
        while let Ok(Some(_)) = deaths.read_signal() {}
        if ordered {
            state.obey(socket);
        }
        if is_keeper_gone && let Some(gone) = state.keeper.take() {
            let _ = birth::end(&gone);
            state.keeper = make_keeper();
        }
    }
    say(socket, Word::Empty, &[]);
}

impl Watch<'_> {
    /// Whether only the session knows what becomes of what was made.
    const fn is_needed(&self) -> bool {
        self.listening && (self.making.0.is_some() || !self.made.is_empty())
    }

    fn obey(&mut self, socket: &OwnedFd) {
        let Ok((bytes, fd)) = receive(socket.as_fd(), MsgFlags::MSG_DONTWAIT) else { return };
        let Some(&byte) = bytes.first() else {
            self.listening = false;
            if !self.complete {
                kill_everybody();
            }
            let (making, made) = (self.making.0.take(), std::mem::take(&mut self.made));
            peer::with_its_rights(|| {
                let _ = making.map(|directory| delete_in(&directory, self.making.1));
                made.iter().rev().for_each(delete);
            });
            return;
        };
        match Order::from_byte(byte) {
            Some(Order::Hold) => self.hold(fd),
            Some(Order::Follow) => {
                let followed = fd.and_then(|fd| pid_behind(&fd).ok());
                self.child = followed.map_or(NOBODY, u32::cast_signed);
            }
            Some(Order::Making) => self.making.0 = fd,
            Some(Order::Made) => {
                self.making.0 = None;
                self.made.extend(fd);
            }
            Some(Order::Keep) => self.made.clear(),
            Some(Order::Complete) => {
                self.complete = true;
                self.held.clear();
                // It may have been killed by somebody else.
                let _ = self.keeper.take().map(|keeper| birth::end(&keeper));
            }
            Some(Order::Kill) => kill_everybody(),
            None => {}
        }
    }

    /// Without a hold on it, memory whose pages are still to come would read as zeros if the session died; without
    /// somebody who keeps it, if both died.
    fn hold(&mut self, fd: Option<OwnedFd>) {
        let (Some(fd), Some(_)) = (fd, &self.keeper) else { return kill_everybody() };
        self.held.push(Uffd::from(fd));
        if self.held.len() >= self.held_at_most {
            self.held.retain(|uffd| !uffd.is_gone());
            self.held_at_most = HELD_AT_FIRST.max(2 * self.held.len());
        }
    }
}

/// Deletes a file or an empty directory; there may be none.
fn delete_in(directory: &OwnedFd, name: &OsStr) {
    let remove = |flag| unlinkat(directory, name, flag);
    let _ = remove(UnlinkatFlags::NoRemoveDir).or_else(|_| remove(UnlinkatFlags::RemoveDir));
}

/// Deletes a file, or an empty directory, under the name that it has.
fn delete(made: &OwnedFd) {
    let link = format!("/proc/self/fd/{}", made.as_raw_fd());
    let (Ok(path), Ok(wanted)) = (fs::read_link(&link), fs::metadata(&link)) else { return };
    let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
    if fs::symlink_metadata(&path).is_ok_and(is_it) {
        // Somebody else may have put something there.
        let _ = if wanted.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
    }
}

fn kill_everybody() {
    // To -1 from the first process: every other process of the namespace (kill(2)).
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// Reaps all who have ended, tells of the child; `false` when nobody is left.
fn reap(socket: &OwnedFd, child: i32) -> bool {
    loop {
        match birth::reap() {
            Ok(Reaped::Exited(pid, code)) if pid == child => say(socket, Word::Exited(code), &[]),
            Ok(Reaped::Killed(pid, signal)) if pid == child => say(socket, Word::Killed(signal), &[]),
            Ok(Reaped::Exited(..) | Reaped::Killed(..)) => {}
            Ok(Reaped::NothingYet) => return true,
            Ok(Reaped::NoChild) | Err(_) => return false,
        }
    }
}

/// Tells the session, if it is still there.
fn say(socket: &OwnedFd, word: Word, fds: &[i32]) {
    let bytes = word.encode();
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None);
}
