//! One line per event, on standard error or at the end of `POSTHASTE_LOG`; never content of the host program.
//!
//! Needs no allocation, so that every part of the parasite may use it. Never blocks and never raises SIGPIPE: a
//! descriptor that would do either gets nothing.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sender_seam::log::Line;
use sys::status::FileType;
use sys::{Errno, descriptor, file, poll, status};

use crate::{STATE, ffi, settings};

/// Writes one line, which `put` fills. It lies in a frame of this function's own: on the stack of a signal handler
/// there is room for it only when there is something to say.
#[inline(never)]
pub(crate) fn line(put: &dyn Fn(&mut Line)) {
    write(&Line::of(put));
}

/// Writes one line.
pub(crate) extern "C" fn write(line: &Line) {
    let bytes = line.bytes();
    if !settings::log_path(|path| append(path, bytes).is_ok()) {
        to_standard_error(bytes);
    }
}

fn append(path: &core::ffi::CStr, bytes: &[u8]) -> Result<(), Errno> {
    file::write_all(&file::open(path, file::APPEND)?, bytes)
}

fn to_standard_error(bytes: &[u8]) {
    ffi::with_standard_error(|fd| {
        if poll::takes_bytes(fd) && !is_data_file() {
            // Nobody could be told that telling did not work.
            let _ = file::write_all(fd, bytes);
        }
    });
}

/// Device and inode of what was standard error when the program started.
static STANDARD_ERROR: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Remembers what standard error is.
pub(crate) fn remember_standard_error() {
    if let Ok(status) = status::of_number(2) {
        let [device, inode] = &STANDARD_ERROR;
        device.store(status.device.number(), Relaxed);
        inode.store(status.inode, Relaxed);
    }
}

/// Whether a line on descriptor 2 would spoil a file: one that the program reads and writes and was not started with
/// (having closed its standard streams it may have opened its database there), or one that it writes elsewhere by now.
fn is_data_file() -> bool {
    const ACCESS_MODE: u32 = 3;
    const READ_WRITE: u32 = 2;
    const APPEND: u32 = 0o2000;
    let Ok(status) = status::of_number(2) else { return false };
    if status.file_type != FileType::Regular {
        return false;
    }
    let Ok(flags) = descriptor::status_flags(2) else { return false };
    // The program writes on from its own position there.
    if STATE.is_committed() && flags & APPEND == 0 {
        return true;
    }
    let known = STANDARD_ERROR.each_ref().map(|word| word.load(Relaxed));
    known != [status.device.number(), status.inode] && flags & ACCESS_MODE == READ_WRITE
}

/// Writes one line of [`protocol::Piece`]s.
macro_rules! log {
    ($($piece:expr),*) => { $crate::log::line(&|line| protocol::put!(line, $($piece),*)) };
}
pub(crate) use log;
