//! Frames of the source, as inputs of the engine.

use engine::{Content, DestinationInput, Failure};
use memory::PageRange;
use protocol::{Channel, FrameError, Header, Kind, Manifest, PageMap, Reason, SourceReport};
use transport::ConnectionError;

use crate::handler::FaultHandler;
use crate::{DestinationProcess, Measurement, channels::Line};

impl<P: DestinationProcess> FaultHandler<'_, P> {
    /// Hands in the frame that is in hand on `channel`.
    pub(crate) fn accept(&mut self, channel: Channel) {
        let line = self.channels.get_mut(channel);
        let Some(header) = line.connection.frame().map(|frame| frame.header) else { return };
        let input = match header.kind {
            Kind::Pages | Kind::PackedPages | Kind::ZeroPages | Kind::LostPages => pages(line, header),
            Kind::Pushed => pushed(line, header),
            _ => self.control(header),
        };
        match input {
            Ok(Some(input)) => {
                if let DestinationInput::PagesArrived { channel, pages, content: Content::Data } = input {
                    self.channels.get_mut(channel).holds(pages);
                }
                self.inputs.push_back(input);
            }
            Ok(None) => {}
            Err(error) => self.connection_ended(channel, &error),
        }
    }

    /// Hands in a control frame. The connection has checked that its kind may come from a source.
    fn control(&mut self, header: Header) -> Result<Option<DestinationInput>, ConnectionError> {
        let control = &self.channels.get(Channel::Control).connection;
        Ok(Some(match header.kind {
            Kind::Reserve => {
                self.manifest = Some(control.message::<Manifest>()?);
                DestinationInput::ReserveRequested
            }
            Kind::Switchover => {
                let manifest = control.message::<Manifest>()?;
                self.testament =
                    self.testament.take().and_then(|testament| testament.keep(&manifest, control));
                let (eager, lazy) = (manifest.eager.clone(), manifest.lazy.clone());
                let kept = manifest.kept.clone();
                self.manifest = Some(manifest);
                DestinationInput::SwitchoverRequested { eager, lazy, kept }
            }
            Kind::Content | Kind::ContentBytes if self.engine.takes_content() => {
                let body = control.frame().map(|frame| frame.body).unwrap_or_default();
                let taken = self.process.content(header, body);
                taken.map_or_else(DestinationInput::PrepareFailed, |()| DestinationInput::ContentArrived)
            }
            Kind::Content | Kind::ContentBytes => DestinationInput::ContentArrived,
            Kind::RoundEnd => DestinationInput::RoundEnded { last: header.argument != 0 },
            Kind::Run => DestinationInput::Run { epoch: header.argument },
            Kind::PageMap => {
                let PageMap { scanned, data } = control.message()?;
                DestinationInput::PageMap { scanned, data }
            }
            Kind::PageMapDone => DestinationInput::PageMapDone,
            Kind::PushDone => DestinationInput::PushDone,
            Kind::Cancel | Kind::Failed => {
                DestinationInput::Broken(Failure::Peer(control.message::<Reason>()?.printable()))
            }
            Kind::SourceReport => {
                let report = control.message::<SourceReport>()?;
                self.process.measured(Measurement::Source(report));
                return Ok(None);
            }
            kind => return Err(ConnectionError::Unexpected(kind)),
        }))
    }
}

/// Unpacks the body of a [`Kind::PackedPages`] frame into `unpacked`: the bytes of the pages that it names, and no others.
///
/// # Errors
/// [`FrameError`]: it names no user pages, or does not hold as many. Nothing is allocated beyond what a frame of pages
/// may hold.
pub fn unpack(header: Header, body: &[u8], unpacked: &mut Vec<u8>) -> Result<PageRange, FrameError> {
    let pages = header.pages()?;
    let malformed = FrameError::NotThosePages { count: header.count, len: header.body_len };
    unpacked.resize(usize::try_from(pages.len()).map_err(|_| malformed)?, 0);
    if lz4::unpack(body, unpacked) { Ok(pages) } else { Err(malformed) }
}

fn pushed(line: &Line, header: Header) -> Result<Option<DestinationInput>, ConnectionError> {
    Ok(Some(DestinationInput::Pushed(header.counted_pages(line.body())?)))
}

fn pages(line: &mut Line, header: Header) -> Result<Option<DestinationInput>, ConnectionError> {
    let (pages, content) = match header.kind {
        Kind::Pages => (header.pages()?, Content::Data),
        Kind::PackedPages => (line.unpack(header)?, Content::Data),
        Kind::ZeroPages => (header.counted_pages(line.body())?, Content::Zero),
        _ => (header.counted_pages(line.body())?, Content::Lost),
    };
    Ok(Some(DestinationInput::PagesArrived { channel: line.channel(), pages, content }))
}
