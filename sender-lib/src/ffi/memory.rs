//! Memory of the arena that becomes code.

use core::ops::Range;

use sender_seam::{Body, Resident};
use sys::Errno;
use sys::own_memory::{self, Access};

/// A part of the arena that nobody else uses.
pub(crate) struct Memory(&'static mut [u8]);

impl Memory {
    /// `len` bytes from `at`, right behind the helper's stack.
    pub(crate) fn of_arena(at: u64, len: usize) -> Self {
        let start = core::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0));
        // SAFETY: the arena is mapped, zeroed by the kernel, at least 16 MiB long and has nothing else there yet; only
        // the helper asks, once. It goes when nobody runs in it any more.
        Self(unsafe { core::slice::from_raw_parts_mut(start, len) })
    }

    /// Its bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.0
    }

    /// Lets what is in front of offset `variables` be read only, and its `code` run.
    pub(crate) fn seal(self, variables: usize, code: Range<usize>) -> Result<(), Errno> {
        let all = self.0;
        let at = |offset: usize| all.as_ptr().expose_provenance() as u64 + offset as u64;
        // SAFETY: `all` is not used for writing any more.
        unsafe { own_memory::protect(at(0), variables, Access::Read) }?;
        let code_at = at(code.start);
        // SAFETY: as above.
        let made = unsafe { own_memory::protect(code_at, code.len(), Access::Execute) };
        if made.is_err() {
            let bytes = all.get(code).unwrap_or_default();
            // SAFETY: whole pages of the arena, which are not used for anything else.
            unsafe { own_memory::replace_by_executable(bytes) }?;
            let _ = own_memory::keep_from_children(code_at, bytes.len());
        }
        Ok(())
    }
}

/// Calls the body that has been unpacked, and whose entry is at `entry`.
pub(super) fn enter_body(entry: u64, resident: &'static Resident) -> bool {
    let entry = core::ptr::with_exposed_provenance::<()>(usize::try_from(entry).unwrap_or(0));
    // SAFETY: `body::unpack` has put a function of this type there, which was built together with this library.
    let body = unsafe { core::mem::transmute::<*const (), Body>(entry) };
    body(resident)
}
