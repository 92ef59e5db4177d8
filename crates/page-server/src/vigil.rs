//! Waiting without sleeping, while whoever would have to wake this thread has better things to do.
//!
//! A request that finds the source asleep costs the destination the wake-up, some 6 us of the loop that everybody there
//! waits for, and the program the time until the source runs. So the source stays awake while requests keep coming.
//! Whoever else has something to do on this processor goes first, and if no request comes meanwhile, it may be needed
//! in order to make one.

use sys::clock::monotonic_ns;
use sys::poll::{Interest, poll};
use sys::thread::let_others_run;

use crate::config::{REST_NS, VIGIL_NS};

/// Whether staying awake may pay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vigil {
    /// By the monotonic clock, in nanoseconds: not before.
    from: u64,
}

impl Vigil {
    /// Whether one of `interests` is ready, looked at again and again for [`VIGIL_NS`]; false at once if that was in
    /// vain less than [`REST_NS`] ago.
    pub(crate) fn keep(&mut self, interests: &mut [Interest]) -> bool {
        let began = monotonic_ns();
        while began >= self.from {
            match poll(interests, Some(0)) {
                Ok(0) => {}
                ready => return ready.is_ok(),
            }
            let_others_run();
            let now = monotonic_ns();
            if now - began > VIGIL_NS {
                self.from = now + REST_NS;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_vigil_in_vain_is_followed_by_rest() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut interests = [Interest::borrowed(std::os::fd::AsFd::as_fd(&reader), false)];
        let mut vigil = Vigil::default();
        let began = monotonic_ns();
        assert!(!vigil.keep(&mut interests), "nothing has come");
        assert!(monotonic_ns() - began >= VIGIL_NS, "it was looked for");
        writer.write_all(b"x").expect("room for a byte");
        let is_kept = vigil.keep(&mut interests);
        assert!(!is_kept || monotonic_ns() - began >= REST_NS, "it was in vain a moment ago");
        assert!(Vigil::default().keep(&mut interests), "something is there");
    }
}
