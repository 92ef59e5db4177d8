//! Threads in the manifest: what each one recorded of itself when it was parked, completed by what only
//! `/proc` knows. Does not park anything.

use protocol::ThreadRecord;

/// What a parked thread recorded of itself. `pending` is 0: [`complete`] reads it from `/proc`.
pub(crate) type Parked = ThreadRecord;
