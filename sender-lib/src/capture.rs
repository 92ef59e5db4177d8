//! The manifest of this process: of the running one, so that refusal comes early, and of the stopped one.

pub(crate) mod thread;
