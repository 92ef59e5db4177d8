//! What is encoded is what is decoded, and what makes no sense is refused without a panic and without a large
//! allocation.

mod common;

use memory::{Addr, Backing, PAGE_SIZE, PageRange, Protection, Sharing, USER_END, Vma, VmaFlags, VmaName};
use proptest::prelude::*;
use protocol::{
    Connections, DecodeError, Description, FRAME_HEADER_LEN, FileVerdict, FrameError, Header, Kind,
    MAX_PAGES_PER_FRAME, Manifest, PageMap, Reason, Reserved, SignalInfo, ThreadRecord,
};

fn any_kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL)
}

fn any_range() -> impl Strategy<Value = PageRange> {
    let last = USER_END / PAGE_SIZE;
    (0..last, 0..1_u64 << 30).prop_map(move |(start, pages)| {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages.min(last - start)).expect("within user space")
    })
}

fn any_backing() -> impl Strategy<Value = Backing> {
    prop_oneof![
        Just(Backing::Anonymous),
        (any::<u32>(), any::<u64>()).prop_map(|(file, offset)| Backing::File { file, offset }),
        (any::<u32>(), any::<u64>()).prop_map(|(object, offset)| Backing::Object { object, offset }),
    ]
}

fn any_vma() -> impl Strategy<Value = Vma> {
    let names = [VmaName::Plain, VmaName::Heap, VmaName::Stack];
    (any_range(), any::<[bool; 6]>(), proptest::sample::select(names.to_vec()), any_backing()).prop_map(
        |(range, [read, write, execute, shared, locked, wipe_on_fork], name, backing)| Vma {
            range,
            protection: Protection { read, write, execute },
            sharing: if shared { Sharing::Shared } else { Sharing::Private },
            flags: VmaFlags { locked, wipe_on_fork, ..VmaFlags::default() },
            name,
            backing,
        },
    )
}

fn any_thread() -> impl Strategy<Value = ThreadRecord> {
    (any::<u32>(), any::<[u64; 6]>(), any::<[u8; 16]>(), any::<bool>()).prop_map(
        |(tid, [frame, frame_len, fs_base, gs_base, tid_address, pending], name, has_rseq)| {
            let example = common::manifest().threads.remove(0);
            ThreadRecord {
                tid,
                frame: Addr(frame),
                frame_len,
                fs_base,
                gs_base,
                clear_child_tid: Addr(tid_address),
                name,
                pending: vec![SignalInfo([pending; 16])],
                rseq: example.rseq.filter(|_| has_rseq),
                ..example
            }
        },
    )
}

fn any_description() -> impl Strategy<Value = Description> {
    let examples = common::manifest().descriptions;
    let info = proptest::collection::vec(any::<u8>(), 0..50);
    (any::<[u32; 2]>(), any::<u64>(), info, proptest::sample::select(examples))
        .prop_map(|([flags, mode], inode, info, example)| Description { flags, mode, inode, info, ..example })
}

prop_compose! {
    fn any_manifest()(
        vmas in proptest::collection::vec(any_vma(), 0..20),
        threads in proptest::collection::vec(any_thread(), 0..5),
        descriptions in proptest::collection::vec(any_description(), 0..20),
        eager in proptest::collection::vec(any_range(), 0..10),
        lazy in proptest::collection::vec(any_range(), 0..10),
        directory in proptest::collection::vec(any::<u8>(), 0..300),
    ) -> Manifest {
        let mut manifest = common::manifest();
        manifest.process.working_directory = directory;
        Manifest { vmas, threads, descriptions, eager, lazy, ..manifest }
    }
}

proptest! {
    #[test]
    fn a_header_survives_the_wire(kind in any_kind(), len in any::<u32>(), count: u16, argument: u64) {
        let header = Header { kind, body_len: len % (kind.body_limit() + 1), count, argument };
        prop_assert_eq!(Header::from_bytes(header.to_bytes()), Ok(header));
    }

    #[test]
    fn sixteen_bytes_are_a_header_or_an_error(mut bytes: [u8; FRAME_HEADER_LEN], kind in 0_u8..56) {
        [bytes[4], bytes[5]] = [kind, 0];
        match Header::from_bytes(bytes) {
            Ok(header) => {
                prop_assert_eq!(header.to_bytes(), bytes);
                prop_assert!(header.body_len <= header.kind.body_limit());
            }
            Err(FrameError::UnknownKind(number)) => prop_assert_eq!(Kind::from_number(number), None),
            Err(FrameError::TooLong { len, limit, .. }) => prop_assert!(len > limit),
            Err(error @ (FrameError::Inconsistent { .. } | FrameError::NotThosePages { .. })) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn page_frames_name_user_pages_or_nothing(kind in any_kind(), body_len: u32, count in 0_u16..130, page: u64) {
        let header = Header { kind, body_len, count, argument: page };
        if let Ok(pages) = header.pages() {
            prop_assert!((1..=MAX_PAGES_PER_FRAME).contains(&pages.pages()) && pages.end().0 <= USER_END);
            prop_assert_eq!(pages.start(), Addr(page));
            let body_fits = match kind {
                Kind::Pages => u64::from(body_len) == pages.len(),
                Kind::PackedPages => (1..pages.len()).contains(&u64::from(body_len)),
                _ => body_len == 0,
            };
            prop_assert!(body_fits);
        }
    }

    #[test]
    fn counted_frames_name_user_pages_or_nothing(start in any::<u64>(), count: u64, short in 0_usize..8) {
        let header = Header { kind: Kind::ZeroPages, body_len: 8, count: 0, argument: start };
        let body = count.to_le_bytes();
        prop_assert!(header.counted_pages(&body[..short]).is_err());
        if let Ok(pages) = header.counted_pages(&body) {
            prop_assert!(pages.end().0 <= USER_END && pages.pages() == count && count > 0);
        }
    }

    #[test]
    fn small_messages_survive_the_wire(text in ".{0,200}", verdicts: Vec<bool>, scanned in any_range(),
        data in proptest::collection::vec(any_range(), 0..50))
    {
        let reason = Reason { text };
        let bytes = protocol::encode(&reason).expect("short");
        prop_assert_eq!(protocol::decode::<Reason>(&bytes), Ok(reason));
        let verdict = |same| if same { FileVerdict::Same } else { FileVerdict::Travels };
        let all_pages_first = verdicts.len() % 2 == 1;
        let connections = if all_pages_first { Connections::Move } else { Connections::Reset };
        let files = verdicts.into_iter().map(verdict).collect();
        let travel = protocol::Travel { ahead: !all_pages_first, bandwidth: scanned.len(), packed: all_pages_first, ..Default::default() };
        let reserved = Reserved {
            files,
            all_pages_first,
            same_kernel: !all_pages_first,
            other_vdso: all_pages_first,
            connections,
            travel,
        };
        let bytes = protocol::encode(&reserved).expect("short");
        prop_assert_eq!(protocol::decode::<Reserved>(&bytes), Ok(reserved));
        let page_map = PageMap { scanned, data };
        let bytes = protocol::encode(&page_map).expect("short");
        prop_assert_eq!(protocol::decode::<PageMap>(&bytes), Ok(page_map));
    }

    #[test]
    fn a_manifest_survives_the_wire_and_nothing_shorter_or_longer_is_one(manifest in any_manifest(), cut: u16) {
        let bytes = protocol::encode(&manifest).expect("short");
        let decoded = protocol::decode::<Manifest>(&bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&manifest));
        let shorter = &bytes[..usize::from(cut) % bytes.len()];
        prop_assert!(protocol::decode::<Manifest>(shorter).is_err());
        let mut longer = bytes;
        longer.push(0);
        let trailing = matches!(protocol::decode::<Manifest>(&longer), Err(DecodeError::Trailing { extra: 1, .. }));
        prop_assert!(trailing);
    }

    #[test]
    fn arbitrary_bytes_are_a_manifest_or_an_error(bytes: Vec<u8>) {
        if let Ok(manifest) = protocol::decode::<Manifest>(&bytes) {
            prop_assert!(protocol::encode(&manifest).is_ok());
        }
    }

    #[test]
    fn a_manifest_with_one_byte_changed_is_one_or_an_error(at: u16, byte: u8) {
        let mut bytes = protocol::encode(&common::manifest()).expect("short");
        let at = usize::from(at) % bytes.len();
        bytes[at] = byte;
        if let Ok(manifest) = protocol::decode::<Manifest>(&bytes) {
            prop_assert!(protocol::encode(&manifest).is_ok());
        }
    }
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_allocated() {
    // A list that claims 2^63 ranges, in front of nothing.
    let mut bytes = protocol::encode(&common::range(0, 1)).expect("short");
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert!(matches!(protocol::decode::<PageMap>(&bytes), Err(DecodeError::Malformed { .. })));
}

#[test]
fn the_longest_page_map_that_the_engine_makes_fits_its_frame() {
    let high = USER_END / PAGE_SIZE - 10_000;
    let data: Vec<_> = (0..3000).map(|index| common::range(high + 2 * index, 1)).collect();
    let page_map = PageMap { scanned: common::range(high, 6000), data };
    let bytes = protocol::encode(&page_map).expect("below the limit");
    assert!(bytes.len() <= Kind::PageMap.body_limit() as usize, "{} bytes", bytes.len());
}
