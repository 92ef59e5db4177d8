//! `receive`: the receiver's daemon, whose sessions take in trees of processes.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use engine::{Config, OnLoss};
use fault_handler::FaultHandler;
use mio::net::TcpStream;
use nix::sys::signal::SigSet;
use protocol::{Kind, Reason, Travel};
use receiver::cli::Options;
use receiver::config::FAREWELL_DEADLINE;
use receiver::daemon::{Daemon, Trade};
use receiver::events::SessionEvent;
use receiver::guardian::wait_for;
use receiver::inherited::{Inherited, Purpose, SESSION_OPTION};
use receiver::peer::Peer;
use receiver::policy::{Compress, Policy};
use receiver::sealing::connections;
use receiver::session;
use receiver::session::teller::Teller;
use transport::Connection;

use crate::arrival::Arrival;
use crate::config::RESTORE_DEADLINE;
use crate::criu::Criu;
use crate::directory::Directory;
use crate::handover::Handover;
use crate::inherit::{Heir, Inherit};
use crate::restoration::Restoration;
use crate::served::Served;
use crate::shadow::store::DEFAULT_STORE;

/// Where sources look for it.
const DEFAULT_PORT: u16 = 43001;

/// `criu-bridge receive`
#[derive(Args, Debug)]
pub(crate) struct Receive {
    /// Port to listen on; 0 takes a free one and says which
    #[arg(default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Take one tree only and exit when its root has ended
    #[arg(long)]
    once: bool,
    /// Append what happens to FILE, one JSON object a line; - is standard output
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// What becomes of a tree whose missing memory does not come: wait, poison (SIGBUS where it is touched), kill
    #[arg(long, value_name = "WHAT", default_value = "poison")]
    on_loss: Loss,
    /// How long a tree waits for a lost link, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    loss_deadline: u16,
    /// Address to listen on, such as 0.0.0.0; any but a loopback address needs a key
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
    /// Take only trees whose sender has the same key, over encrypted links
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where images lie until a tree runs
    #[arg(long, short = 'D', value_name = "DIR")]
    images_dir: Option<PathBuf>,
    /// Where shadows are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STORE)]
    store: PathBuf,
    /// Whether pages come compressed: auto (over a link that is slow enough, if they get smaller by it), off
    #[arg(long, value_name = "MODE", default_value = "auto", hide_possible_values = true)]
    compress: Compress,
    #[command(flatten)]
    inherit: Inherit,
}

/// Exit status when the command line makes no sense.
const WRONG_LINE: u8 = 2;

/// What becomes of a tree whose missing memory does not come.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    /// It waits on.
    Wait,
    /// Touching what is lost ends in SIGBUS.
    Poison,
    /// It is killed.
    Kill,
}

impl Receive {
    /// Receives until a signal or `--once` ends it.
    ///
    /// # Errors
    /// A port, key or file that cannot be had.
    pub(crate) fn run(&self, criu: &Criu) -> anyhow::Result<ExitCode> {
        if let Some(heir) = Heir::missing(&self.inherit.inherit_fd) {
            crate::tell(format_args!("--inherit-fd {heir}: this descriptor is not open"));
            return Ok(ExitCode::from(WRONG_LINE));
        }
        let directory = self.images_dir.clone().unwrap_or_else(std::env::temp_dir);
        if !directory.is_dir() {
            bail!("--images-dir: '{}' is no directory", directory.display());
        }
        let options = Options {
            port: self.port,
            once: self.once,
            events: self.events.clone(),
            on_loss: match self.on_loss {
                Loss::Wait => OnLoss::Wait,
                Loss::Poison => OnLoss::Poison,
                Loss::Kill => OnLoss::Kill,
            },
            loss_deadline: self.loss_deadline,
            bind: self.bind,
            key_file: self.key_file.clone(),
            policy: Policy { compress: self.compress, ..Policy::default() },
        };
        let heirs: Vec<String> = self.inherit.inherit_fd.iter().map(ToString::to_string).collect();
        let heirs = heirs.join(BETWEEN_HEIRS).into();
        let store = self.store.clone().into_os_string();
        let session = vec![SESSION.into(), criu.path().into(), directory.into_os_string(), store, heirs];
        Daemon::start(&options, Trade { name: "criu-bridge", session })?.run()
    }
}

/// The first argument of a session.
pub(crate) const SESSION: &str = "--receive-session";
/// Between the descriptors that it is to hand on.
const BETWEEN_HEIRS: &str = "\n";

/// Runs the session that the daemon has started with `arguments`, what is behind [`SESSION`].
///
/// # Errors
/// What made it end early; the daemon tells its user.
pub(crate) fn session(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let inherited = match arguments {
        [criu, directory, store, heirs, option, rest @ ..] if option == SESSION_OPTION => {
            Inherited::take_over(rest).map(|inherited| (criu, directory, store, heirs, inherited))
        }
        _ => None,
    };
    let (criu, directory, store, heirs, inherited) =
        inherited.ok_or_else(|| anyhow!("{SESSION} is for the daemon's own use"))?;
    // The daemon's, who takes its signals from a descriptor; a session is to be ended by them.
    SigSet::empty().thread_set_mask().context("clearing the signal mask")?;
    let criu =
        Criu::find(Some(criu.as_ref()), directory.as_ref(), None).context("there is no criu any more")?;
    let Purpose::Receive { on_loss, patience_s } = inherited.purpose else {
        return session::run(inherited);
    };
    let heirs: Result<Vec<Heir>, String> =
        heirs.to_string_lossy().split_terminator(BETWEEN_HEIRS).map(str::parse).collect();
    let heirs = heirs.map_err(|error| anyhow!(error))?;
    let Inherited { control, fault, push, line, sealing, events, policy, .. } = inherited;
    let is_root = sealing.is_some() || matches!(Peer::of(&control), Peer::Trusted);
    let connections = connections([control, fault, push], sealing)?;
    let teller = Teller::new(events);
    if !is_root {
        return refuse(&teller, connections);
    }
    let channels = session::over(connections);
    session::raise_descriptor_limit();
    let directory = Directory::private(directory.as_ref()).context("making a directory for images")?;
    let handover = Handover::listen(directory.path()).context("listening for criu")?;
    let config = Config {
        on_loss,
        setup_deadline: RESTORE_DEADLINE,
        switchover_deadline: RESTORE_DEADLINE,
        recovery_deadline: Duration::from_secs(patience_s.into()),
        ..Config::default()
    };
    let tree = Served::new(Restoration::new(criu, directory, teller, line).with_heirs(heirs), handover);
    // Of how memory travels it is the only thing that is this side's to say.
    let travel = Travel { packed: policy.travel().packed, ..Travel::default() };
    let mut arrival = Arrival::new(tree.with_travel(travel), store.into());
    let handler =
        FaultHandler::new(&mut arrival, channels, config).context("preparing to wait for the source")?;
    let ended = handler.run();
    arrival.conclude(ended);
    Ok(ExitCode::SUCCESS)
}

/// Takes nothing from this source, and says so on both sides.
fn refuse(
    teller: &Teller,
    [mut control, _fault, _push]: [Connection<TcpStream>; 3],
) -> anyhow::Result<ExitCode> {
    let reason = "without a key only root brings a tree: its processes may be anybody's".to_owned();
    // If it cannot hear, it sees the connection close.
    let _ = control.send_message(Kind::Abort, &Reason { text: reason.clone() });
    teller.tell(&SessionEvent::Refused { reason });
    wait_for(control.stream().as_fd(), FAREWELL_DEADLINE).context("waiting for the source to hang up")?;
    Ok(ExitCode::SUCCESS)
}
