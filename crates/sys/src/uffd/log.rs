//! What a userfaultfd has told and what was done about it, in memory that outlives the process that reads.
//!
//! A reader that is killed takes along what it has read: the program goes on behind an event that nobody knows of. So
//! the kernel writes its messages right into memory that a copy of this process shares. A message is there as soon as
//! its event is over, whatever becomes of the reader: between the two lies one system call, which runs to its end.
//!
//! ```text
//! slots of four words     reader: space 3 │ message │ message │ installed │ space 0 │ message │ 0 …
//!                         the first word names the kind, and is 0 where nothing has been written
//! ```

use std::fmt;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use memory::{Addr, PageRange};

use super::event::message;
use super::{Uffd, UffdError, UffdEvent};
use crate::Errno;
use crate::raw::{nr, syscall3};

/// One message of the kernel's, or one note.
type Slot = [AtomicU64; 4];
const SLOT_BYTES: usize = 32;
const _: () = assert!(size_of::<Slot>() == SLOT_BYTES, "struct uffd_msg is 32 bytes");

const SPACE: u64 = 1;
const INSTALLED: u64 = 2;
const GONE: u64 = 3;
const COMMITTED: u64 = 4;
const RESUMED: u64 = 5;
const FINISHED: u64 = 6;
const FAULT: u64 = 0x12;
const FORK: u64 = 0x13;

/// What the reader itself writes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// Pages of the source are in place in this space.
    Installed {
        /// Which space.
        space: u32,
        /// Source addresses.
        pages: PageRange,
    },
    /// The space has ended; its descriptor is about to be closed.
    Gone(u32),
    /// The process is about to be let go.
    Committed,
    /// The process has been let go.
    Resumed,
    /// It needs nobody any more; all descriptors are about to be closed.
    Finished {
        /// Whether some of its pages never came.
        lossy: bool,
    },
}

/// What is found in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A message about this space, other than a fault.
    Message {
        /// Which space.
        space: u32,
        /// `struct uffd_msg`
        words: [u64; 4],
    },
    /// What the reader wrote down.
    Note(Note),
}

/// Shared memory with everything that a reader of userfaultfds must not forget.
pub struct EventLog {
    slots: &'static [Slot],
    end: usize,
    /// Which log is the valid one, as a number; shared by all logs that come of the same first one.
    generation: &'static AtomicU64,
    /// Of this log.
    own_generation: u64,
    /// Whether anybody would read the log if this process died.
    is_kept: bool,
}

impl EventLog {
    /// A log with room for `slots` messages; it takes memory as it is used.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(slots: usize) -> Result<Self, Errno> {
        let generation = share::<AtomicU64>(1)?.first().ok_or(Errno::ENOMEM)?;
        Ok(Self { slots: share(slots)?, end: 0, generation, own_generation: 0, is_kept: false })
    }

    /// An empty log that takes the place of this one once it is [`activated`](Self::activate).
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn successor(&self) -> Result<Self, Errno> {
        let slots = share(self.slots.len())?;
        let own_generation = self.generation.load(Ordering::SeqCst) + 1;
        Ok(Self { slots, end: 0, generation: self.generation, own_generation, is_kept: true })
    }

    /// Makes this the valid log, for every process that shares it.
    pub fn activate(&self) {
        self.generation.store(self.own_generation, Ordering::SeqCst);
    }

    /// Nobody is to read it if this process dies, nor any other: from here on nothing is kept.
    pub fn close(&mut self) {
        self.generation.store(self.own_generation + 1, Ordering::SeqCst);
        (self.end, self.is_kept) = (0, false);
    }

    /// Whether this is the valid log.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.generation.load(Ordering::SeqCst) == self.own_generation
    }

    /// How many logs came before this one.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.own_generation
    }

    /// Whether a new log should take the place of this one soon.
    #[must_use]
    pub const fn is_nearly_full(&self) -> bool {
        self.end > self.slots.len() / 4 * 3
    }

    /// The message that a record holds, for who goes on in the place of its reader: a fork's descriptor must still be
    /// open.
    ///
    /// # Errors
    /// [`UffdError::Read`] if it is not, [`UffdError::UnknownEvent`].
    pub fn message(words: [u64; 4]) -> Result<UffdEvent, UffdError> {
        message(words)
    }

    /// Whether a record is a fork's, whose descriptor may have been closed since; its number then.
    #[must_use]
    pub fn forked(words: [u64; 4]) -> Option<u64> {
        (words[0] & 0xff == FORK).then_some(words[1] & 0xffff_ffff)
    }

    /// Reads as many waiting messages as come in one system call, at most `most`; none if none waits. Faults are not
    /// kept: who waits is told of anew when another reader wakes it.
    ///
    /// # Errors
    /// [`UffdError::Read`] and [`UffdError::UnknownEvent`]; after either, threads may wait without anybody knowing.
    pub fn read(&mut self, space: u32, uffd: &Uffd, most: usize) -> Result<Vec<UffdEvent>, UffdError> {
        let first = self.end + 1;
        let Some(room) = self.slots.get(first..first + most) else {
            return Err(UffdError::Read(Errno::ENOSPC));
        };
        // The kernel must not have to look for memory while it writes.
        for slot in room.iter().step_by(64).chain(room.last()) {
            slot[3].store(0, Ordering::SeqCst);
        }
        self.write(self.end, [SPACE | u64::from(space) << 32, 0, 0, 0]);
        let fd = uffd.as_raw_fd().cast_unsigned() as usize;
        let address = room.as_ptr().expose_provenance();
        // SAFETY: the kernel writes at most `most` messages into as many slots, whose words are atomics: no Rust value
        // is taken for unchanging.
        let count = match unsafe { syscall3(nr::READ, fd, address, room.len() * SLOT_BYTES) } {
            Ok(bytes) => bytes / SLOT_BYTES,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(UffdError::Read(errno)),
        };
        let messages: Vec<[u64; 4]> = room.iter().take(count).map(load).collect();
        let worth_keeping = self.is_kept && messages.iter().any(|words| words[0] & 0xff != FAULT);
        if worth_keeping {
            self.end = first + count;
        } else {
            for slot in self.slots.iter().skip(self.end).take(1 + count) {
                slot[0].store(0, Ordering::SeqCst);
            }
        }
        messages.into_iter().map(message).collect()
    }

    /// Writes a note, if somebody would read it.
    pub fn note(&mut self, note: Note) {
        if !self.is_kept || self.end + 1 >= self.slots.len() {
            return;
        }
        self.write(
            self.end,
            match note {
                Note::Installed { space, pages } => {
                    [INSTALLED | u64::from(space) << 32, pages.start().0, pages.end().0, 0]
                }
                Note::Gone(space) => [GONE | u64::from(space) << 32, 0, 0, 0],
                Note::Committed => [COMMITTED, 0, 0, 0],
                Note::Resumed => [RESUMED, 0, 0, 0],
                Note::Finished { lossy } => [FINISHED | u64::from(lossy) << 32, 0, 0, 0],
            },
        );
        self.end += 1;
    }

    /// Everything that was written, in its order; for another reader than the one that wrote it.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut space = 0;
        let mut records = Vec::new();
        for words in self.slots.iter().map(load).take_while(|words| words[0] != 0) {
            let about = u32::try_from(words[0] >> 32).unwrap_or(0);
            match words[0] & 0xff {
                SPACE => space = about,
                INSTALLED => {
                    let pages = PageRange::new(Addr(words[1]), Addr(words[2]));
                    let note = pages.map(|pages| Note::Installed { space: about, pages });
                    records.extend(note.map(Record::Note));
                }
                GONE => records.push(Record::Note(Note::Gone(about))),
                COMMITTED => records.push(Record::Note(Note::Committed)),
                RESUMED => records.push(Record::Note(Note::Resumed)),
                FINISHED => records.push(Record::Note(Note::Finished { lossy: about != 0 })),
                FAULT => {}
                _ => records.push(Record::Message { space, words }),
            }
        }
        records
    }

    /// The kind comes last: a slot without it has not been written.
    fn write(&self, at: usize, words: [u64; 4]) {
        let Some(slot) = self.slots.get(at) else { return };
        for (word, value) in slot.iter().zip(words).rev() {
            word.store(value, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("end", &self.end).field("generation", &self.own_generation).finish()
    }
}

fn load(slot: &Slot) -> [u64; 4] {
    slot.each_ref().map(|word| word.load(Ordering::SeqCst))
}

/// Memory of zeros that copies of this process share, for as long as any of them lives.
fn share<T>(count: usize) -> Result<&'static [T], Errno> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let bytes = count * size_of::<T>();
    // SAFETY: a new mapping of nobody's memory.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    }
    // SAFETY: the mapping is page-aligned, `bytes` long, all zero (which is a value of the atomics that this is used
    // for) and never unmapped.
    Ok(unsafe { std::slice::from_raw_parts(address.cast_const().cast::<T>(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(Addr(start), Addr(end)).expect("a range")
    }

    #[test]
    fn what_was_noted_is_found_in_its_order_and_nothing_is_noted_for_nobody() {
        let mut alone = EventLog::new(16).expect("memory");
        alone.note(Note::Resumed);
        assert!(alone.records().is_empty());
        let mut kept = alone.successor().expect("memory");
        let notes = [
            Note::Committed,
            Note::Resumed,
            Note::Installed { space: 7, pages: range(0x5000, 0x9000) },
            Note::Gone(7),
            Note::Finished { lossy: true },
        ];
        notes.into_iter().for_each(|note| kept.note(note));
        assert_eq!(kept.records(), notes.map(Record::Note));
    }

    #[test]
    fn one_log_is_valid_at_a_time() {
        let first = EventLog::new(16).expect("memory");
        let second = first.successor().expect("memory");
        assert!(first.is_valid() && !second.is_valid());
        second.activate();
        assert!(!first.is_valid() && second.is_valid());
    }

    #[test]
    fn a_closed_log_is_nobodys_and_takes_nothing() {
        let mut log = EventLog::new(64).and_then(|log| log.successor()).expect("memory");
        log.activate();
        (0..100).for_each(|space| log.note(Note::Gone(space)));
        log.close();
        assert!(!log.is_valid() && !log.is_nearly_full());
        (0..100).for_each(|space| log.note(Note::Gone(space)));
        assert!(!log.is_nearly_full());
    }

    #[test]
    fn a_full_log_says_so_before_it_is() {
        let mut log = EventLog::new(64).and_then(|log| log.successor()).expect("memory");
        (0..40).for_each(|space| log.note(Note::Gone(space)));
        assert!(!log.is_nearly_full());
        (0..100).for_each(|space| log.note(Note::Gone(space)));
        assert!(log.is_nearly_full());
        assert!(log.records().len() < 64);
    }
}
