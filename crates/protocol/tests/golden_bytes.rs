//! The bytes on the wire, held against files: two builds that both pass this test can talk to each other.
//!
//! A test that fails here says that the protocol has changed. If that is meant, raise `PROTOCOL_VERSION` and write the
//! new bytes, which the failure prints, into `tests/golden/`.

mod common;

use memory::{Addr, PAGE_SIZE};
use protocol::{
    Channel, Connections, ContentKind, ContentRecord, FRAME_HEADER_LEN, FileVerdict, Header, Hello, Kind,
    MigrationId, PageMap, Reason, Reserved, SourceReport, Travel, Welcome,
};

fn hello() -> Hello {
    Hello { sealed: true, ..Hello::new(MigrationId(*b"sixteen bytes id"), Channel::Fault) }
}

fn welcome() -> Welcome {
    Welcome { version: 4 }
}

fn reason() -> Reason {
    Reason { text: "no room at 0x7f0000000000".into() }
}

fn reserved() -> Reserved {
    Reserved {
        files: vec![FileVerdict::Same, FileVerdict::Travels, FileVerdict::Wanted],
        all_pages_first: true,
        same_kernel: false,
        other_vdso: true,
        connections: Connections::Move,
        travel: Travel {
            ahead: true,
            none_after: false,
            max_downtime_ms: 300,
            bandwidth: 1 << 30,
            packed: true,
        },
    }
}

fn page_map() -> PageMap {
    PageMap { scanned: common::range(16, 512), data: vec![common::range(16, 3), common::range(0x20, 1)] }
}

fn source_report() -> SourceReport {
    SourceReport {
        setup_us: 1,
        ahead_us: 2,
        park_us: 250,
        capture_us: 251,
        switchover_us: 65_535,
        resume_us: 65_536,
        scan_us: 1 << 32,
        bytes_sent: u64::MAX,
    }
}

fn content() -> ContentRecord {
    ContentRecord { file: common::manifest().ghosts[0].clone(), size: 1 << 33 }
}

fn hex(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.map(|line| line + "\n").collect()
}

/// Compares a body with its file, and decodes what the file holds.
macro_rules! golden {
    ($test:ident, $value:expr, $type:ty, $file:literal) => {
        #[test]
        fn $test() {
            let value: $type = $value;
            let bytes = protocol::encode(&value).expect("far below the limit");
            assert_eq!(
                hex(&bytes),
                include_str!(concat!("golden/", $file)),
                "tests/golden/{} is out of date",
                $file
            );
            assert_eq!(protocol::decode::<$type>(&bytes), Ok(value));
        }
    };
}

golden!(a_hello_keeps_its_bytes, hello(), protocol::Hello, "hello.hex");
golden!(a_welcome_keeps_its_bytes, welcome(), protocol::Welcome, "welcome.hex");
golden!(a_reason_keeps_its_bytes, reason(), protocol::Reason, "reason.hex");
golden!(the_verdicts_keep_their_bytes, reserved(), protocol::Reserved, "reserved.hex");
golden!(a_page_map_keeps_its_bytes, page_map(), protocol::PageMap, "page_map.hex");
golden!(a_source_report_keeps_its_bytes, source_report(), protocol::SourceReport, "source_report.hex");
golden!(a_content_keeps_its_bytes, content(), protocol::ContentRecord, "content.hex");
golden!(a_manifest_keeps_its_bytes, common::manifest(), protocol::Manifest, "manifest.hex");

/// Every frame without a bincode body, and the head of every other.
#[test]
fn frame_headers_keep_their_bytes() {
    let page = 0x7f12_3456_7000;
    let pages = |kind, count: u16, body_len| Header { kind, body_len, count, argument: page };
    let memory = ContentKind::Memory.number();
    let expected: [(Header, [u8; FRAME_HEADER_LEN]); 13] = [
        (Header::plain(Kind::Hello, 41), [41, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Header::plain(Kind::Reserve, 0x0002_0304), [4, 3, 2, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Header::plain(Kind::Ready, 0), [0, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (
            Header { argument: 1, ..Header::plain(Kind::Run, 0) },
            [0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Header { argument: 4242, ..Header::plain(Kind::Running, 0) },
            [0, 0, 0, 0, 21, 0, 0, 0, 0x92, 0x10, 0, 0, 0, 0, 0, 0],
        ),
        (
            Header { count: memory, argument: 2, ..Header::plain(Kind::Content, 9) },
            [9, 0, 0, 0, 30, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Header { argument: 1 << 32, ..Header::plain(Kind::ContentBytes, 7) },
            [7, 0, 0, 0, 31, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        ),
        (pages(Kind::PageRequest, 16, 0), [0, 0, 0, 0, 32, 0, 16, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0]),
        (pages(Kind::Pages, 64, 64 << 12), [0, 0, 4, 0, 33, 0, 64, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0]),
        (
            pages(Kind::PackedPages, 3, 8191),
            [0xff, 0x1f, 0, 0, 41, 0, 3, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0],
        ),
        (pages(Kind::ZeroPages, 0, 8), [8, 0, 0, 0, 34, 0, 0, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0]),
        (pages(Kind::LostPages, 0, 8), [8, 0, 0, 0, 35, 0, 0, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0]),
        (pages(Kind::Pushed, 0, 8), [8, 0, 0, 0, 42, 0, 0, 0, 0, 0x70, 0x56, 0x34, 0x12, 0x7f, 0, 0]),
    ];
    for (header, bytes) in expected {
        assert_eq!(header.to_bytes(), bytes, "{header:?}");
        assert_eq!(Header::from_bytes(bytes), Ok(header));
    }
}

#[test]
fn page_frames_name_the_pages_of_their_count_and_address() {
    let header = Header { kind: Kind::PageRequest, body_len: 0, count: 16, argument: 5 * PAGE_SIZE };
    assert_eq!(header.pages(), Ok(common::range(5, 16)));
    let header = Header { kind: Kind::ZeroPages, body_len: 8, count: 0, argument: 5 * PAGE_SIZE };
    assert_eq!(header.counted_pages(&(1_u64 << 20).to_le_bytes()), Ok(common::range(5, 1 << 20)));
}

#[test]
fn every_kind_keeps_its_number() {
    let numbers: Vec<_> = Kind::ALL.iter().map(|kind| kind.number()).collect();
    let expected = [1, 2, 3, 4].into_iter().chain(16..=42).chain(48..=50);
    assert_eq!(numbers, expected.collect::<Vec<u16>>());
    assert!((0..=u16::MAX).all(|number| {
        Kind::from_number(number).map(Kind::number) == numbers.contains(&number).then_some(number)
    }));
}

#[test]
fn addresses_and_ranges_travel_as_their_numbers() {
    let bytes = protocol::encode(&(Addr(5), common::range(1, 2))).expect("short");
    assert_eq!(hex(&bytes), "05fb0010fb0030\n");
}
