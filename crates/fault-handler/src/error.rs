//! Why the loop cannot go on, as opposed to a migration that fails and is ended in order.

use std::io;

use engine::Failure;
use sys::uffd::UffdError;

/// The loop cannot go on: whoever called it ends the process before a page that nobody serves reads as zero.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Waiting for descriptors.
    #[error("waiting for sockets and userfaultfds")]
    Wait(#[source] io::Error),
    /// Events cannot be read any more, so some thread waits and nobody knows which.
    #[error("serving the process's memory")]
    Events(#[source] UffdError),
    /// The kernel does not do what keeps missing pages from being read as zeros.
    #[error("keeping the process from reading pages that are missing")]
    Memory(#[source] UffdError),
    /// The process forked more children than can be served.
    #[error("the process forked more than {limit} children before all its pages were there")]
    TooManySpaces {
        /// How many can be.
        limit: usize,
    },
    /// Another loop died in the one moment in which it cannot be succeeded.
    #[error("the session was killed while it let the process go")]
    Torn,
    /// Whoever watches over the migration has given it up.
    #[error("{0}")]
    Abandoned(Failure),
}

impl HandlerError {
    /// The error and what caused it, in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}
