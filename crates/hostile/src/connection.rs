//! A whole connection: any bytes, in any pieces, at each of its stages, in clear and sealed.

use protocol::{
    Channel, ContentRecord, Hello, Kind, Manifest, MigrationId, PageMap, Reason, Reserved, SourceReport,
};
use transport::{Connection, ConnectionError, Expected, IoOutcome, Stream};

use crate::seals::sessions;

/// Gives out `input` in pieces of `piece` bytes, and then ends.
#[derive(Debug)]
struct Wire<'a> {
    input: &'a [u8],
    piece: usize,
}

impl Stream for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome {
        let count = buffer.len().min(self.piece).min(self.input.len());
        let (now, later) = self.input.split_at(count);
        self.input = later;
        buffer.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        if count == 0 { IoOutcome::Closed } else { IoOutcome::Done(count) }
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        IoOutcome::Done(head.len() + body.len())
    }
}

/// The first byte chooses the stage, the second the pieces, the others are what comes.
pub fn connection_bytes(bytes: &[u8]) {
    let [stage, piece, input @ ..] = bytes else { return };
    let wire = Wire { input, piece: usize::from(*piece).max(1) };
    let channel = Channel::ALL.get(usize::from(stage / 16 % 3)).copied().unwrap_or(Channel::Control);
    let outcome = match stage % 8 {
        0 => greeting(wire),
        1 => answer(wire, channel),
        2 => key(wire),
        3 => key_answer(wire, channel),
        4 => each_frame(&mut Connection::new(wire, Expected::FromDestination(channel))),
        5 => sealed(wire, channel),
        _ => each_frame(&mut Connection::new(wire, Expected::FromSource(channel))),
    };
    let _either: Result<(), ConnectionError> = outcome;
}

fn greeting(wire: Wire<'_>) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(wire, Expected::Greeting);
    if let Some(hello) = transport::poll_hello(&mut connection)?
        && transport::negotiate(hello.oldest, hello.newest).is_some()
    {
        connection.expect(Expected::FromSource(hello.channel));
        return each_frame(&mut connection);
    }
    Ok(())
}

fn hello(channel: Channel) -> Hello {
    Hello { sealed: true, ..Hello::new(MigrationId([7; 16]), channel) }
}

fn answer(wire: Wire<'_>, channel: Channel) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(wire, Expected::Answer);
    transport::poll_answer(&mut connection, &hello(channel))?;
    each_frame(&mut connection)
}

fn key(wire: Wire<'_>) -> Result<(), ConnectionError> {
    transport::poll_key(&mut Connection::new(wire, Expected::Key)).map(drop)
}

/// Nobody who lacks the key is let in.
fn key_answer(wire: Wire<'_>, channel: Channel) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(wire, Expected::KeyAnswer);
    let mut initiator = Some(crate::seals::initiator());
    let found = transport::poll_key_answer(&mut connection, channel, &mut initiator)?;
    assert!(!matches!(found, Some(transport::Answer::Sealed)), "a proof without the key");
    Ok(())
}

/// Nothing comes out of a sealed connection that the other side has not put in.
fn sealed(wire: Wire<'_>, channel: Channel) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(wire, Expected::FromSource(channel));
    connection.seal(sessions().1);
    assert!(connection.receive()?.is_none(), "a frame without the key");
    Ok(())
}

/// Every frame, understood as the side that it is for understands it.
fn each_frame(connection: &mut Connection<Wire<'_>>) -> Result<(), ConnectionError> {
    while let Some(frame) = connection.receive()? {
        let (header, body) = (frame.header, frame.body);
        assert_eq!(header.body_len as usize, body.len());
        match header.kind {
            Kind::Pages | Kind::PageRequest => drop(header.pages()?),
            Kind::PackedPages => drop(fault_handler::unpack(header, body, &mut Vec::new())?),
            Kind::ZeroPages | Kind::LostPages | Kind::Pushed | Kind::Unscanned => {
                header.counted_pages(body)?;
            }
            Kind::PageBits => drop(header.listed_pages(body)?),
            Kind::Reserve | Kind::Switchover => drop(connection.message::<Manifest>()?),
            Kind::Reserved => drop(connection.message::<Reserved>()?),
            Kind::Content => drop(connection.message::<ContentRecord>()?),
            Kind::PageMap => drop(connection.message::<PageMap>()?),
            Kind::SourceReport => drop(connection.message::<SourceReport>()?),
            Kind::Cancel | Kind::Failed | Kind::Abort => drop(connection.message::<Reason>()?),
            _ => {}
        }
    }
    Ok(())
}
