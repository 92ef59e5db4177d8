//! What a userfaultfd tells: touched pages, and changes of the address space.
//!
//! A fork, remap, remove or unmap holds the thread that causes it until its event has been read. Faults that wait
//! are read before events that wait, whichever came first.

use memory::{Addr, PageRange};

use super::{Uffd, UffdError};
use crate::Errno;

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

/// The message behind the words of a `struct uffd_msg`. A fork's descriptor belongs to the value that is returned.
pub(super) fn message(words: [u64; 4]) -> Result<UffdEvent, UffdError> {
    let [kind, first, second, third] = words;
    Ok(match kind & 0xff {
        0x12 => UffdEvent::Fault {
            addr: Addr(second),
            thread: u32::try_from(third & 0xffff_ffff).unwrap_or(0),
            write: first & 1 == 1,
        },
        0x13 => {
            let number = i32::try_from(first & 0xffff_ffff).unwrap_or(-1);
            let fd = crate::fd::received(number).map_err(|_| UffdError::Read(Errno::EBADF))?;
            UffdEvent::Fork(Uffd::from(fd))
        }
        0x14 => {
            let end = Addr(first.saturating_add(third));
            UffdEvent::Remap { from: range("remap", Addr(first), end)?, to: Addr(second) }
        }
        0x15 => UffdEvent::Remove(range("remove", Addr(first), Addr(second))?),
        0x16 => UffdEvent::Unmap(range("unmap", Addr(first), Addr(second))?),
        other => return Err(UffdError::UnknownEvent(format!("{other:#x}"))),
    })
}

fn range(name: &str, start: Addr, end: Addr) -> Result<PageRange, UffdError> {
    PageRange::new(start, end).ok_or_else(|| UffdError::UnknownEvent(format!("{name} {start}-{end}")))
}
