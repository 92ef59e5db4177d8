//! What a userfaultfd tells: touched pages, and changes of the address space.
//!
//! A fork, remap, remove or unmap holds the thread that causes it until its event has been read. Faults that wait
//! are read before events that wait, whichever came first.

use std::fmt;

use memory::{Addr, PageRange};
use userfaultfd::{Event, ReadWrite};

use super::error::errno_of;
use super::{Uffd, UffdError};

/// One message of a userfaultfd. Addresses are those of the program at the time of the event.
#[derive(Debug)]
pub enum UffdEvent {
    /// A thread touched a missing page and waits for it.
    Fault {
        /// The page's address.
        addr: Addr,
        /// The thread, as its own PID namespace numbers it.
        thread: u32,
        /// Whether it wanted to write.
        write: bool,
    },
    /// The program forked; this is the child's userfaultfd, its registrations are the parent's.
    Fork(Uffd),
    /// The program moved a range by mremap(2). A range that leaves nothing behind is reported as unmapped next.
    Remap {
        /// Where it was, in its old length.
        from: PageRange,
        /// Where it is.
        to: Addr,
    },
    /// The program drops the content of a range (madvise(2)): its missing pages are zero from here on.
    Remove(PageRange),
    /// The program unmapped a range.
    Unmap(PageRange),
}

/// Room for the messages of one read(2).
pub struct EventBuffer(userfaultfd::EventBuffer);

impl EventBuffer {
    /// Room for `messages` messages of 32 bytes.
    #[must_use]
    pub fn new(messages: usize) -> Self {
        Self(userfaultfd::EventBuffer::new(messages))
    }
}

impl fmt::Debug for EventBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventBuffer")
    }
}

impl Uffd {
    /// Reads as many waiting messages as `buffer` has room for, in one system call; none if none waits.
    ///
    /// # Errors
    /// [`UffdError::Read`] and [`UffdError::UnknownEvent`]; after either, threads may wait without anybody knowing.
    pub fn read_events(&self, buffer: &mut EventBuffer) -> Result<Vec<UffdEvent>, UffdError> {
        let events = self.0.read_events(&mut buffer.0).map_err(|error| UffdError::Read(errno_of(&error)))?;
        events
            .map(|event| convert(event.map_err(|error| UffdError::UnknownEvent(error.to_string()))?))
            .collect()
    }
}

fn convert(event: Event) -> Result<UffdEvent, UffdError> {
    Ok(match event {
        Event::Pagefault { rw, addr, thread_id, kind: _ } => UffdEvent::Fault {
            addr: address(addr),
            thread: thread_id.as_raw().cast_unsigned(),
            write: rw == ReadWrite::Write,
        },
        Event::Fork { uffd } => UffdEvent::Fork(Uffd(uffd)),
        Event::Remap { from, to, len } => {
            let end = Addr(address(from).0.saturating_add(len as u64));
            UffdEvent::Remap { from: range("remap", address(from), end)?, to: address(to) }
        }
        Event::Remove { start, end } => UffdEvent::Remove(range("remove", address(start), address(end))?),
        Event::Unmap { start, end } => UffdEvent::Unmap(range("unmap", address(start), address(end))?),
    })
}

fn address<T>(pointer: *mut T) -> Addr {
    Addr(pointer.addr() as u64)
}

fn range(name: &str, start: Addr, end: Addr) -> Result<PageRange, UffdError> {
    PageRange::new(start, end).ok_or_else(|| UffdError::UnknownEvent(format!("{name} {start}-{end}")))
}
