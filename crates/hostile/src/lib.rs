//! Bytes that nobody here wrote, for everything that reads such bytes: one function for each, which must never panic.
//!
//! `fuzz` makes up the bytes; `tests/corpus.rs` replays what was worth keeping of them, with any compiler.
#![forbid(unsafe_code)]

extern crate alloc;

mod connection;
mod criu;
mod frames;
mod plan;
mod proc_files;
mod seals;
mod settings;
mod shadows;

pub use connection::connection_bytes;
pub use criu::{criu_answers, criu_images, criu_pages};
pub use frames::{decode_manifest, decode_message, frame_header};
pub use plan::plan_manifest;
pub use proc_files::proc_files;
pub use seals::seals;
pub use settings::settings;
pub use shadows::shadow_epochs;

/// Reads bytes that mean no good.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its fuzz target and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame_header", frame_header),
    ("decode_message", decode_message),
    ("decode_manifest", decode_manifest),
    ("plan_manifest", plan_manifest),
    ("connection_bytes", connection_bytes),
    ("destination_inputs", destination_inputs),
    ("proc_files", proc_files),
    ("seals", seals),
    ("settings", settings),
    ("criu_images", criu_images),
    ("criu_pages", criu_pages),
    ("criu_answers", criu_answers),
    ("shadow_epochs", shadow_epochs),
];

/// Any sequence of inputs, at the right and the wrong moment: neither engine panics.
pub fn destination_inputs(bytes: &[u8]) {
    simulator::run_hostile(&mut simulator::Tape(bytes));
}
