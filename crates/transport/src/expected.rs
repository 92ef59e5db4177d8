//! Which kinds of frames have a place where: the table at the top of `protocol`, as code.

use protocol::{Channel, Kind};

/// What a connection takes at its present stage; all else ends it before a byte of body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// `Hello`, at the destination.
    Greeting,
    /// `Welcome` or `Refused`, at the source.
    Answer,
    /// `KeyExchange`, at the destination.
    Key,
    /// `KeyExchange` or `Refused`, at the source.
    KeyAnswer,
    /// What the source sends on this channel.
    FromSource(Channel),
    /// What the destination sends on this channel.
    FromDestination(Channel),
    /// What both sides send where connections are relayed.
    Relayed,
}

impl Expected {
    /// Whether a frame of this kind may come.
    #[must_use]
    pub fn allows(self, kind: Kind) -> bool {
        let control_from_source = Self::FromSource(Channel::Control);
        let control_from_destination = Self::FromDestination(Channel::Control);
        match kind {
            Kind::Hello => self == Self::Greeting,
            Kind::Welcome => self == Self::Answer,
            Kind::Refused => self == Self::Answer || self == Self::KeyAnswer,
            Kind::KeyExchange => self == Self::Key || self == Self::KeyAnswer,
            Kind::Reserve
            | Kind::Switchover
            | Kind::Run
            | Kind::Content
            | Kind::ContentBytes
            | Kind::PageMap
            | Kind::PageMapDone
            | Kind::PushDone
            | Kind::Cancel
            | Kind::SourceReport => self == control_from_source,
            Kind::Reserved
            | Kind::Ready
            | Kind::Running
            | Kind::Drained
            | Kind::Abort
            | Kind::Unscanned
            | Kind::PageBits
            | Kind::Recover
            | Kind::RoundTaken => self == control_from_destination,
            Kind::Failed => self == control_from_source || self == control_from_destination,
            Kind::Relayed | Kind::RelayCredit | Kind::RelayReset => self == Self::Relayed,
            Kind::PageRequest => self == Self::FromDestination(Channel::Fault),
            Kind::Pushed => self == Self::FromSource(Channel::Fault),
            Kind::RoundEnd => self == Self::FromSource(Channel::Push),
            Kind::Pages | Kind::PackedPages | Kind::ZeroPages | Kind::LostPages => {
                matches!(self, Self::FromSource(Channel::Fault | Channel::Push))
            }
        }
    }

    /// Whether the connection still introduces itself: not a byte beyond the greeting is read then, so that
    /// the socket can be handed to another process.
    #[must_use]
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::Greeting | Self::Answer | Self::Key | Self::KeyAnswer)
    }
}
