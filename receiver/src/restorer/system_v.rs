//! System V semaphores and message queues, with the ids that they had, in the program's own IPC namespace.

use nix::libc;
use protocol::{Manifest, SystemVRecord, SystemVState};

use super::ipc::{self, IPC_SET, Line, write_number};
use super::{BlankChild, Program, RestoreError, Slot, Step};

/// The files by which the next one of an IPC namespace gets a chosen id.
const NEXT_SET: &[u8] = b"/proc/sys/kernel/sem_next_id";
const NEXT_QUEUE: &[u8] = b"/proc/sys/kernel/msg_next_id";
const NO_WAIT: u64 = 0o4000;
/// What a new namespace grants: bytes of a queue, and of a message.
const DEFAULT_QUEUE_BYTES: u64 = 16_384;
const DEFAULT_MESSAGE_BYTES: u64 = 8192;
/// Messages, and bytes of them, that one program sends at most.
const MOST_MESSAGES: usize = 1024;
const MOST_BYTES: usize = 512 << 10;

impl Line {
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
        write_number(&mut program, NEXT_SET, self.id());
        let made = program.call(libc::SYS_semget, [self.key(), self.size, self.flags()]);
        self.run(child, program, made)?;
        let mut program = self.program(child);
        let values = program.data(values);
        program.call(libc::SYS_semctl, [self.id(), 0, SETALL, values.0]);
        let status = program.words(&self.status());
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
        write_number(&mut program, NEXT_QUEUE, self.id());
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
        let mut words = self.status();
        words[CAPACITY] = capacity;
        let status = program.words(&words);
        program.call(libc::SYS_msgctl, [self.id(), IPC_SET, status.0]);
        child.run(program, &[])?;
        Ok(())
    }
}

/// The line of a record: a queue has three columns more in front of its owner.
fn read(record: &SystemVRecord) -> Result<Line, RestoreError> {
    let owner = if matches!(record.state, SystemVState::Semaphores(_)) { 4 } else { 7 };
    Line::read(&record.line, owner)
}

/// What is said of each that is told of as it should be.
fn lines(manifest: &Manifest) -> impl Iterator<Item = Result<(Line, &SystemVState), RestoreError>> {
    manifest.system_v.iter().map(|record| {
        let line = read(record)?;
        match &record.state {
            SystemVState::Semaphores(values) if values.len() as u64 != line.size.saturating_mul(2) => {
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
        let next_id = match state {
            SystemVState::Semaphores(_) => NEXT_SET,
            SystemVState::Queue { .. } => NEXT_QUEUE,
        };
        ipc::prove(child, Step::SystemV(line.id), next_id)?;
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
        let expected = Line { key: -5, id: 3, mode: 0o640, size: 2, user: 7, group: 8 };
        assert_eq!(read(&set).ok(), Some(expected));
        let queue = SystemVState::Queue { capacity: 16384, messages: Vec::new() };
        let queue = record("9 4 600 11 1 21 22 7 8 7 8 0 0 1", queue);
        let expected = Line { key: 9, id: 4, mode: 0o600, size: 11, user: 7, group: 8 };
        assert_eq!(read(&queue).ok(), Some(expected));
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
