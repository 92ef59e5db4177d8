//! Pseudo-terminals by their masters: what they are, what waits in them, and how to put it there again.
//!
//! Nobody can look at what waits without taking it out. What waits for the master is bytes. What waits for the slave is lines
//! and the beginning of one, or bytes, behind all translation; it is typed into a terminal that translates nothing, echoes
//! nothing and ends lines where they ended ([`protocol::TYPED`]), and whose settings are set only when the kernel, which
//! works on it by and by, has come to its end: the last character lets a stopped slave go on.

use alloc::vec;
use alloc::vec::Vec;

use protocol::{TYPED, TerminalRecord};

use super::status_flags;
use crate::raw::{nr, syscall3};
use crate::status::{self, Device};
use crate::{Errno, Fd};

const TIOCSCTTY: usize = 0x540e;
const TCGETS2: usize = 0x802c_542a;
const TCSETS2: usize = 0x402c_542b;
const TIOCEXCL: usize = 0x540c;
const TIOCNXCL: usize = 0x540d;
const TIOCGPGRP: usize = 0x540f;
const TIOCGWINSZ: usize = 0x5413;
const TIOCSWINSZ: usize = 0x5414;
const TIOCPKT: usize = 0x5420;
const TIOCGETD: usize = 0x5424;
const TIOCGSID: usize = 0x5429;
const TIOCGPTN: usize = 0x8004_5430;
const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGDEV: usize = 0x8004_5432;
const TIOCGPKT: usize = 0x8004_5438;
const TIOCGPTLCK: usize = 0x8004_5439;
const TIOCGEXCL: usize = 0x8004_5440;
const TIOCGPTPEER: usize = 0x5441;
const FIONREAD: usize = 0x541b;

/// `ioctl(2)`'s request by which the leader of a session takes a controlling terminal.
pub const TAKE_CONTROL: usize = TIOCSCTTY;

/// `ICANON`
const CANONICAL: u32 = 2;
/// `EXTPROC`: whoever has the master does all that canonical mode is.
const EXTERNAL: u32 = 0x1_0000;
/// `O_NOCTTY`, `O_NONBLOCK` and `O_CLOEXEC`.
const NO_CONTROL: usize = 0o400;
const NON_BLOCKING: usize = 0o4000;
const CLOSE_ON_EXEC: usize = 0o2_000_000;

const POLLIN: u32 = 0x1;
const POLLPRI: u32 = 0x2;
const POLLOUT: u32 = 0x4;
const POLLHUP: u32 = 0x10;
/// How long the kernel may take to work on what was typed.
const PATIENCE_MS: usize = 5000;

/// A word that an ioctl gives.
fn get(fd: u32, request: usize) -> Result<u32, Errno> {
    super::pipe::count(fd, request)
}

/// An ioctl that reads or writes at most the array that it gets.
fn with<const N: usize>(fd: u32, request: usize, words: &mut [u32; N]) -> Result<usize, Errno> {
    // SAFETY: each caller gives an array of the size that the request has.
    unsafe { syscall3(nr::IOCTL, fd as usize, request, words.as_mut_ptr().expose_provenance()) }
}

/// What poll(2) says of `fd`, waiting at most so long. What the other end has written has come here by then, unless
/// there is something to be read already.
fn events(fd: u32, wanted: u32, wait_ms: usize) -> u32 {
    // struct pollfd: the number, then two 16-bit words of events, asked for and returned.
    let mut interest = [fd, wanted];
    // SAFETY: the pointer is valid for reads and writes of one struct pollfd.
    let _ = unsafe { syscall3(nr::POLL, interest.as_mut_ptr().expose_provenance(), 1, wait_ms) };
    let [_, events] = interest;
    events >> 16
}

/// What can be seen of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(u32);

impl State {
    /// Of descriptor `fd`.
    #[must_use]
    pub fn of(fd: u32) -> Self {
        Self(events(fd, POLLIN | POLLPRI | POLLOUT, 0))
    }

    /// Something waits to be read.
    #[must_use]
    pub const fn has_input(self) -> bool {
        self.0 & POLLIN != 0
    }

    /// Every slave has been closed; of a slave, the master.
    #[must_use]
    pub const fn has_hung_up(self) -> bool {
        self.0 & POLLHUP != 0
    }

    /// In packet mode something happened that has not been read, or what is written stays here: the other direction is
    /// full, or was stopped.
    #[must_use]
    pub const fn is_held_up(self) -> bool {
        self.0 & POLLPRI != 0 || self.0 & POLLOUT == 0
    }
}

/// The number of the terminal whose master `fd` is.
///
/// # Errors
/// `ENOTTY` if it is none.
pub fn index(fd: u32) -> Result<u32, Errno> {
    get(fd, TIOCGPTN)
}

/// The device that `fd` is open on, behind `/dev/tty` too; none if it is no terminal.
#[must_use]
pub fn device(fd: u32) -> Option<Device> {
    let number = u64::from(get(fd, TIOCGDEV).ok()?);
    Some(Device::new(number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00))
}

/// Session and foreground process group of the terminal whose master `fd` is; none if it controls no session.
#[must_use]
pub fn session_and_group(fd: u32) -> Option<[u32; 2]> {
    Some([get(fd, TIOCGSID).ok()?, get(fd, TIOCGPGRP).ok()?])
}

/// A new description of the slave of `master`, non-blocking, with an access mode of open(2).
///
/// # Errors
/// `EIO` while it is locked, `EBUSY` if it is open exclusively; those of open(2).
pub fn open_slave(master: u32, access: u32) -> Result<Fd, Errno> {
    let flags = access as usize | NO_CONTROL | NON_BLOCKING | CLOSE_ON_EXEC;
    // SAFETY: plain numbers.
    unsafe { syscall3(nr::IOCTL, master as usize, TIOCGPTPEER, flags) }.and_then(Fd::from_result)
}

/// Whether the slave of `master` is the inode `device`, `inode`; it is if it cannot be opened.
#[must_use]
pub fn is_slave(master: u32, device: Device, inode: u64) -> bool {
    let found = open_slave(master, super::READ_WRITE).and_then(|slave| status::of_fd(&slave));
    found.map_or(true, |found| (found.device, found.inode) == (device, inode))
}

/// What can be told of the terminal of `master` without taking anything out.
///
/// # Errors
/// Those of ioctl(2).
pub fn look(master: u32) -> Result<TerminalRecord, Errno> {
    let mut record = TerminalRecord { index: index(master)?, ..TerminalRecord::default() };
    with(master, TCGETS2, &mut record.settings)?;
    record.window = window(master)?;
    for (request, flag) in [(TIOCGPTLCK, TerminalRecord::LOCKED), (TIOCGPKT, TerminalRecord::PACKET)] {
        if get(master, request)? != 0 {
            record.flags |= flag;
        }
    }
    Ok(record)
}

/// Whether the slave `fd` was opened exclusively.
#[must_use]
pub fn is_exclusive(fd: u32) -> bool {
    get(fd, TIOCGEXCL).is_ok_and(|exclusive| exclusive != 0)
}

/// Whether more waits for the slave `fd` than can be taken out and given back, or it has a line discipline of its own.
#[must_use]
pub fn is_too_full(fd: u32, record: &TerminalRecord) -> bool {
    // The kernel works on 4095 bytes ahead. What waits behind these has not been translated; the beginning of a line is
    // not counted.
    let most = if is_canonical(record) { 2048 } else { 4094 };
    get(fd, TIOCGETD) != Ok(0) || !get(fd, FIONREAD).is_ok_and(|waiting| waiting <= most)
}

const fn is_canonical(record: &TerminalRecord) -> bool {
    let [_, _, _, local, ..] = record.settings;
    local & (CANONICAL | EXTERNAL) == CANONICAL
}

/// Takes out what waits in the terminal of `master`, of which `record` tells, and adds it to that. Its slave may be open at
/// `slave`. The process stands
/// still. Whatever happens, [`give_back`] makes it as it was.
///
/// # Errors
/// `EOVERFLOW`, and nothing has been taken, if that is too much; those of ioctl(2) and read(2).
pub fn take_out(master: u32, slave: Option<u32>, record: &mut TerminalRecord) -> Result<(), Errno> {
    let slave = reopen_slave(master, slave, record)?;
    if is_too_full(slave.raw().cast_unsigned(), record) {
        return Err(Errno::EOVERFLOW);
    }
    with(master, TIOCPKT, &mut [0])?;
    let mut buffer = vec![0; 4096];
    if is_canonical(record) {
        while let Some(line) = piece(&slave, &mut buffer)? {
            let (last, line) = match line.split_last() {
                Some((b'\n', line)) => (b'\n', line),
                _ => (TYPED.end, line),
            };
            type_literally(&mut record.input, line);
            record.input.push(last);
        }
        // Uncovers the beginning of a line.
        let mut settings = record.settings;
        let [_, _, _, local, ..] = &mut settings;
        *local &= !CANONICAL;
        with(master, TCSETS2, &mut settings)?;
    }
    while let Some(bytes) = piece(&slave, &mut buffer)? {
        type_literally(&mut record.input, bytes);
    }
    while State::of(master).has_input() {
        let bytes = read(master as usize, &mut buffer)?;
        record.output.extend_from_slice(bytes);
    }
    Ok(())
}

/// A slave, also if it is locked, or exclusively open at `known`.
fn reopen_slave(master: u32, known: Option<u32>, record: &TerminalRecord) -> Result<Fd, Errno> {
    let is_locked = record.is(TerminalRecord::LOCKED);
    let exclusive = known.filter(|_| record.is(TerminalRecord::EXCLUSIVE));
    if is_locked {
        set_locked(master, false)?;
    }
    if let Some(known) = exclusive {
        set_exclusive(known, false)?;
    }
    let slave = open_slave(master, super::READ_WRITE);
    if let Some(known) = exclusive {
        set_exclusive(known, true)?;
    }
    if is_locked {
        set_locked(master, true)?;
    }
    slave
}

/// `TIOCSPTLCK`: says whether the slave can be opened.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_locked(master: u32, locked: bool) -> Result<(), Errno> {
    with(master, TIOCSPTLCK, &mut [u32::from(locked)]).map(|_| ())
}

/// `TIOCEXCL` and `TIOCNXCL`: whether the slave that `fd` is open on cannot be opened once more.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_exclusive(fd: u32, exclusive: bool) -> Result<(), Errno> {
    with(fd, if exclusive { TIOCEXCL } else { TIOCNXCL }, &mut []).map(|_| ())
}

/// `TIOCGWINSZ`: the window of a terminal, of which `fd` is either end, as in [`TerminalRecord`].
///
/// # Errors
/// `ENOTTY` for what is no terminal.
pub fn window(fd: u32) -> Result<u64, Errno> {
    let mut window = [0; 2];
    with(fd, TIOCGWINSZ, &mut window)?;
    let [rows_and_columns, pixels] = window;
    Ok(u64::from(pixels) << 32 | u64::from(rows_and_columns))
}

/// `TIOCSWINSZ`: the window of the terminal of `master`.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_window(master: u32, window: u64) -> Result<(), Errno> {
    let bytes = window.to_le_bytes();
    let (words, _) = bytes.as_chunks::<4>();
    let mut window = [0; 2];
    for (word, bytes) in window.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    with(master, TIOCSWINSZ, &mut window).map(|_| ())
}

fn read(fd: usize, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: the buffer is valid for writes of its length.
    let len = unsafe { syscall3(nr::READ, fd, buffer.as_mut_ptr().expose_provenance(), buffer.len()) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// What one read(2) gives; `None` if nothing waits.
fn piece<'a>(slave: &Fd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
    match read(slave.arg(), buffer) {
        Err(Errno::EAGAIN) => Ok(None),
        other => other.map(Some),
    }
}

fn type_literally(input: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' || (TYPED.end..=TYPED.start).contains(&byte) {
            input.push(TYPED.literal);
        }
        input.push(byte);
    }
}

/// Gives back what [`take_out`] took out.
///
/// # Errors
/// Those of ioctl(2) and write(2).
pub fn give_back(master: u32, slave: Option<u32>, record: &TerminalRecord) -> Result<(), Errno> {
    fill(master, &reopen_slave(master, slave, record)?, record)
}

/// Puts what waits into an empty terminal, by its master and a non-blocking slave, and sets what `record` says but for the
/// lock and the exclusiveness.
///
/// # Errors
/// Those of ioctl(2) and write(2); `EAGAIN` if there is not room enough, `ETIMEDOUT` if the kernel does not come to an end.
pub fn fill(master: u32, slave: &Fd, record: &TerminalRecord) -> Result<(), Errno> {
    let mut done = Ok(());
    if !(record.input.is_empty() && record.output.is_empty()) {
        let flags = status_flags(master)? as usize;
        set_flags(master, flags | NON_BLOCKING)?;
        done = put(master, slave.raw().cast_unsigned(), record);
        set_flags(master, flags)?;
    }
    set(master, record)?;
    done
}

/// Sets what `record` says of settings and packet mode.
///
/// # Errors
/// Those of ioctl(2).
pub fn set(master: u32, record: &TerminalRecord) -> Result<(), Errno> {
    with(master, TCSETS2, &mut { record.settings })?;
    with(master, TIOCPKT, &mut [u32::from(record.is(TerminalRecord::PACKET))]).map(|_| ())
}

fn put(master: u32, number: u32, record: &TerminalRecord) -> Result<(), Errno> {
    with(master, TCSETS2, &mut plain(record.settings))?;
    write(master, &[TYPED.stop])?;
    if events(number, POLLIN | POLLOUT, 0) & POLLOUT != 0 {
        return Err(Errno::ETIMEDOUT);
    }
    write(master, &record.input)?;
    write(master, &[TYPED.start])?;
    if events(number, POLLOUT, PATIENCE_MS) & POLLOUT == 0 {
        return Err(Errno::ETIMEDOUT);
    }
    write(number, &record.output)
}

/// Settings that translate nothing, echo nothing, send no signal, and know the characters of [`TYPED`].
const fn plain(settings: [u32; 11]) -> [u32; 11] {
    /// `IXON`
    const FLOW_CONTROL: u32 = 0x400;
    /// `OPOST`
    const PROCESSED: u32 = 1;
    /// `IEXTEN`
    const EXTENDED: u32 = 0x8000;
    let [_, output, control, _, _, _, _, _, _, speed_in, speed_out] = settings;
    // The line discipline, then 19 characters, of which VEOF is 4, VSTART 8, VSTOP 9 and VLNEXT 15.
    let end = (TYPED.end as u32) << 8;
    let flow = (TYPED.start as u32) << 8 | (TYPED.stop as u32) << 16;
    let literal = TYPED.literal as u32;
    let local = CANONICAL | EXTENDED;
    [FLOW_CONTROL, output & !PROCESSED, control, local, 0, end, flow, 0, literal, speed_in, speed_out]
}

/// Writes all of `bytes`. There is room for them, but not all of it at once: the kernel takes them on by and by, and tells
/// nobody when it has.
fn write(fd: u32, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut patience = PATIENCE_MS;
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for reads of its length.
        match unsafe { syscall3(nr::WRITE, fd as usize, bytes.as_ptr().expose_provenance(), bytes.len()) } {
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(Errno::EAGAIN) if patience > 0 => {
                patience -= 1;
                events(fd, POLLOUT, 1);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn set_flags(fd: u32, flags: usize) -> Result<(), Errno> {
    const F_SETFL: usize = 4;
    super::fcntl(fd, F_SETFL, flags).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    /// Master and non-blocking slave.
    fn pair() -> (Fd, Fd) {
        const READ_WRITE: usize = 2;
        let master = file::open(c"/dev/ptmx", READ_WRITE | NO_CONTROL).expect("a terminal");
        set_locked(number(&master), false).expect("a master");
        let slave = open_slave(number(&master), 2).expect("unlocked");
        (master, slave)
    }

    fn number(fd: &Fd) -> u32 {
        fd.raw().cast_unsigned()
    }

    fn change(master: &Fd, change: impl FnOnce(&mut [u32; 11])) {
        let mut record = look(number(master)).expect("a terminal");
        change(&mut record.settings);
        set(number(master), &record).expect("its own settings");
    }

    fn taken(master: &Fd) -> TerminalRecord {
        let mut record = look(number(master)).expect("a terminal");
        take_out(number(master), None, &mut record).expect("not much");
        record
    }

    /// What reading from the slave gives, call for call.
    fn lines(slave: &Fd) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        core::iter::from_fn(|| piece(slave, &mut buffer).expect("readable").map(<[u8]>::to_vec)).collect()
    }

    fn typed_and_settled(master: &Fd, slave: &Fd, bytes: &[u8]) {
        // One at a time: while nothing can be read, poll(2) waits for the kernel to have worked on it.
        for byte in bytes.chunks(1) {
            write(number(master), byte).expect("room");
            events(number(slave), POLLIN, 0);
        }
        events(number(master), POLLIN, 0);
    }

    /// Types, and waits until so many bytes wait for the slave.
    fn typed_until(master: &Fd, slave: &Fd, bytes: &[u8], count: u32) {
        write(number(master), bytes).expect("room");
        while get(number(slave), FIONREAD).expect("a terminal") < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_ends_and_the_beginning_of_a_line_come_back_and_go_elsewhere() {
        let (master, slave) = pair();
        // The kernel's own characters: literal next is ^V, end is ^D, erase is DEL.
        let typed = b"ab\x7fc\rend\x04\x04\x16\x03q\x16\nq\x16\x04\nbeginning \x16\x02";
        let expected: [&[u8]; 5] = [b"ac\n", b"end", b"", b"\x03q\nq\x04\n", b"beginning \x02\n"];
        typed_and_settled(&master, &slave, typed);
        write(number(&slave), b"out\n").expect("room");
        let record = taken(&master);
        assert!(record.output.windows(5).any(|bytes| bytes == b"out\r\n"), "{:?}", record.output);
        let (other, far) = pair();
        fill(number(&other), &far, &record).expect("room");
        assert_eq!(
            taken(&other),
            TerminalRecord { index: index(number(&other)).expect("one"), ..record.clone() }
        );
        give_back(number(&master), None, &record).expect("room");
        assert_eq!(taken(&master), record);
        give_back(number(&master), None, &record).expect("room");
        assert_eq!(lines(&slave).len(), 4);
        drop((other, far, master, slave));
        let (master, slave) = pair();
        fill(number(&master), &slave, &record).expect("room");
        typed_and_settled(&master, &slave, b"\n");
        assert_eq!(lines(&slave), expected);
    }

    #[test]
    fn bytes_of_every_value_are_neither_translated_nor_echoed_again() {
        let (master, slave) = pair();
        // Not canonical, but with echo and ICRNL, which act once.
        change(&master, |[_, _, _, local, ..]| *local = 8);
        typed_until(&master, &slave, b"a\r", 2);
        change(&master, |[input, _, _, local, ..]| (*input, *local) = (0, 0));
        let all: Vec<u8> = (0..=u8::MAX).collect();
        typed_until(&master, &slave, &all, 258);
        change(&master, |[input, _, _, local, ..]| (*input, *local) = (0x100, 8));
        let record = taken(&master);
        let (other, far) = pair();
        fill(number(&other), &far, &record).expect("room");
        assert_eq!(look(number(&other)).expect("a terminal").settings, record.settings);
        assert_eq!(lines(&far), [[b"a\n".as_slice(), &all].concat()]);
        let mut buffer = [0; 64];
        assert_eq!(read(other.arg(), &mut buffer), Ok(record.output.as_slice()));
    }

    #[test]
    fn what_was_not_translated_yet_is_not_taken_out() {
        let (master, slave) = pair();
        change(&master, |[_, _, _, local, ..]| *local = 0);
        // As much as the kernel works on ahead.
        typed_until(&master, &slave, &[b'x'; 5000], 4095);
        let mut record = look(number(&master)).expect("a terminal");
        assert_eq!(take_out(number(&master), None, &mut record), Err(Errno::EOVERFLOW));
        give_back(number(&master), None, &record).expect("nothing was taken");
        assert_eq!(lines(&slave).concat().len(), 5000);
    }

    #[test]
    fn nearly_as_much_as_there_is_room_for_is_taken_out_and_has_room_again() {
        let (master, slave) = pair();
        let bytes: Vec<u8> = (0..40_000_u32).map(|at| at.to_le_bytes()[0] | b'0').collect();
        // Until the kernel has taken on what it can.
        let mut written = 0;
        for _ in 0..100 {
            events(number(&slave), POLLOUT, 1);
            let rest = &bytes[written..];
            // SAFETY: the slice is valid for reads of its length.
            let taken =
                unsafe { syscall3(nr::WRITE, slave.arg(), rest.as_ptr().expose_provenance(), rest.len()) };
            written += taken.unwrap_or(0);
        }
        assert!(State::of(number(&slave)).is_held_up());
        let mut seen = vec![0; 4096];
        let seen = read(master.arg(), &mut seen).expect("it is full").len();
        let record = taken(&master);
        assert_eq!(record.output, bytes[seen..written]);
        give_back(number(&master), None, &record).expect("room");
        assert_eq!(taken(&master), record);
    }

    #[test]
    fn a_slave_is_known_by_its_inode_and_a_closed_one_is_told() {
        let (master, slave) = pair();
        let (other, _far) = pair();
        let found = status::of_fd(&slave).expect("open");
        assert!(is_slave(number(&master), found.device, found.inode));
        assert!(!is_slave(number(&other), found.device, found.inode));
        assert_eq!(device(number(&slave)), Some(found.special));
        assert!(!State::of(number(&master)).has_hung_up());
        drop(slave);
        assert!(State::of(number(&master)).has_hung_up());
        set_locked(number(&master), true).expect("a master");
        let record = taken(&master);
        give_back(number(&master), None, &record).expect("locked, and opened all the same");
        assert!(record.is(TerminalRecord::LOCKED) && State::of(number(&master)).has_hung_up());
    }
}
