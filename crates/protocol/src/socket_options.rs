//! The socket options that move: which ones there are. Both sides count on the order of this table; what an option
//! means is not known here.

/// `SOL_SOCKET`
const SOCKET: u16 = 1;
/// `SOL_TCP`
const TCP: u16 = 6;
/// `SOL_UDP`
const UDP: u16 = 17;
/// `SOL_IPV6`
const IPV6: u16 = 41;
/// `SOL_UDPLITE`
const UDPLITE: u16 = 136;
/// `SOL_RAW`
const RAW: u16 = 255;
/// `SOL_NETLINK`
const NETLINK: u16 = 270;

/// (level, name) of every option that getsockopt(2) reads and setsockopt(2) sets back with the same bytes (the sizes of
/// `SO_SNDBUF` and `SO_RCVBUF` are doubled by the kernel), in the order in which they are to be set.
pub const SOCKET_OPTIONS: &[(u16, u8)] = &[
    // Addresses: before bind(2).
    (SOCKET, 2),  // SO_REUSEADDR
    (SOCKET, 15), // SO_REUSEPORT
    (IPV6, 26),   // IPV6_V6ONLY
    (0, 15),      // IP_FREEBIND
    (IPV6, 78),   // IPV6_FREEBIND
    (0, 19),      // IP_TRANSPARENT
    (IPV6, 75),   // IPV6_TRANSPARENT
    (0, 24),      // IP_BIND_ADDRESS_NO_PORT
    (SOCKET, 25), // SO_BINDTODEVICE
    (SOCKET, 36), // SO_MARK
    // Buffers, then whether they are locked.
    (SOCKET, 7),  // SO_SNDBUF
    (SOCKET, 8),  // SO_RCVBUF
    (SOCKET, 72), // SO_BUF_LOCK
    // Everything else.
    (SOCKET, 1),   // SO_DEBUG
    (SOCKET, 5),   // SO_DONTROUTE
    (SOCKET, 6),   // SO_BROADCAST
    (SOCKET, 9),   // SO_KEEPALIVE
    (SOCKET, 10),  // SO_OOBINLINE
    (SOCKET, 11),  // SO_NO_CHECK
    (SOCKET, 12),  // SO_PRIORITY
    (SOCKET, 13),  // SO_LINGER
    (SOCKET, 16),  // SO_PASSCRED
    (SOCKET, 18),  // SO_RCVLOWAT
    (SOCKET, 20),  // SO_RCVTIMEO
    (SOCKET, 21),  // SO_SNDTIMEO
    (SOCKET, 29),  // SO_TIMESTAMP
    (SOCKET, 34),  // SO_PASSSEC
    (SOCKET, 35),  // SO_TIMESTAMPNS
    (SOCKET, 37),  // SO_TIMESTAMPING
    (SOCKET, 40),  // SO_RXQ_OVFL
    (SOCKET, 41),  // SO_WIFI_STATUS
    (SOCKET, 42),  // SO_PEEK_OFF
    (SOCKET, 43),  // SO_NOFCS
    (SOCKET, 44),  // SO_LOCK_FILTER
    (SOCKET, 45),  // SO_SELECT_ERR_QUEUE
    (SOCKET, 46),  // SO_BUSY_POLL
    (SOCKET, 47),  // SO_MAX_PACING_RATE
    (SOCKET, 60),  // SO_ZEROCOPY
    (SOCKET, 61),  // SO_TXTIME
    (SOCKET, 69),  // SO_PREFER_BUSY_POLL
    (SOCKET, 74),  // SO_TXREHASH
    (SOCKET, 76),  // SO_PASSPIDFD
    (0, 1),        // IP_TOS
    (0, 2),        // IP_TTL
    (0, 3),        // IP_HDRINCL
    (0, 4),        // IP_OPTIONS
    (0, 6),        // IP_RECVOPTS
    (0, 7),        // IP_RETOPTS
    (0, 8),        // IP_PKTINFO
    (0, 10),       // IP_MTU_DISCOVER
    (0, 11),       // IP_RECVERR
    (0, 12),       // IP_RECVTTL
    (0, 13),       // IP_RECVTOS
    (0, 18),       // IP_PASSSEC
    (0, 20),       // IP_RECVORIGDSTADDR
    (0, 21),       // IP_MINTTL
    (0, 22),       // IP_NODEFRAG
    (0, 23),       // IP_CHECKSUM
    (0, 25),       // IP_RECVFRAGSIZE
    (0, 26),       // IP_RECVERR_RFC4884
    (0, 32),       // IP_MULTICAST_IF
    (0, 33),       // IP_MULTICAST_TTL
    (0, 34),       // IP_MULTICAST_LOOP
    (0, 49),       // IP_MULTICAST_ALL
    (0, 51),       // IP_LOCAL_PORT_RANGE
    (IPV6, 16),    // IPV6_UNICAST_HOPS
    (IPV6, 17),    // IPV6_MULTICAST_IF
    (IPV6, 18),    // IPV6_MULTICAST_HOPS
    (IPV6, 19),    // IPV6_MULTICAST_LOOP
    (IPV6, 23),    // IPV6_MTU_DISCOVER
    (IPV6, 25),    // IPV6_RECVERR
    (IPV6, 29),    // IPV6_MULTICAST_ALL
    (IPV6, 33),    // IPV6_FLOWINFO_SEND
    (IPV6, 49),    // IPV6_RECVPKTINFO
    (IPV6, 51),    // IPV6_RECVHOPLIMIT
    (IPV6, 53),    // IPV6_RECVHOPOPTS
    (IPV6, 56),    // IPV6_RECVRTHDR
    (IPV6, 58),    // IPV6_RECVDSTOPTS
    (IPV6, 60),    // IPV6_RECVPATHMTU
    (IPV6, 62),    // IPV6_DONTFRAG
    (IPV6, 66),    // IPV6_RECVTCLASS
    (IPV6, 67),    // IPV6_TCLASS
    (IPV6, 70),    // IPV6_AUTOFLOWLABEL
    (IPV6, 72),    // IPV6_ADDR_PREFERENCES
    (IPV6, 73),    // IPV6_MINHOPCOUNT
    (IPV6, 74),    // IPV6_ORIGDSTADDR
    (IPV6, 77),    // IPV6_RECVFRAGSIZE
    (TCP, 1),      // TCP_NODELAY
    (TCP, 3),      // TCP_CORK
    (TCP, 4),      // TCP_KEEPIDLE
    (TCP, 5),      // TCP_KEEPINTVL
    (TCP, 6),      // TCP_KEEPCNT
    (TCP, 7),      // TCP_SYNCNT
    (TCP, 8),      // TCP_LINGER2
    (TCP, 9),      // TCP_DEFER_ACCEPT
    (TCP, 10),     // TCP_WINDOW_CLAMP
    (TCP, 12),     // TCP_QUICKACK
    (TCP, 13),     // TCP_CONGESTION
    (TCP, 16),     // TCP_THIN_LINEAR_TIMEOUTS
    (TCP, 17),     // TCP_THIN_DUPACK
    (TCP, 18),     // TCP_USER_TIMEOUT
    (TCP, 23),     // TCP_FASTOPEN
    (TCP, 25),     // TCP_NOTSENT_LOWAT
    (TCP, 27),     // TCP_SAVE_SYN
    (TCP, 36),     // TCP_INQ
    (UDP, 1),      // UDP_CORK
    (UDP, 101),    // UDP_NO_CHECK6_TX
    (UDP, 102),    // UDP_NO_CHECK6_RX
    (UDP, 103),    // UDP_SEGMENT
    (UDP, 104),    // UDP_GRO
    (UDPLITE, 10), // UDPLITE_SEND_CSCOV
    (UDPLITE, 11), // UDPLITE_RECV_CSCOV
    (RAW, 1),      // ICMP_FILTER
    (NETLINK, 3),  // NETLINK_PKTINFO
    (NETLINK, 4),  // NETLINK_BROADCAST_ERROR
    (NETLINK, 5),  // NETLINK_NO_ENOBUFS
    (NETLINK, 10), // NETLINK_CAP_ACK
    (NETLINK, 11), // NETLINK_EXT_ACK
    (NETLINK, 12), // NETLINK_GET_STRICT_CHK
];

/// A place in the table is one byte on the wire.
const _: () = assert!(SOCKET_OPTIONS.len() < 256, "the table has outgrown its index");

/// Splits what [`crate::SocketRecord`] carries into (level, name, value); ends at the first entry that makes no sense.
pub fn socket_options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u8, &[u8])> {
    core::iter::from_fn(move || {
        let (&[place, len], rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        let &(level, name) = SOCKET_OPTIONS.get(usize::from(place))?;
        bytes = rest;
        Some((level, name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn options_are_split_up_to_the_first_that_makes_no_sense() {
        let found: Vec<_> = socket_options(&[0, 4, 1, 0, 0, 0, 2, 0, 255, 0, 0, 0]).collect();
        assert_eq!(found, [(SOCKET, 2, &[1, 0, 0, 0][..]), (IPV6, 26, &[][..])]);
        assert_eq!(socket_options(&[0, 9, 1]).count(), 0);
    }

    #[test]
    fn each_option_is_listed_once() {
        for (index, option) in SOCKET_OPTIONS.iter().enumerate() {
            assert!(!SOCKET_OPTIONS.iter().skip(index + 1).any(|other| other == option), "{option:?}");
        }
    }
}
