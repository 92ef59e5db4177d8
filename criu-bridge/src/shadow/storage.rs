//! The destination of one epoch: a store on disk, which is a process to nobody but the loop.
//!
//! Pages are written where no kept epoch has any. When the last one is in place everything is brought to disk, and only
//! then the epoch gets its name; the loop hears of it as of a process that stands.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use engine::Failure;
use fault_handler::{Assembly, Mapped, Resumption};
use memory::{PAGE_SIZE, PageRange};
use nix::fcntl::Flock;
use protocol::Manifest;
use receiver::events::SessionEvent;

use super::epoch::{self, Content, Epoch};
use super::index::{Index, Slots};
use super::standby::ENDED;
use super::store::{GONE, PROMOTED, Record, SCATTERED, Shadow, Store, Stored, now_ms};
use crate::config::SHADOW_RETURN;
use crate::instance::Instance;

/// Of an epoch that is on its way.
#[derive(Debug)]
struct Incoming {
    instance: Instance,
    content: Content,
    slots: Slots,
    index: Index,
    pages: File,
}

/// The store, for one epoch.
#[derive(Debug)]
pub(crate) struct Storage {
    epoch: Epoch,
    shadow: Shadow,
    /// Held for as long as the source is here.
    lock: Option<Flock<File>>,
    /// Those that are there.
    kept: Vec<Stored>,
    incoming: Option<Incoming>,
    since: Instant,
    /// Its number and what is known of it, once it is complete.
    complete: Option<(u64, Record)>,
}

impl Storage {
    /// Prepares to take `epoch` into the store at `store`.
    ///
    /// # Errors
    /// Why not, in words for the user at the source.
    pub(crate) fn reserve(epoch: Epoch, store: &Path) -> Result<Self, Failure> {
        if !epoch.is_presentable() {
            return Err(Failure::Protocol("a shadow of nobody"));
        }
        let name = &epoch.shadow;
        let refuse = |text: String| Err(Failure::Local(text));
        let disk = |error: std::io::Error| Failure::Local(format!("shadow '{name}': {error}"));
        let shadow = Store::at(store).make(name).map_err(disk)?;
        let lock = shadow.lock_for(epoch.base.is_some(), SHADOW_RETURN).map_err(disk)?;
        if shadow.promotion().map_err(disk)?.is_some() {
            return refuse(PROMOTED.to_owned());
        }
        let Some(lock) = lock else {
            return refuse(format!(
                "somebody else keeps up a shadow '{name}': --name gives this one another"
            ));
        };
        match shadow.origin().map_err(disk)? {
            Some(origin) if !origin.is_same(&epoch.origin) => {
                return refuse(format!(
                    "there is a shadow '{name}' of process {} on {}: --name gives this one another, or criu-bridge \
                     shadows --remove {name} makes room",
                    origin.pid, origin.host
                ));
            }
            Some(_) => {}
            None => shadow.claim(&epoch.origin).map_err(disk)?,
        }
        shadow.tidy().map_err(disk)?;
        let kept = shadow.epochs().map_err(disk)?;
        if epoch.base.is_some_and(|base| !kept.iter().any(|stored| stored.record.id == base)) {
            return refuse(GONE.to_owned());
        }
        let (complete, incoming, since) = (None, None, Instant::now());
        Ok(Self { epoch, shadow, lock: Some(lock), kept, incoming, since, complete })
    }

    /// Takes what the epoch holds.
    pub(crate) fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        const BAD: Failure = Failure::Protocol("an epoch that cannot be");
        self.since = Instant::now();
        let mut instance = Instance::of(manifest).ok_or(BAD)?;
        let content = instance
            .epoch
            .take()
            .filter(|epoch| Epoch { content: None, ..epoch.clone() } == self.epoch)
            .and_then(|epoch| epoch.content)
            .ok_or(BAD)?;
        let all = instance.sequence().ok_or(BAD)?.pages();
        let kept: std::io::Result<Vec<Index>> = self.kept.iter().map(Stored::index).collect();
        let kept = kept.map_err(|error| reading(&error))?;
        let base = self.kept.iter().position(|stored| Some(stored.record.id) == self.epoch.base);
        let base = base.and_then(|at| kept.get(at)).cloned().unwrap_or_default();
        let pages = content.count(all, base.pages()).ok_or(BAD)?;
        let travelling = epoch::travelling(pages.by_value).filter(|eager| !eager.is_empty());
        if manifest.eager != travelling.into_iter().collect::<Vec<_>>() || !manifest.lazy.is_empty() {
            return Err(BAD);
        }
        let slots = if self.epoch.base.is_some() {
            Slots::free_of(&kept, pages.by_value)
        } else {
            Slots::together(&kept, pages.by_value)
        };
        let slots = slots.ok_or(BAD)?;
        let index = Index::build(&content, &base, &slots);
        let index = index.ok_or_else(|| Failure::Local(SCATTERED.to_owned()))?;
        let pages = self.shadow.pages().map_err(|error| writing(&error))?;
        self.incoming = Some(Incoming { instance, content, slots, index, pages });
        Ok(Mapped::Places(Vec::new()))
    }

    /// Writes pages that travel.
    pub(crate) fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        const NOBODYS: Failure = Failure::Protocol("pages of no epoch");
        let incoming = self.incoming.as_ref().ok_or(NOBODYS)?;
        let (mut number, mut bytes) = (epoch::number_of(at), bytes);
        while !bytes.is_empty() {
            let (slot, pages) = incoming.slots.find(number).ok_or(NOBODYS)?;
            let len = usize::try_from(pages * PAGE_SIZE).unwrap_or(usize::MAX).min(bytes.len());
            let (now, behind) = bytes.split_at_checked(len).ok_or(NOBODYS)?;
            incoming.pages.write_all_at(now, slot * PAGE_SIZE).map_err(|error| writing(&error))?;
            number += len as u64 / PAGE_SIZE;
            bytes = behind;
        }
        Ok(())
    }

    /// Every page is in place: makes the epoch complete.
    pub(crate) fn assemble(&mut self) -> Result<Assembly, Failure> {
        let Incoming { instance, content, index, pages, .. } =
            self.incoming.take().ok_or(Failure::Protocol("an epoch without pages"))?;
        let before = u64::MAX;
        let counted = content.count(index.pages(), before).unwrap_or_default();
        // Most of what there is to wait for.
        pages.sync_all().map_err(|error| writing(&error))?;
        let here = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let record = Record {
            id: self.epoch.id,
            pages: counted,
            freeze_us: content.freeze_us,
            lag_us: content.age_us.saturating_add(here),
            stored_ms: now_ms(),
            every_ms: self.epoch.every_ms,
        };
        let number = self.shadow.commit(&instance, &index, &record, &pages);
        let number = number.map_err(|error| writing(&error))?;
        self.shadow.expect(true);
        self.complete = Some((number, record));
        Ok(Assembly::Done)
    }

    /// Nothing runs here: the number of the epoch takes the place of a process id.
    pub(crate) fn resume(&self) -> Result<Resumption, Failure> {
        let number = self.complete.as_ref().map(|(number, _)| u32::try_from(*number).unwrap_or(u32::MAX));
        number.map(Resumption::Done).ok_or_else(|| Failure::Local("the epoch is not complete".to_owned()))
    }

    /// It is over, after `wire_bytes` have come; what there is to tell.
    pub(crate) fn conclude(mut self, reason: Option<String>, wire_bytes: u64) -> SessionEvent {
        let shadow = self.epoch.shadow.clone();
        let event = match self.complete.take() {
            Some((epoch, record)) => SessionEvent::Stored {
                shadow,
                epoch,
                by_value: record.pages.by_value,
                by_reference: record.pages.by_reference,
                zero: record.pages.zero,
                wire_bytes,
                freeze_us: record.freeze_us,
                lag_us: record.lag_us,
            },
            None => {
                let reason = reason.unwrap_or_default();
                if self.lock.is_some() {
                    // Else the disk might stay full, also for who promotes the epoch before.
                    let _ = self.shadow.tidy().and_then(|()| self.shadow.trim());
                    self.shadow.expect(!reason.contains(ENDED));
                }
                SessionEvent::Missed { shadow, reason }
            }
        };
        self.lock = None;
        event
    }

    /// Nobody is there any more who could come back to this epoch.
    pub(crate) fn let_go(&mut self) {
        self.lock = None;
    }
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::Local(format!("writing an epoch: {error}"))
}

fn reading(error: &std::io::Error) -> Failure {
    Failure::Local(format!("reading the epochs before: {error}"))
}
