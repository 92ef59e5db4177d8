//! System V semaphores and message queues. Nothing is attached to them, so whose they are is told by who used them last: those
//! that this process used, and that no other living process did, move. One that was made and never used is nobody's.

use alloc::vec::Vec;
use core::ffi::CStr;

use protocol::{SystemVRecord, SystemVState};
use sys::{file, signal, system_v};

use crate::descriptors::CONTENT_LIMIT;
use crate::refusal::{Doing, ProcessTrait, Refusal};
use crate::segments::{column, id};

/// Bytes of a list, amply.
const LIST_LIMIT: usize = 4 << 20;
/// Columns of a line (`sysvipc_sem_proc_show` and `sysvipc_msg_proc_show` in the kernel's ipc).
const SEMAPHORES: usize = 3;
const BYTES: usize = 3;
const SENDER: usize = 5;
const RECEIVER: usize = 6;

/// Those that process `own` uses alone, with their messages if it has `stopped`.
///
/// # Errors
/// Another process uses one too; what is in one cannot be read, or is too much.
pub(crate) fn collect(own: u32, stopped: bool) -> Result<Vec<SystemVRecord>, Refusal> {
    let mut found = Vec::new();
    for line in list(c"/proc/sysvipc/sem").split(|byte| *byte == b'\n') {
        let (Some(id), Some(count)) = (id(line), column(line, SEMAPHORES)) else { continue };
        let count = u32::try_from(count).unwrap_or(0);
        let mut users = (0..count).map(|index| system_v::last_user(id, index).unwrap_or(0));
        if is_of(own, &mut users)? {
            let state = SystemVState::Semaphores(values(id, count)?);
            found.push(SystemVRecord { line: line.to_vec(), state });
        }
    }
    for line in list(c"/proc/sysvipc/msg").split(|byte| *byte == b'\n') {
        let (Some(id), Some(bytes)) = (id(line), column(line, BYTES)) else { continue };
        let mut users = [SENDER, RECEIVER].map(|number| user(line, number)).into_iter();
        if is_of(own, &mut users)? {
            let failed = Refusal::kernel(Doing::SystemV);
            let capacity = system_v::queue_capacity(id).map_err(&failed)?;
            let messages = if stopped { messages(id, bytes)? } else { Vec::new() };
            found.push(SystemVRecord {
                line: line.to_vec(),
                state: SystemVState::Queue { capacity, messages },
            });
        }
    }
    Ok(found)
}

/// What to remove when it has moved.
#[derive(Clone, Copy, Debug)]
pub struct Leftover {
    id: u32,
    is_queue: bool,
}

/// What there is to remove of `records`.
#[must_use]
pub fn leftovers(records: &[SystemVRecord]) -> Vec<Leftover> {
    let mut found = Vec::new();
    for record in records {
        let is_queue = matches!(record.state, SystemVState::Queue { .. });
        found.extend(id(&record.line).map(|id| Leftover { id, is_queue }));
    }
    found
}

impl Leftover {
    /// Removes it.
    pub fn remove(self) {
        if self.is_queue {
            system_v::remove_queue(self.id);
        } else {
            system_v::remove_semaphores(self.id);
        }
    }
}

/// A kernel without them has no list.
fn list(path: &CStr) -> Vec<u8> {
    file::read_file(path, LIST_LIMIT).unwrap_or_default()
}

fn user(line: &[u8], number: usize) -> u32 {
    column(line, number).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
}

/// Whether `own` is among the `users`.
///
/// # Errors
/// And another one that lives.
fn is_of(own: u32, users: &mut dyn Iterator<Item = u32>) -> Result<bool, Refusal> {
    let (mut is_own, mut other) = (false, 0);
    for user in users {
        if user == own {
            is_own = true;
        } else if user != 0 && user != other && signal::process_exists(user) {
            other = user;
        }
    }
    if is_own && other != 0 { Err(ProcessTrait::SystemV(other).into()) } else { Ok(is_own) }
}

fn values(id: u32, count: u32) -> Result<Vec<u8>, Refusal> {
    system_v::values(id, count).map_err(Refusal::kernel(Doing::SystemV))
}

/// The messages of a queue that holds `bytes` in all.
fn messages(id: u32, bytes: u64) -> Result<Vec<Vec<u8>>, Refusal> {
    const TYPE_BYTES: usize = 8;
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= CONTENT_LIMIT);
    let mut buffer = alloc::vec![0; bytes.ok_or(ProcessTrait::TooMuchContent)? + TYPE_BYTES];
    let mut messages = Vec::new();
    loop {
        let found = system_v::message(id, messages.len(), &mut buffer);
        let Some(len) = found.map_err(Refusal::kernel(Doing::SystemV))? else { return Ok(messages) };
        messages.push(buffer.get(..len).unwrap_or_default().to_vec());
    }
}
