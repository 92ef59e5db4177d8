//! System V semaphores and message queues, with the ids that they had, in the program's own IPC namespace.

use nix::libc;
use protocol::{Manifest, SystemVRecord, SystemVState};

use super::segments::{open, write_number};
use super::{BlankChild, Program, RestoreError, Slot, Step};

const CREATE_NEW: u64 = 0o3000;
const NO_WAIT: u64 = 0o4000;
/// `IPC_SET` of semctl(2) and msgctl(2).
const IPC_SET: u64 = 1;
/// What a new namespace grants: bytes of a queue, and of a message.
const DEFAULT_QUEUE_BYTES: u64 = 16_384;
const DEFAULT_MESSAGE_BYTES: u64 = 8192;
/// Messages, and bytes of them, that one program sends at most.
const MOST_MESSAGES: usize = 1024;
const MOST_BYTES: usize = 512 << 10;

/// What the kernel said of one at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Line {
    key: i32,
    id: u32,
    mode: u32,
    /// Semaphores of a set.
    count: u64,
    user: u32,
    group: u32,
}

impl Line {
    fn read(record: &SystemVRecord) -> Result<Self, RestoreError> {
        let text = String::from_utf8_lossy(&record.line);
        let columns: Vec<&str> = text.split_ascii_whitespace().collect();
        let column = |index: usize| columns.get(index).copied().unwrap_or_default();
        let number = |index: usize| column(index).parse::<u32>().ok();
        let owner = if matches!(record.state, SystemVState::Semaphores(_)) { 4 } else { 7 };
        let read = || {
            Some(Self {
                key: column(0).parse().ok()?,
                id: number(1)?,
                mode: u32::from_str_radix(column(2), 8).ok()? & 0o777,
                count: column(3).parse().ok()?,
                user: number(owner)?,
                group: number(owner + 1)?,
            })
        };
        read().ok_or_else(|| RestoreError::Segment { line: text.trim().to_owned() })
    }

    fn key(&self) -> u64 {
        u64::from(self.key.cast_unsigned())
    }

    fn id(&self) -> u64 {
        u64::from(self.id)
    }

    fn flags(&self) -> u64 {
        CREATE_NEW | u64::from(self.mode)
    }

    /// The first words of `struct semid64_ds` and `struct msqid64_ds`.
    fn permissions(&self) -> [u64; 15] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let mut words = [0; 15];
        words[..3].copy_from_slice(&[pair(0, self.user), pair(self.group, 0), pair(0, self.mode)]);
        words
    }

    /// A program about it.
    fn program(&self, child: &BlankChild) -> Program {
        let mut program = child.program();
        program.step(Step::SystemV(self.id));
        program
    }

    /// Runs what makes it, and sees that it has the id.
    fn run(&self, child: &BlankChild, program: Program, made: Slot) -> Result<(), RestoreError> {
        let results = child.run(program, &[])?;
        if results.of(made) == Ok(self.id()) { Ok(()) } else { Err(RestoreError::SystemVId(self.id)) }
    }

    fn make_set(&self, child: &BlankChild, values: &[u8]) -> Result<(), RestoreError> {
        const SETALL: u64 = 17;
        let mut program = self.program(child);
        write_number(&mut program, next_id(&SystemVState::Semaphores(Vec::new())), self.id());
        let made = program.call(libc::SYS_semget, [self.key(), self.count, self.flags()]);
        self.run(child, program, made)?;
        let mut program = self.program(child);
        let values = program.data(values);
        program.call(libc::SYS_semctl, [self.id(), 0, SETALL, values.0]);
        let status = program.words(&self.permissions());
        program.call(libc::SYS_semctl, [self.id(), 0, IPC_SET, status.0]);
        child.run(program, &[])?;
        Ok(())
    }

    fn make_queue(
        &self,
        child: &BlankChild,
        capacity: u64,
        messages: &[Vec<u8>],
    ) -> Result<(), RestoreError> {
        const CAPACITY: usize = 11;
        let longest = messages.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let mut program = self.program(child);
        if capacity > DEFAULT_QUEUE_BYTES {
            write_number(&mut program, b"/proc/sys/kernel/msgmnb", capacity);
        }
        if longest > DEFAULT_MESSAGE_BYTES {
            write_number(&mut program, b"/proc/sys/kernel/msgmax", longest);
        }
        let queue = SystemVState::Queue { capacity, messages: Vec::new() };
        write_number(&mut program, next_id(&queue), self.id());
        let made = program.call(libc::SYS_msgget, [self.key(), self.flags()]);
        self.run(child, program, made)?;
        // One there and back: who used it last tells whose it is at the next move.
        let mut program = self.program(child);
        let word = program.words(&[1]);
        program.call(libc::SYS_msgsnd, [self.id(), word.0, 0, NO_WAIT]);
        program.call(libc::SYS_msgrcv, [self.id(), word.0, 0, 0, NO_WAIT]);
        for message in messages {
            if program.len() > MOST_MESSAGES || program.data_bytes().len() + message.len() > MOST_BYTES {
                child.run(program, &[])?;
                program = self.program(child);
            }
            let len = message.len().checked_sub(8).filter(|_| message.len() <= MOST_BYTES);
            let len = len.ok_or(RestoreError::SystemVId(self.id))? as u64;
            let text = program.data(message);
            program.call(libc::SYS_msgsnd, [self.id(), text.0, len, NO_WAIT]);
        }
        child.run(program, &[])?;
        let mut program = self.program(child);
        let mut words = self.permissions();
        words[CAPACITY] = capacity;
        let status = program.words(&words);
        program.call(libc::SYS_msgctl, [self.id(), IPC_SET, status.0]);
        child.run(program, &[])?;
        Ok(())
    }
}

/// The file by which the next one of an IPC namespace gets a chosen id.
const fn next_id(state: &SystemVState) -> &'static [u8] {
    match state {
        SystemVState::Semaphores(_) => b"/proc/sys/kernel/sem_next_id",
        SystemVState::Queue { .. } => b"/proc/sys/kernel/msg_next_id",
    }
}

/// What is said of each that is told of as it should be.
fn lines(manifest: &Manifest) -> impl Iterator<Item = Result<(Line, &SystemVState), RestoreError>> {
    manifest.system_v.iter().map(|record| {
        let line = Line::read(record)?;
        match &record.state {
            SystemVState::Semaphores(values) if values.len() as u64 != line.count.saturating_mul(2) => {
                Err(RestoreError::SystemVId(line.id))
            }
            state => Ok((line, state)),
        }
    })
}

/// Proves that they can be given their ids here.
pub(super) fn prove(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    for found in lines(manifest) {
        let (line, state) = found?;
        let mut program = line.program(child);
        let opened = open(&mut program, next_id(state));
        program.call_with(libc::SYS_close, [0], &[(0, opened)]);
        child.run(program, &[])?;
    }
    Ok(())
}

/// Makes all of them with what is in them.
pub(super) fn make(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    for found in lines(manifest) {
        let (line, state) = found?;
        match state {
            SystemVState::Semaphores(values) => line.make_set(child, values),
            SystemVState::Queue { capacity, messages } => line.make_queue(child, *capacity, messages),
        }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str, state: SystemVState) -> SystemVRecord {
        SystemVRecord { line: line.as_bytes().to_vec(), state }
    }

    #[test]
    fn lines_of_the_kernels_are_understood() {
        let set = record(" -5  3  640  2  7  8  7  8  0  1", SystemVState::Semaphores(vec![0; 4]));
        let expected = Line { key: -5, id: 3, mode: 0o640, count: 2, user: 7, group: 8 };
        assert_eq!(Line::read(&set).ok(), Some(expected));
        let queue = SystemVState::Queue { capacity: 16384, messages: Vec::new() };
        let queue = record("9 4 600 11 1 21 22 7 8 7 8 0 0 1", queue);
        let expected = Line { key: 9, id: 4, mode: 0o600, count: 11, user: 7, group: 8 };
        assert_eq!(Line::read(&queue).ok(), Some(expected));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut manifest = Manifest::empty();
        for (line, values) in [
            ("", 0),
            ("1 2 3", 0),
            ("1 2 600 2 0 0", 2),
            ("1 -2 600 0 0 0", 0),
            ("1 2 600 99999999999999999999 0 0", 4),
        ] {
            manifest.system_v = vec![record(line, SystemVState::Semaphores(vec![0; values]))];
            assert!(lines(&manifest).any(|found| found.is_err()), "{line}");
        }
    }
}
