//! CRIU's page server protocol: records, some of them with pages behind them.
//!
//! Up to CRIU 4.1 a record has 24 bytes, from 4.2 on 32, because more than 2^32 pages can be told of. Neither side says
//! which: a server sees it by the first record, a client has to know.

use std::io::{self, Read};

use memory::{Addr, PAGE_SIZE, PageRange};

/// Which form records have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Command and pages of four bytes, address, owner.
    Short,
    /// Command of four bytes, four that mean nothing, pages of eight bytes, address, owner.
    Long,
}

/// Bytes of the shorter and of the longer form.
const SHORT_BYTES: usize = 24;
const LONG_BYTES: usize = 32;
/// The first CRIU that uses the longer form.
const FIRST_LONG: (i32, i32) = (4, 2);
/// The low half of a command; flags are in the high half.
const COMMAND_MASK: u32 = 0xffff;

/// `PS_IOV_*`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Pages of the old form follow.
    Add,
    /// These pages are in the images before.
    Hole,
    /// The page map of a process or object begins.
    Open,
    /// The same; a byte is awaited that says whether there are images before.
    OpenAndSay,
    /// Are there images before? Four bytes are awaited.
    Parent,
    /// Pages with flags follow.
    AddWithFlags,
    /// Pages are wanted.
    Get,
    /// That was all; four bytes are awaited.
    Close,
}

impl Command {
    const NUMBERS: [(Self, u32); 9] = [
        (Self::Add, 1),
        (Self::Hole, 2),
        (Self::Open, 3),
        (Self::OpenAndSay, 4),
        (Self::Parent, 5),
        (Self::AddWithFlags, 6),
        (Self::Get, 7),
        (Self::Close, 0x1023),
        // To a server whose socket somebody else has open too.
        (Self::Close, 0x1024),
    ];

    fn number(self) -> u32 {
        Self::NUMBERS.iter().find(|(command, _)| *command == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u32) -> Option<Self> {
        Self::NUMBERS.iter().find(|(_, known)| *known == number).map(|(command, _)| *command)
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it is about.
    pub command: Command,
    /// As in a page map.
    pub flags: u32,
    /// Which pages; whatever the sender says.
    pub pages: u64,
    /// Their address.
    pub address: u64,
    /// Whose they are: a process id for [`Command::Get`], else an id and what it is the id of.
    pub owner: u64,
}

impl Record {
    /// The pages as a range; `None` for what no process has.
    #[must_use]
    pub fn range(&self) -> Option<PageRange> {
        PageRange::from_pages(Addr(self.address), self.pages)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self, form: Form) -> Vec<u8> {
        let mut bytes = Vec::from((self.command.number() | self.flags << 16).to_le_bytes());
        match form {
            // More pages than that have no place in the shorter form; nobody here asks for so many.
            Form::Short => bytes.extend(u32::try_from(self.pages).unwrap_or(u32::MAX).to_le_bytes()),
            Form::Long => {
                bytes.extend([0; 4]);
                bytes.extend(self.pages.to_le_bytes());
            }
        }
        bytes.extend(self.address.to_le_bytes());
        bytes.extend(self.owner.to_le_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; LONG_BYTES], form: Form) -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let number = u32::from_le_bytes([a, b, c, d]);
        let whole = Command::of(number);
        let command = whole.or_else(|| Command::of(number & COMMAND_MASK)).ok_or_else(|| unknown(number))?;
        let flags = if whole.is_some() { 0 } else { number >> 16 };
        let (pages, address, owner) = match form {
            Form::Short => (u32::from_le_bytes([e, f, g, h]).into(), word(bytes, 8), word(bytes, 16)),
            Form::Long => (word(bytes, 8), word(bytes, 16), word(bytes, 24)),
        };
        Ok(Self { command, flags, pages, address, owner })
    }

    /// The next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream ends within it, or its command is not known.
    pub fn read(stream: &mut impl Read, form: Form) -> io::Result<Option<Self>> {
        let mut bytes = [0; LONG_BYTES];
        let len = form.bytes();
        if !fill(stream, &mut bytes[..len])? {
            return Ok(None);
        }
        Self::of_bytes(&bytes, form).map(Some)
    }

    /// The first one, and which form it and all others have; `None` at the end of the stream.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub fn read_first(stream: &mut impl Read) -> io::Result<Option<(Self, Form)>> {
        let mut bytes = [0; LONG_BYTES];
        if !fill(stream, &mut bytes[..SHORT_BYTES])? {
            return Ok(None);
        }
        // The shorter form has the owner here, whose low byte is a kind, and the longer one an address of a page. What lies
        // between command and pages in the longer form is whatever was in CRIU's memory.
        let is_short = !word(&bytes, 16).is_multiple_of(PAGE_SIZE);
        let form = if is_short { Form::Short } else { Form::Long };
        if form == Form::Long && !fill(stream, &mut bytes[SHORT_BYTES..])? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::of_bytes(&bytes, form).map(|record| Some((record, form)))
    }
}

impl Form {
    /// What CRIU of this version speaks.
    #[must_use]
    pub fn of_version(version: (i32, i32)) -> Self {
        if version < FIRST_LONG { Self::Short } else { Self::Long }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Short => SHORT_BYTES,
            Self::Long => LONG_BYTES,
        }
    }
}

fn word(bytes: &[u8; LONG_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Fills `buffer`; false if the stream ends before its first byte.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut got = 0;
    while got < buffer.len() {
        match stream.read(&mut buffer[got..]) {
            Ok(0) if got == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn unknown(number: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("command {number:#x} of CRIU's page server is not known"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record =
        Record { command: Command::AddWithFlags, flags: 6, pages: 2, address: 0x1000, owner: 7 << 8 | 1 };

    #[test]
    fn a_record_has_flags_in_the_high_half_of_its_command() {
        for form in [Form::Short, Form::Long] {
            let bytes = RECORD.to_bytes(form);
            assert_eq!(bytes.len(), form.bytes());
            assert_eq!(&bytes[..4], [6, 0, 6, 0]);
            assert_eq!(Record::read(&mut bytes.as_slice(), form).expect("well formed"), Some(RECORD));
            assert_eq!(Record::read(&mut [].as_slice(), form).expect("the end"), None);
            assert!(Record::read(&mut &bytes[1..], form).is_err());
        }
        assert!(Record::read(&mut [9_u8; 32].as_slice(), Form::Long).is_err());
    }

    #[test]
    fn the_first_record_tells_the_form_of_all() {
        let open = Record { command: Command::OpenAndSay, flags: 0, pages: 0, address: 0, ..RECORD };
        let get = Record { command: Command::Get, flags: 0, ..RECORD };
        for form in [Form::Short, Form::Long] {
            for record in [open, get] {
                let bytes = record.to_bytes(form);
                let read = Record::read_first(&mut bytes.as_slice()).expect("well formed");
                assert_eq!(read, Some((record, form)));
            }
        }
        // As CRIU 4.2.1 sends it.
        let mut bytes = get.to_bytes(Form::Long);
        bytes[4..8].copy_from_slice(&[0x55, 0x55, 0, 0]);
        let read = Record::read_first(&mut bytes.as_slice()).expect("well formed");
        assert_eq!(read, Some((get, Form::Long)));
    }
}
