//! An open TCP connection as its source tells of it: what getsockopt(2) and ioctl(2) said, then the bytes that wait.
//!
//! ```text
//!  0   TCP_INFO           8 bytes: state, 4 others, options, window scales (to send with, to receive with), flags
//!  8   TCP_MAXSEG         u32, in repair mode: the largest segment that was agreed upon
//! 12   TCP_TIMESTAMP      u32
//! 16   TCP_REPAIR_WINDOW  20 bytes
//! 36   SIOCOUTQNSD        u32: how many of the bytes to send were never sent
//! 40   TCP_QUEUE_SEQ      u32: behind the last byte received
//! 44   SIOCINQ            u32: how many received bytes wait to be read; then these
//!      TCP_QUEUE_SEQ      u32: behind the last byte to send
//!      SIOCOUTQ           u32: how many bytes to send are not acknowledged; then these, at the very end, behind others that
//!                         have been acknowledged in part
//! ```
//! Of a connection that is relayed the record is no longer than `TCP_INFO`.
//!
//! The source writes this without knowing what it means. `TCP_REPAIR` and its companions have no manual page: Linux 3.5,
//! `net/ipv4/tcp.c`.

/// `TCP_ESTABLISHED`
const ESTABLISHED: u8 = 1;

/// An open connection whose parts fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection<'a> {
    /// `TCPI_OPT_*`: what both sides had agreed upon.
    pub options: u8,
    /// By how many bits windows are shifted: what the other side tells, and what is told to it.
    pub window_scales: (u8, u8),
    /// The largest segment that was agreed upon.
    pub largest_segment: u32,
    /// The clock of its time stamps.
    pub timestamp: u32,
    /// `struct tcp_repair_window`
    pub window: [u8; 20],
    /// Sequence number behind the last byte received.
    pub received_to: u32,
    /// Received and not yet read.
    pub received: &'a [u8],
    /// Sequence number behind the last byte to send.
    pub sent_to: u32,
    /// Sent and not yet acknowledged.
    pub sent: &'a [u8],
    /// Written by the program and never sent.
    pub unsent: &'a [u8],
}

impl<'a> Connection<'a> {
    /// Bytes of a record that stops behind `TCP_INFO`: of a connection that stays at its source, which relays it.
    pub const RELAYED_BYTES: usize = 8;

    /// Splits a record up; `None` if it contradicts itself, or is not of an open connection.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let (&[state, _, _, _, _, options, scales, _], rest) = record.split_first_chunk()?;
        let (largest_segment, rest) = word(rest)?;
        let (timestamp, rest) = word(rest)?;
        let (&window, rest) = rest.split_first_chunk()?;
        let (unsent, rest) = word(rest)?;
        let (received_to, rest) = word(rest)?;
        let (received, rest) = word(rest)?;
        let (received, rest) = rest.split_at_checked(usize::try_from(received).ok()?)?;
        let (sent_to, rest) = word(rest)?;
        let (waiting, rest) = word(rest)?;
        let waiting = rest.len().checked_sub(usize::try_from(waiting).ok()?)?;
        let (_, waiting) = rest.split_at_checked(waiting)?;
        let sent = waiting.len().checked_sub(usize::try_from(unsent).ok()?)?;
        let (sent, unsent) = waiting.split_at_checked(sent)?;
        let window_scales = (scales & 0xf, scales >> 4);
        let connection = Self {
            options,
            window_scales,
            largest_segment,
            timestamp,
            window,
            received_to,
            received,
            sent_to,
            sent,
            unsent,
        };
        (state == ESTABLISHED).then_some(connection)
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn record() -> Vec<u8> {
        let mut record = Vec::from([1, 0, 0, 0, 0, 7, 0x78, 0]);
        record.extend(1448_u32.to_le_bytes());
        record.extend(99_u32.to_le_bytes());
        record.extend([5; 20]);
        record.extend(2_u32.to_le_bytes());
        record.extend(1000_u32.to_le_bytes());
        record.extend(3_u32.to_le_bytes());
        record.extend(b"abc");
        record.extend(2000_u32.to_le_bytes());
        record.extend(4_u32.to_le_bytes());
        record.extend(b"old wxyz");
        record
    }

    #[test]
    fn what_waits_to_be_sent_is_the_end_of_what_was_found() {
        let record = record();
        let connection = Connection::parse(&record).expect("it fits together");
        assert_eq!((connection.options, connection.window_scales), (7, (8, 7)));
        assert_eq!((connection.largest_segment, connection.timestamp), (1448, 99));
        assert_eq!((connection.received_to, connection.received), (1000, &b"abc"[..]));
        assert_eq!((connection.sent_to, connection.sent, connection.unsent), (2000, &b"wx"[..], &b"yz"[..]));
    }

    #[test]
    fn a_record_that_is_cut_or_claims_more_than_it_has_is_none() {
        let whole = record();
        // Behind the bytes that were acknowledged a cut moves the end, which nobody can tell.
        for len in 0..whole.len() - 8 + 4 {
            assert_eq!(Connection::parse(whole.get(..len).expect("shorter")), None, "{len} bytes");
        }
        for (at, value) in [(36, 5), (44, 255), (55, 9), (0, 8)] {
            let mut changed = whole.clone();
            *changed.get_mut(at).expect("inside") = value;
            assert_eq!(Connection::parse(&changed), None, "{value} at {at}");
        }
    }
}
