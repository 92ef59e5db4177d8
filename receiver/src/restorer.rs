//! The restorer: rebuilds a process from its manifest, inside a blank child, by syscall programs.
//!
//! ```text
//! session S ── restorer ──► program (operations, data) ──► hole (shared memory) ──► trampoline in child C
//!     └──── guardian (pid 1 of C's namespace) ─ starts C, reaps it, kills it if S is gone ────┘
//! ```

mod blank;
mod layout;
mod program;
mod step;
pub mod trampoline;

pub use blank::{BlankChild, ChildError, Results};
pub use layout::{Hole, Layout};
pub use program::{Program, Slot};
pub use step::Step;
