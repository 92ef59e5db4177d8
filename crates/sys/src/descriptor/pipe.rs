//! Pipes: capacity, and the bytes in flight without taking them out.

use alloc::vec::Vec;

use super::fcntl;
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd, file};

const F_SETPIPE_SZ: usize = 1031;
const F_GETPIPE_SZ: usize = 1032;

/// `F_GETPIPE_SZ`, bytes.
///
/// # Errors
/// `EBADF` when the number is not a pipe.
pub fn capacity(fd: u32) -> Result<u32, Errno> {
    fcntl(fd, F_GETPIPE_SZ, 0)
}

/// Bytes written and not yet read (`FIONREAD`).
///
/// # Errors
/// Those of ioctl(2).
pub fn in_flight(fd: u32) -> Result<u32, Errno> {
    const FIONREAD: usize = 0x541b;
    count(fd, FIONREAD)
}

/// Bytes that a socket has sent and that nobody has read (`SIOCOUTQ`).
///
/// # Errors
/// Those of ioctl(2).
pub fn unread_at_peer(fd: u32) -> Result<u32, Errno> {
    const SIOCOUTQ: usize = 0x5411;
    count(fd, SIOCOUTQ)
}

pub(super) fn count(fd: u32, request: usize) -> Result<u32, Errno> {
    let mut bytes = 0_u32;
    // SAFETY: the kernel writes one int through the pointer.
    unsafe { syscall3(nr::IOCTL, fd as usize, request, (&raw mut bytes).expose_provenance()) }?;
    Ok(bytes)
}

/// The bytes in flight in the pipe whose reading end is `fd`; they stay in it (tee(2)).
///
/// # Errors
/// Those of pipe2(2), tee(2) and read(2); `EIO` when not all bytes could be copied.
pub fn peek(fd: u32) -> Result<Vec<u8>, Errno> {
    const SPLICE_F_NONBLOCK: usize = 2;
    let expected = in_flight(fd)? as usize;
    if expected == 0 {
        return Ok(Vec::new());
    }
    let (reader, writer) = new_pipe()?;
    // As many slots as the original has: each of its buffers takes one, however small.
    fcntl(writer.raw().cast_unsigned(), F_SETPIPE_SZ, capacity(fd)? as usize)?;
    // SAFETY: plain numbers; only our own pipe is written.
    let copied = unsafe { syscall(nr::TEE, [fd as usize, writer.arg(), expected, SPLICE_F_NONBLOCK, 0, 0]) }?;
    drop(writer);
    let content = file::read_to_end(&reader, copied)?;
    if content.len() == expected { Ok(content) } else { Err(Errno::EIO) }
}

/// A close-on-exec pipe: reading and writing end.
fn new_pipe() -> Result<(Fd, Fd), Errno> {
    const O_CLOEXEC: usize = 0o2_000_000;
    let mut ends = [0_i32; 2];
    // SAFETY: the kernel writes two ints through the pointer.
    unsafe { syscall3(nr::PIPE2, ends.as_mut_ptr().expose_provenance(), O_CLOEXEC, 0) }?;
    let [reader, writer] = ends;
    // SAFETY: the kernel has just made the descriptor and nobody else knows it.
    let reader = unsafe { Fd::from_raw(reader) };
    // SAFETY: as above.
    let writer = unsafe { Fd::from_raw(writer) };
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_flight_are_seen_and_stay() {
        let (reader, writer) = new_pipe().expect("a pipe");
        let number = reader.raw().cast_unsigned();
        assert_eq!(peek(number), Ok(Vec::new()));
        for _ in 0..100 {
            file::write_all(&writer, b"some bytes ").expect("room");
        }
        let seen = peek(number).expect("readable");
        assert_eq!(seen.len(), 1100);
        assert_eq!(peek(number), Ok(seen.clone()));
        drop(writer);
        assert_eq!(file::read_to_end(&reader, 2000), Ok(seen));
    }

    #[test]
    fn a_full_pipe_of_another_size_is_seen_whole() {
        let (reader, writer) = new_pipe().expect("a pipe");
        let number = writer.raw().cast_unsigned();
        fcntl(number, F_SETPIPE_SZ, 1 << 18).expect("below the system's limit");
        let full: Vec<u8> = (0..1_u32 << 18).map(|byte| byte.to_le_bytes()[0]).collect();
        file::write_all(&writer, &full).expect("room");
        assert_eq!(peek(reader.raw().cast_unsigned()), Ok(full));
    }
}
