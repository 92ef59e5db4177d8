//! The restorer: rebuilds a process from its manifest, inside a blank child, by syscall programs.
//!
//! ```text
//! session S ── restorer ──► program (operations, data) ──► hole (shared memory) ──► trampoline in child C
//!     └──── guardian (pid 1 of C's namespace) ─ starts C, reaps it, kills it if S is gone ────┘
//!
//! Manifest (running) ─ reserve ─► Reserved ─ map (final manifest) ─► Mapped ─ register ─► Registered ─ assemble ─► Assembled ─ resume ─► Running
//! ```
//!
//! What it does not do: talk to the source, or serve pages (`fault-handler`).

mod batch;
mod blank;
mod clocks;
mod contents;
mod credentials;
mod descriptors;
mod early;
mod error;
mod files;
mod ghosts;
mod huge;
mod ipc;
mod layout;
mod locks;
mod making;
mod mappings;
mod objects;
mod plan;
mod process;
mod program;
mod requirements;
mod room;
mod segments;
mod stages;
mod step;
mod system_v;
mod threads;
mod timers;
pub mod trampoline;
mod vdso;

pub use blank::{BlankChild, ChildError, Results};
pub use descriptors::{check_permission as check_connections_permission, count_relayed};
pub use error::RestoreError;
pub use layout::{Hole, Layout};
pub use plan::plan;
pub use program::{Program, Slot};
pub use stages::{Assembled, Mapped, Registered, Reserved, Restorer, Running};
pub use step::Step;
