//! The environment block of this process, read from `/proc/self` without allocating: the constructor has no heap,
//! and musl hands it no pointer.

use sys::{Fd, auxv, file};

const BUFFER: usize = 2048;

/// Calls `visit` with name and value of every variable that fits the buffer; of none under `AT_SECURE`.
pub(super) fn each_variable(mut visit: impl FnMut(&[u8], &[u8])) {
    if is_secure() {
        return;
    }
    let Ok(environ) = file::open(c"/proc/self/environ", file::READ_ONLY) else { return };
    let mut buffer = [0; BUFFER];
    let mut filled = 0;
    // Whether the entry at the front is the rest of one that was too long.
    let mut skipping = false;
    loop {
        let got = fill(&environ, buffer.get_mut(filled..).unwrap_or_default());
        if got == 0 {
            return;
        }
        filled += got;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (entry, tail) = rest.split_at(end);
            if !core::mem::take(&mut skipping)
                && let Some(equals) = entry.iter().position(|byte| *byte == b'=')
            {
                let (name, value) = entry.split_at(equals);
                visit(name, value.get(1..).unwrap_or_default());
            }
            rest = tail.get(1..).unwrap_or_default();
        }
        let (kept, from) = (rest.len(), filled - rest.len());
        if kept == BUFFER {
            skipping = true;
            filled = 0;
        } else {
            buffer.copy_within(from..filled, 0);
            filled = kept;
        }
    }
}

fn fill(fd: &Fd, room: &mut [u8]) -> usize {
    file::read(fd, room).unwrap_or(0)
}

/// Whether the program has more rights than whoever started it; also if that cannot be found out.
fn is_secure() -> bool {
    const AT_SECURE: u64 = 23;
    let mut auxv = [0; 1024];
    let got = file::open(c"/proc/self/auxv", file::READ_ONLY).map_or(0, |fd| fill(&fd, &mut auxv));
    let auxv = auxv.get(..got).unwrap_or_default();
    auxv::entry(auxv, AT_SECURE) != Some(0)
}
