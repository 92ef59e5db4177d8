//! A tree that comes in, as [`Served`](crate::served::Served) has it built: step by step, and told of what happens meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use engine::Failure;
use fault_handler::{Measurement, Notification, Resumption};
use receiver::events::SessionEvent;
use receiver::guardian::Guardian;
use receiver::handover::{self, HandedOver};
use receiver::sealing::connections;
use sys::uffd::Uffd;

use super::Restoration;
use super::stage::{Pulse, Stage};
use crate::config::{LONGEST_NAME, MOST_FILES};
use crate::instance::Instance;
use crate::members;
use crate::quiet::Quiet;
use crate::served::{Line, Rebuilder};
use crate::swrk::{self, Swrk};

impl Rebuilder for Restoration {
    fn reserve(&mut self, instance: &Instance) -> Result<(), Failure> {
        self.account.teller.tell(&SessionEvent::Introduced);
        let refuse = |text: String| Err(Failure::Local(text));
        let there = instance.terms.criu;
        let answer = match swrk::version(&self.criu) {
            Ok(here) if here < there => {
                let ((a, b), (c, d)) = (here, there);
                refuse(format!(
                    "criu {a}.{b} is older than the source's {c}.{d}: make criu installs a newer one"
                ))
            }
            Ok(_) => Ok(()),
            Err(error) => refuse(error.to_string()),
        };
        self.account.refused = answer.is_err();
        answer
    }

    fn prepare(&mut self, instance: &Instance) -> Result<(), Failure> {
        const BAD: Failure = Failure::Protocol("images that cannot be");
        let is_name = |name: &[u8]| {
            name.ends_with(b".img")
                && name.len() <= LONGEST_NAME
                && !name.contains(&b'/')
                && !name.contains(&0)
        };
        if instance.files.len() > MOST_FILES || instance.files.iter().any(|file| !is_name(&file.name)) {
            return Err(BAD);
        }
        for image in &instance.files {
            let name = std::str::from_utf8(&image.name).map_err(|_| BAD)?;
            let path = self.directory.path().join(name);
            let file = File::create_new(&path).and_then(|file| file.set_len(image.len).map(|()| file));
            self.files.push(file.map_err(|error| writing(&error))?);
        }
        self.instance = instance.clone();
        self.account.source_pid = self.root();
        self.account.prepared = true;
        Ok(())
    }

    fn write(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.files.get(index).ok_or(Failure::Protocol("an image that nobody named"))?;
        file.write_all_at(bytes, offset).map_err(|error| writing(&error))
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.files.clear();
        self.start().map_err(|error| Failure::Local(format!("{error:#}")))
    }

    fn progress(&mut self, _line: Line) -> Option<Result<(), Failure>> {
        if self.stage != Stage::Building {
            // What it says from there on is for `resumed`.
            return None;
        }
        let built = self.hear_criu().or_else(|| self.waits_for_a_lock().map(Err))?;
        // There is nothing to look for until the tree is to run.
        self.pulse.iter().for_each(Pulse::end);
        Some(built.map_err(|error| {
            self.stage = Stage::Over;
            Failure::Local(error.to_string())
        }))
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        let worker = self.worker.as_ref().map(Swrk::readiness);
        let guardian = self.guardian.as_ref().and_then(Guardian::readiness);
        let pulse = self.pulse.as_ref().map(AsFd::as_fd);
        [self.account.teller.readiness(), self.line.as_fd()]
            .into_iter()
            .chain(worker)
            .chain(guardian)
            .chain(pulse)
            .collect()
    }

    fn notification(&mut self) -> Option<Notification> {
        if self.account.teller.has_hung_up() {
            return Some(Notification::Abandoned(Failure::Local("the receiver has ended".into())));
        }
        // If they cannot be sealed, the source sees them close and comes again.
        if let Ok(Some(HandedOver::Channels(sockets, sealing))) = handover::receive(&self.line)
            && let Ok(connections) = connections(sockets, sealing)
        {
            return Some(Notification::Reconnected(Box::new(receiver::session::over(connections))));
        }
        let was_empty = self.is_empty;
        self.hear_guardian();
        if self.is_empty && !was_empty && matches!(self.stage, Stage::Stands | Stage::Over) {
            return Some(Notification::Ended);
        }
        // While CRIU works, what it has to say about that is of more use.
        self.resumed()
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        let failed = |text: String| Failure::Local(format!("letting the tree go: {text}"));
        let worker = self.worker.as_ref().filter(|_| self.stage == Stage::Stands);
        let (Some(worker), Some(guardian)) = (worker, &self.guardian) else {
            return Err(failed("it does not stand".to_owned()));
        };
        let pid = guardian.pid().and_then(|guardian| members::child_of(guardian, self.root()));
        let pid = pid.map_err(|error| failed(error.to_string()))?;
        let process = sys::pidfd::open(pid).map_err(|errno| failed(errno.to_string()))?;
        guardian.follow(process.as_fd()).map_err(|error| failed(error.to_string()))?;
        self.pulse.as_ref().map_or(Ok(()), Pulse::begin).map_err(|errno| failed(errno.to_string()))?;
        self.committed = true;
        self.account.teller.tell(&SessionEvent::Committed);
        worker.go_on(true).map_err(|error| failed(error.to_string()))?;
        (self.stage, self.root_here) = (Stage::Finishing, pid);
        // Every end is there.
        self.quiet.iter_mut().for_each(Quiet::lift);
        Ok(Resumption::Begun)
    }

    fn process_here(&mut self, pid: u32) -> Option<u32> {
        // All of them stand before the first one hands over memory.
        if !self.here.contains_key(&pid) {
            self.here = members::there_now(self.guardian.as_ref()?.pid().ok()?);
        }
        self.here.get(&pid).copied()
    }

    fn hold(&mut self, uffd: &Uffd) -> Result<(), Failure> {
        let guardian =
            self.guardian.as_ref().ok_or_else(|| Failure::Local("there is no guardian".to_owned()))?;
        guardian.hold(uffd.as_fd()).map_err(|error| Failure::Local(error.to_string()))
    }

    fn finished(&mut self) {
        self.late_locks.outlive();
        if let Some(guardian) = &mut self.guardian {
            // One that cannot be talked to has ended, and the tree with it.
            let _ = guardian.complete();
        }
    }

    fn discard(&mut self) {
        self.guardian = None;
        self.worker = None;
        self.quiet = None;
        // There is no end to wait for.
        (self.stage, self.is_empty) = (Stage::Over, true);
        self.directory.delete();
    }

    fn measured(&mut self, measurement: Measurement) {
        if let Some(pulse) = &mut self.pulse {
            match measurement {
                Measurement::Paused(_) => pulse.is_paused = true,
                Measurement::Recovered => pulse.is_paused = false,
                Measurement::Source(_) | Measurement::Progress(_) => {}
            }
        }
        self.account.measured(measurement);
    }
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::Local(format!("writing images: {error}"))
}
