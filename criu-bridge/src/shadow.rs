//! Shadows: copies of running trees that are kept up to date elsewhere, to go on there when the original is gone.
//!
//! Every epoch is a migration whose destination is a store instead of a process, and which ends with the tree
//! where it was: the loops, the channels and their keys are those of every other. What is of its own here is the list of
//! pages that need not travel, because the epoch before has them. Promoting one is a migration as well, out of the store.
//!
//! A source announces an epoch as soon as the one before is complete, and then waits with the tree's stop until it is time:
//! so the destination knows all along whether it is there.

mod digests;
pub mod epoch;
mod files;
pub mod index;
pub(crate) mod list;
pub(crate) mod promote;
mod promotion;
pub mod sizes;
mod standby;
pub(crate) mod storage;
pub(crate) mod store;
mod stored;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use engine::{Config, Failure};
use memory::PAGE_SIZE;
use page_server::{Outcome, Serving, serve};
use receiver::guardian::wait_for;

use self::digests::{Digester, Known};
use self::epoch::{Epoch, Origin};
use self::standby::{ENDED, Plan, Stage, Standby};
use self::store::{GONE, PROMOTED, SCATTERED};
use crate::config::{
    LONGEST_INTERVAL, LONGEST_SHADOW_NAME, RESTORE_DEADLINE, SHADOW_RETRY, SHORTEST_INTERVAL,
};
use crate::consent::Consent;
use crate::criu::Criu;
use crate::frozen::{Frozen, Order};
use crate::instance::Terms;
use crate::route::Route;
use crate::swrk;

/// What CRIU could be permitted and a shadow refuses.
pub(crate) const REFUSED: [&str; 2] = ["tcp_established", "link_remap"];

/// `criu-bridge shadow`
#[derive(Args, Debug)]
pub(crate) struct Keep {
    /// Process id of the tree's root
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,
    /// Where criu-bridge receive keeps it
    #[arg(value_name = "HOST:PORT")]
    receiver: String,
    /// From one stop of the tree to the next, such as 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_interval)]
    every: Duration,
    /// What the shadow is called; COMMAND-PID@HOST unless given
    #[arg(long, value_parser = parse_name)]
    name: Option<String>,
    /// The key that the receiver has; without one a shadow is kept on the same machine only
    #[arg(long, value_name = "FILE", env = "POSTHASTE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Where images and what has changed lie for a moment
    #[arg(long, short = 'D', value_name = "DIR")]
    images_dir: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

impl Keep {
    /// Keeps the shadow up to date until the tree ends.
    ///
    /// # Errors
    /// Why there is none, or none any more, in one line; the tree goes on.
    pub(crate) fn run(&self, criu: &Criu) -> anyhow::Result<u8> {
        receiver::session::raise_descriptor_limit();
        let mut keeper =
            self.keeper(criu).map_err(|error| anyhow!("{error:#}; the tree goes on, without a shadow"))?;
        while keeper.turn()? {}
        Ok(0)
    }

    fn keeper(&self, criu: &Criu) -> anyhow::Result<Keeper> {
        if self.consent.tcp_established {
            bail!("--tcp-established: a shadow's connections are closed, the original keeps them");
        }
        if self.consent.link_remap {
            bail!("--link-remap: the name that criu makes is gone when the tree goes on");
        }
        let root = sys::pidfd::open(self.pid).map_err(|_| anyhow!("there is no process {}", self.pid))?;
        let origin = origin_of(self.pid).with_context(|| format!("looking at process {}", self.pid))?;
        let name = self.name.clone().unwrap_or_else(|| default_name(&origin));
        let version = swrk::version(criu).context("asking criu for its version")?;
        let consent = Consent { tcp_close: true, ..self.consent.clone() };
        let key_file = self.key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let epoch = Epoch {
            shadow: name,
            origin,
            id: [0; 16],
            base: None,
            every_ms: u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX),
            content: None,
        };
        Ok(Keeper {
            criu: criu.clone(),
            route: Route::to(&self.receiver, key_file)?,
            order: Order {
                pid: self.pid,
                directory: self.images_dir.clone().unwrap_or_else(std::env::temp_dir),
                terms: Terms { criu: version, lazy: true, consent },
                leave_running: true,
            },
            epoch,
            root,
            digester: Digester::new().context("making a key")?,
            known: None,
            every: self.every,
            due: Instant::now(),
            is_kept: false,
            is_lost: false,
        })
    }
}

/// Keeps one up to date.
#[derive(Debug)]
struct Keeper {
    criu: Criu,
    route: Route,
    order: Order,
    epoch: Epoch,
    root: OwnedFd,
    digester: Digester,
    /// The last epoch that is known to be complete there.
    known: Option<Known>,
    every: Duration,
    /// When the tree is stopped next.
    due: Instant,
    /// There has been one.
    is_kept: bool,
    /// The user has been told that the receiver does not answer.
    is_lost: bool,
}

impl Keeper {
    /// Takes one epoch there; false when there will be no more.
    fn turn(&mut self) -> anyhow::Result<bool> {
        let route = self.route.for_another()?;
        let (channels, link) = match route.open_watched() {
            Ok(opened) => opened,
            Err(error) => return self.lost(&error),
        };
        let id = sys::random::sixteen_bytes().map_err(std::io::Error::from)?;
        self.epoch.id = id;
        self.epoch.base = self.known.as_ref().map(|known| known.id);
        let mut standby = Standby::new(Plan {
            frozen: Frozen::new(self.criu.clone(), self.order.clone(), route),
            root: &self.root,
            epoch: self.epoch.clone(),
            due: self.due,
            link,
            digester: &self.digester,
            known: self.known.as_ref(),
            directory: &self.order.directory,
        });
        let config = Config {
            setup_deadline: RESTORE_DEADLINE,
            switchover_deadline: RESTORE_DEADLINE,
            ..Config::default()
        };
        let running = Arc::new(standby.running());
        let started = engine::Instant(sys::clock::monotonic_ns());
        let outcome = serve(&mut standby, Serving { channels, running, config, started });
        let (stage, pages, freeze) = (standby.stage, standby.pages, standby.freeze);
        let (begun, known) = (standby.begun, standby.known);
        if stage != Stage::Announced && std::mem::take(&mut self.is_lost) {
            crate::tell(format_args!("connected again"));
        }
        if let Some(begun) = begun {
            self.due = begun + self.every;
        }
        match outcome {
            Outcome::Moved { pid_there } => {
                self.known = known;
                self.is_kept = true;
                crate::tell(format_args!(
                    "epoch {pid_there} of shadow {}: {} pages ({} KiB) by value, {} by reference, {} zero; the tree \
                     stood still for {} ms",
                    self.epoch.shadow,
                    pages.by_value,
                    pages.by_value * PAGE_SIZE / 1024,
                    pages.by_reference,
                    pages.zero,
                    freeze.as_millis(),
                ));
                Ok(true)
            }
            Outcome::Released(failure) | Outcome::Lost(failure) => self.missed(stage, failure),
        }
    }

    /// There was no epoch; whether there may be more.
    fn missed(&mut self, stage: Stage, failure: Failure) -> anyhow::Result<bool> {
        if self.has_ended() {
            return Ok(self.ended());
        }
        match (stage, failure) {
            (_, Failure::Peer(reason)) if reason.contains(PROMOTED) => {
                bail!("{reason}; the tree goes on here, without a shadow")
            }
            (Stage::Announced, Failure::Peer(reason)) if reason.contains(GONE) => {
                self.known = None;
                Ok(true)
            }
            (_, failure) if !self.is_kept => bail!("{failure}; the tree goes on here, without a shadow"),
            (Stage::Announced | Stage::Waiting, failure) => self.lost(&anyhow!("{failure}")),
            (Stage::Taken, failure) => {
                if matches!(&failure, Failure::Peer(reason) if reason.contains(SCATTERED)) {
                    self.known = None;
                }
                crate::tell(format_args!(
                    "no epoch: {failure}; the tree goes on, and the epoch before is kept"
                ));
                Ok(true)
            }
        }
    }

    /// The receiver does not answer: waits a moment.
    fn lost(&mut self, error: &anyhow::Error) -> anyhow::Result<bool> {
        if !self.is_kept && !self.is_lost {
            bail!("{error:#}; the tree goes on here, without a shadow");
        }
        if !std::mem::replace(&mut self.is_lost, true) {
            crate::tell(format_args!("{error:#}; the tree goes on; trying again"));
        }
        if wait_for(self.root.as_fd(), SHADOW_RETRY)? { Ok(self.ended()) } else { Ok(true) }
    }

    fn has_ended(&self) -> bool {
        wait_for(self.root.as_fd(), Duration::ZERO).unwrap_or(false)
    }

    fn ended(&self) -> bool {
        let kept = if self.is_kept { "its last complete epoch is kept" } else { "it has no shadow" };
        crate::tell(format_args!("{ENDED}; {kept}"));
        false
    }
}

/// What a tree is known by.
fn origin_of(pid: u32) -> std::io::Result<Origin> {
    let printable = |letter: char| if letter.is_control() { '?' } else { letter };
    let line = |path: &str| {
        // A program may call itself whatever it likes.
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(bytes.trim_ascii_end());
        std::io::Result::Ok(text.chars().map(printable).collect::<String>())
    };
    Ok(Origin {
        host: line("/proc/sys/kernel/hostname")?,
        boot: boot_id()?,
        pid,
        started: started(pid)?,
        command: line(&format!("/proc/{pid}/comm"))?,
    })
}

/// This boot of this machine.
fn boot_id() -> std::io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim_end().to_owned())
}

/// When a process was started, in clock ticks since the boot.
fn started(pid: u32) -> std::io::Result<u64> {
    const FIELD: usize = 22;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before that may hold anything, brackets too.
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    let field = behind.split(' ').nth(FIELD - 3).and_then(|field| field.parse().ok());
    field.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn default_name(origin: &Origin) -> String {
    let fits = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let plain = |text: &str| text.chars().filter(fits).collect::<String>();
    let name = format!("{}-{}@{}", plain(&origin.command), origin.pid, plain(&origin.host));
    name.trim_start_matches(['.', '-']).chars().take(LONGEST_SHADOW_NAME).collect()
}

fn parse_name(name: &str) -> Result<String, String> {
    let is_name = epoch::is_name(name).then(|| name.to_owned());
    is_name.ok_or_else(|| "letters, digits and . _ - @ only, 64 at most".to_owned())
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let (least, most) = (SHORTEST_INTERVAL.as_millis(), LONGEST_INTERVAL.as_secs() / 60);
        format!("a time from {least}ms to {most}m, such as 500ms, 30s or 5m")
    };
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    let time = time.map(Duration::from_millis);
    time.filter(|time| (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(time)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        assert_eq!(parse_interval("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_interval("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_interval("5m"), Ok(Duration::from_secs(300)));
        for text in ["", "s", "1h", "-1s", "99ms", "46m", "18446744073709551615m", "1 s"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_of_its_own_is_always_a_name() {
        let origin = |command: &str, host: &str| Origin {
            command: command.to_owned(),
            host: host.to_owned(),
            pid: 7,
            ..Origin::default()
        };
        assert_eq!(default_name(&origin("redis-server", "north")), "redis-server-7@north");
        for (command, host) in [("../x y", "\u{e4}"), ("", ""), ("-.-", &*"h".repeat(90))] {
            assert!(epoch::is_name(&default_name(&origin(command, host))));
        }
    }

    #[test]
    fn this_process_was_started_once() {
        let origin = origin_of(std::process::id()).expect("it is here");
        assert_eq!(origin, origin_of(std::process::id()).expect("it is still here"));
        assert!(origin.started > 0 && !origin.boot.is_empty());
    }
}
