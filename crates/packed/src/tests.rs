//! What is packed comes back; what is damaged is an error and never a panic.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use proptest::prelude::*;

use crate::{Damaged, HEAD_BYTES, NotPackable, PAGE_BYTES, Packed, branches, lzma, pack, relocations};

/// Bytes as code has them: runs that come again, calls.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..40),
        proptest::collection::vec(0_u8..3, 1..600),
        any::<[u8; 2]>().prop_map(|[low, high]| vec![0xe8, low, high, 0, 0]),
        any::<[u8; 2]>().prop_map(|[low, high]| vec![0xe9, low, high, 0xff, 0xff]),
        Just(b"what comes again and again and again".to_vec()),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A shared object: read-only data, code, relocated data with addresses of both, zeros.
struct Object {
    text: Vec<u8>,
    kind_of_relocation: u64,
    flags_of_zeros: u64,
}

const TEXT: usize = 0x1010;
const RELOCATED: usize = 0x3008;
const ZEROS: usize = 0x4000;

impl Default for Object {
    fn default() -> Self {
        Self { text: b"\xe8\x10\0\0\0\xc3".to_vec(), kind_of_relocation: 8, flags_of_zeros: 3 }
    }
}

impl Object {
    fn file(&self) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &[3, 0, 62]);
        put(24, &(TEXT as u64).to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(56, &[1]);
        // What is relocated ends with its page.
        put(64, &0x6474_e552_u32.to_le_bytes());
        put(64 + 16, &(RELOCATED as u64).to_le_bytes());
        put(64 + 40, &16_u64.to_le_bytes());
        let words = [(RELOCATED, 8), (RELOCATED + 8, TEXT)];
        let table: Vec<u8> = words
            .iter()
            .flat_map(|(at, value)| [*at as u64, self.kind_of_relocation, *value as u64])
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut headers = Vec::new();
        let mut add = |file: &mut Vec<u8>, [kind, flags, at, len]: [u64; 4], content: &[u8]| {
            let offset = file.len() as u64;
            file.extend(content);
            for number in [kind << 32, flags, at, offset, len, 0, 0, 0] {
                headers.extend(number.to_le_bytes());
            }
        };
        let len = |bytes: &[u8]| bytes.len() as u64;
        add(&mut file, [0, 0, 0, 0], b"");
        add(&mut file, [1, 2, 8, 5], b"hello");
        add(&mut file, [4, 2, 0x200, len(&table)], &table);
        add(&mut file, [1, 6, TEXT as u64, len(&self.text)], &self.text);
        add(&mut file, [1, 3, RELOCATED as u64, 16], &[0; 16]);
        add(&mut file, [8, self.flags_of_zeros, ZEROS as u64, 100], b"");
        let table = file.len() as u64;
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[60] = u8::try_from(headers.len() / 64).expect("a few");
        file.extend(headers);
        file
    }
}

#[test]
fn an_object_is_unpacked_as_a_loader_would_load_it() {
    const BASE: u64 = 0x7000_0000_0000;
    let bytes = pack(&Object::default().file()).expect("it needs nobody");
    let packed = Packed::parse(&bytes).expect("just made");
    assert_eq!((packed.code.clone(), packed.variables, packed.entry), (0x1000..0x2000, 0x4000, TEXT));
    let mut memory = vec![0xaa; packed.len + 1];
    packed.unpack(&mut memory, BASE).expect("just made");
    let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().expect("eight"));
    assert_eq!(&memory[8..13], b"hello");
    assert_eq!(memory[TEXT..][..6], *b"\xe8\x10\0\0\0\xc3");
    assert_eq!((word(RELOCATED), word(RELOCATED + 8)), (BASE + 8, BASE + TEXT as u64));
    assert_eq!(memory[ZEROS..ZEROS + 100], [0; 100]);
    assert_eq!(memory[packed.len], 0xaa, "nothing is written behind it");
    assert_eq!(packed.unpack(&mut memory[..PAGE_BYTES], BASE), Err(Damaged));
}

#[test]
fn an_object_that_needs_a_loader_is_refused() {
    let import = Object { kind_of_relocation: 1 << 32 | 6, ..Object::default() };
    assert!(matches!(pack(&import.file()), Err(NotPackable::NeedsLoader(_))));
    let thread_local = Object { flags_of_zeros: 0x403, ..Object::default() };
    assert!(matches!(pack(&thread_local.file()), Err(NotPackable::NeedsLoader(_))));
    let too_long = Object { text: vec![0x90; 0x2001], ..Object::default() };
    assert!(matches!(pack(&too_long.file()), Err(NotPackable::Layout(_))));
    assert!(matches!(pack(b"no ELF file"), Err(NotPackable::Malformed(_))));
    let whole = Object::default().file();
    assert!((0..whole.len()).all(|len| pack(&whole[..len]).is_err()), "a part of a file is none");
}

#[test]
fn a_call_becomes_where_it_leads() {
    let mut bytes = *b"\x90\xe8\x10\0\0\0\x90";
    branches::filter(&mut bytes, 0x1000, 0x9000);
    assert_eq!(bytes, *b"\x90\xe8\x16\x10\0\0\x90");
}

#[test]
fn an_address_taken_becomes_what_it_is() {
    // lea rsi, [rip + 0x10]
    let mut bytes = *b"\x48\x8d\x35\x10\0\0\0";
    branches::filter(&mut bytes, 0x1000, 0x9000);
    assert_eq!(bytes, *b"\x48\x8d\x35\x17\x10\0\0");
}

#[test]
fn a_stream_that_is_cut_off_is_found() {
    let bytes = pack(&Object::default().file()).expect("it needs nobody");
    for len in 0..bytes.len() {
        let unpacked =
            Packed::parse(&bytes[..len]).and_then(|packed| packed.unpack(&mut vec![0; packed.len], 0));
        assert_eq!(unpacked, Err(Damaged), "{len} bytes of {}", bytes.len());
    }
}

proptest! {
    #[test]
    fn what_the_published_encoder_makes_is_decoded(content in code()) {
        let stream = crate::pack::compress(&content, Vec::new()).expect("memory is enough");
        let mut memory = vec![0; content.len()];
        prop_assert_eq!(lzma::decode(&stream, &mut memory), Ok(()));
        prop_assert_eq!(memory, content);
    }

    #[test]
    fn filtered_code_comes_back(content in code(), start in 0_usize..70_000, behind in 0_usize..70_000) {
        let len = start + content.len() + behind;
        let mut bytes = content.clone();
        branches::filter(&mut bytes, start, len);
        branches::restore(&mut bytes, start, len);
        prop_assert_eq!(bytes, content);
    }

    #[test]
    fn exactly_the_listed_words_are_relocated(words in proptest::collection::btree_set(0_usize..2000, 0..50)) {
        let offsets: Vec<usize> = words.iter().map(|word| word * 8).collect();
        let mut image = vec![1; 2000 * 8];
        image.extend(relocations::list(&offsets).expect("whole words"));
        prop_assert_eq!(relocations::apply(&mut image, 2000 * 8, 1 << 40), Ok(()));
        for (index, word) in image[..2000 * 8].as_chunks::<8>().0.iter().enumerate() {
            let plus = if words.contains(&index) { 1 << 40 } else { 0 };
            prop_assert_eq!(u64::from_le_bytes(*word), 0x0101_0101_0101_0101 + plus);
        }
    }

    #[test]
    fn changed_bytes_do_not_panic(at in 0_usize..1000, bit in 0_u32..8) {
        let mut bytes = pack(&Object::default().file()).expect("it needs nobody");
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(packed) = Packed::parse(&bytes) && packed.len <= 1 << 20 {
            let _ = packed.unpack(&mut vec![0; packed.len], 0);
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = lzma::decode(&bytes, &mut vec![0; 100_000]);
        let _ = Packed::parse(bytes.get(..HEAD_BYTES).unwrap_or_default());
    }
}
