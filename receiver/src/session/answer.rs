//! What a source is told that asks how its migration ended, when nobody else is there to say.

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use mio::net::TcpStream;
use protocol::{Kind, Reason};
use transport::Connection;

use crate::config::FAREWELL_DEADLINE;
use crate::daemon::Fate;
use crate::guardian::wait_for;

/// Tells `fate` and waits until the source has hung up.
///
/// # Errors
/// The source is not there any more.
pub(super) fn tell(fate: Fate, channels: [Connection<TcpStream>; 3]) -> anyhow::Result<ExitCode> {
    let [mut control, _fault, _push] = channels;
    let reason = |text: &str| Reason { text: text.to_owned() };
    let told = match fate {
        Fate::Aborted => {
            control.send_message(Kind::Abort, &reason("the receiver has not run the process and never will"))
        }
        Fate::Drained => control.send_signal(Kind::Drained, 0),
        Fate::Failed => control.send_message(Kind::Failed, &reason("the process is lost at the receiver")),
    };
    told.context("telling a source how its migration ended")?;
    // Whoever closes first takes what is on its way along.
    wait_for(control.stream().as_fd(), FAREWELL_DEADLINE).context("waiting for the source to hang up")?;
    Ok(ExitCode::SUCCESS)
}
