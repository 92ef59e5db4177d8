//! From frames of the destination to inputs of the engine.

use engine::{Failure, SourceInput};
use protocol::{Channel, Header, Kind, Reason, Reserved};
use relay::Socket;
use transport::{Connection, ConnectionError};

use crate::channels::failure_of;

/// What a frame means.
#[derive(Debug)]
pub(crate) enum Heard {
    /// For the engine as it is.
    Input(SourceInput),
    /// `Reserved`: the verdicts are for the process.
    Reserved(Reserved),
    /// `Running`, with the process id there.
    Running { pid_there: u64, patience_s: u16 },
}

/// The next frame of `connection`; `None` when there is none for now.
pub(crate) fn hear(channel: Channel, connection: &mut Connection<Socket>) -> Result<Option<Heard>, Failure> {
    let frame = connection.receive().map_err(|error| failure_of(channel, &error))?;
    let Some(header) = frame.map(|frame| frame.header) else { return Ok(None) };
    understand(header, connection).map(Some).map_err(|error| failure_of(channel, &error))
}

fn understand(header: Header, connection: &Connection<Socket>) -> Result<Heard, ConnectionError> {
    let body = connection.frame().map(|frame| frame.body).unwrap_or_default();
    let input = match header.kind {
        Kind::Reserved => return Ok(Heard::Reserved(connection.message()?)),
        Kind::Running => {
            return Ok(Heard::Running { pid_there: header.argument, patience_s: header.count });
        }
        Kind::Ready => SourceInput::Ready,
        Kind::PageRequest => SourceInput::PageRequested(header.pages()?),
        Kind::Drained => SourceInput::Drained,
        Kind::Abort | Kind::Failed => {
            let failure = Failure::Peer(connection.message::<Reason>()?.printable());
            if header.kind == Kind::Abort {
                SourceInput::Aborted(failure)
            } else {
                SourceInput::Broken(failure)
            }
        }
        Kind::Unscanned => SourceInput::Unscanned(header.counted_pages(body)?),
        Kind::PageBits => {
            SourceInput::Listed { arrived: header.count != 0, pages: header.listed_pages(body)? }
        }
        Kind::Recover => SourceInput::ListDone,
        Kind::RoundTaken => SourceInput::RoundTaken,
        Kind::Hello
        | Kind::Welcome
        | Kind::Refused
        | Kind::KeyExchange
        | Kind::Reserve
        | Kind::Switchover
        | Kind::Run
        | Kind::PageMap
        | Kind::PageMapDone
        | Kind::PushDone
        | Kind::Cancel
        | Kind::SourceReport
        | Kind::Content
        | Kind::ContentBytes
        | Kind::Relayed
        | Kind::RelayCredit
        | Kind::RelayReset
        | Kind::RoundEnd
        | Kind::Pages
        | Kind::PackedPages
        | Kind::ZeroPages
        | Kind::LostPages
        | Kind::Pushed => return Err(ConnectionError::Unexpected(header.kind)),
    };
    Ok(Heard::Input(input))
}
