//! Small files that only their owner may read.

use core::ffi::CStr;

use protocol::{Piece, Text, put};

use crate::raw::{nr, syscall3};
use crate::status::{self, FileType};
use crate::{Errno, file};

const O_NONBLOCK: usize = 0o4000;
const GROUP_AND_OTHERS: u32 = 0o077;

/// Why a secret is not taken from a file. Reads well behind the file's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSecret {
    /// It cannot be read.
    Unreadable(Errno),
    /// It is a directory, a pipe or the like.
    NotAFile,
    /// Whoever owns it can change it.
    Foreign,
    /// Not only its owner may read or write it.
    OpenToOthers,
}

impl Piece for NoSecret {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text(match self {
            Self::Unreadable(errno) => return put!(text, "cannot be read: ", errno),
            Self::NotAFile => "is not a regular file",
            Self::Foreign => "belongs to another user; it must be your own",
            Self::OpenToOthers => "is open to others; chmod 600 it",
        });
    }
}

impl From<Errno> for NoSecret {
    fn from(errno: Errno) -> Self {
        Self::Unreadable(errno)
    }
}

/// Reads the front of the file at `path` into `buffer`, if nobody but this process's effective user may read or write
/// it; returns how much there was.
///
/// # Errors
/// [`NoSecret`].
pub fn read(path: &CStr, buffer: &mut [u8]) -> Result<usize, NoSecret> {
    // Opening a pipe would wait for a writer.
    let fd = file::open(path, file::READ_ONLY | O_NONBLOCK)?;
    let status = status::of_fd(&fd)?;
    if status.file_type != FileType::Regular {
        return Err(NoSecret::NotAFile);
    }
    if status.owner.0 != effective_user() {
        return Err(NoSecret::Foreign);
    }
    if status.mode & GROUP_AND_OTHERS != 0 {
        return Err(NoSecret::OpenToOthers);
    }
    Ok(file::read(&fd, buffer)?)
}

fn effective_user() -> u32 {
    // SAFETY: it takes no arguments and cannot fail.
    let user = unsafe { syscall3(nr::GETEUID, 0, 0, 0) };
    user.ok().and_then(|user| u32::try_from(user).ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::fs::PermissionsExt;
    use std::{format, fs};

    use super::*;

    #[test]
    fn only_a_file_of_ones_own_that_is_closed_to_others_is_read() {
        let path = std::env::temp_dir().join(format!("posthaste-secret-{}", std::process::id()));
        let name = CString::new(path.to_str().expect("a plain name")).expect("no zero");
        fs::write(&path, "secret").expect("room in /tmp");
        let mut buffer = [0; 10];
        for (mode, expected) in [
            (0o600, Ok(6)),
            (0o400, Ok(6)),
            (0o640, Err(NoSecret::OpenToOthers)),
            (0o602, Err(NoSecret::OpenToOthers)),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(read(&name, &mut buffer), expected, "{mode:o}");
        }
        fs::remove_file(&path).expect("it is there");
        assert_eq!(read(&name, &mut buffer), Err(NoSecret::Unreadable(Errno::ENOENT)));
        assert_eq!(read(c"/", &mut buffer), Err(NoSecret::NotAFile));
        assert_eq!(read(c"/dev/null", &mut buffer), Err(NoSecret::NotAFile));
    }
}
