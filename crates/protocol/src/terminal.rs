//! Pseudo-terminals whose master the process holds.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// One of them, both of its ends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TerminalRecord {
    /// The number in `/dev/pts/NUMBER`.
    pub index: u32,
    /// `struct termios2` of the slave as 32-bit words; the master has none that could be changed.
    pub settings: [u32; 11],
    /// `struct winsize`
    pub window: u64,
    /// Sum of the constants below.
    pub flags: u32,
    /// Mode, owner and group of the slave, if it is open.
    pub name: Option<(u32, u32, u32)>,
    /// What waits to be read from the slave, as it is to be written into the master by [`TYPED`].
    pub input: Vec<u8>,
    /// What waits to be read from the master.
    pub output: Vec<u8>,
}

impl TerminalRecord {
    /// `TIOCGPTLCK`: the slave cannot be opened.
    pub const LOCKED: u32 = 1;
    /// `TIOCGPKT`: packet mode.
    pub const PACKET: u32 = 2;
    /// `TIOCGEXCL`: the slave cannot be opened once more.
    pub const EXCLUSIVE: u32 = 4;
    /// It is the controlling terminal of the process's session, which the process leads.
    pub const CONTROLS: u32 = 8;
    /// The slave was never opened: a master whose slave has been closed hears of it.
    pub const UNOPENED: u32 = 16;
    /// The master has been closed: nothing but slaves that have hung up.
    pub const HUNG_UP: u32 = 32;

    /// Whether a flag is set.
    #[must_use]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// The characters that mean something in [`TerminalRecord::input`]; all others, and a line feed, are what they are in
/// canonical mode without any translation.
#[derive(Clone, Copy, Debug)]
pub struct Typed {
    /// Ends a line, or the input, without being part of it (`VEOF`).
    pub end: u8,
    /// The next character means nothing (`VLNEXT`).
    pub literal: u8,
    /// `VSTOP`
    pub stop: u8,
    /// `VSTART`
    pub start: u8,
}

/// See [`Typed`].
pub const TYPED: Typed = Typed { end: 1, literal: 2, stop: 3, start: 4 };

/// An end of a pseudo-terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TerminalEnd {
    /// `/dev/ptmx`
    Master,
    /// `/dev/pts/NUMBER`
    Slave,
    /// The slave as `/dev/tty`, the controlling terminal.
    Controlling,
}
