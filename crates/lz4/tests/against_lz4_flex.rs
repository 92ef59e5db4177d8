//! What the packer makes is a block that another decoder reads, and holds what was packed.

use lz4::{MOST_BYTES, Packer, unpack};
use proptest::prelude::*;

/// Runs that come again, at any distance, between bytes that do not.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let run = (any::<u8>(), 0_usize..2000).prop_map(|(byte, len)| vec![byte; len]);
    let words = (0_usize..4, 0_usize..200)
        .prop_map(|(seed, times)| [&b"of the "[..], b"posthaste", b"\0\0\0\x7f", b"a"][seed].repeat(times));
    let numbers = (any::<u64>(), 1_u64..5000, 0_usize..400).prop_map(|(first, step, count)| {
        (0..count as u64).flat_map(|n| (first.wrapping_add(n * step)).to_le_bytes()).collect()
    });
    prop::collection::vec(prop_oneof![noise, run, words, numbers], 0..24).prop_map(|parts| {
        let mut all = parts.concat();
        all.truncate(MOST_BYTES);
        all
    })
}

fn packed(packer: &mut Packer, plain: &[u8]) -> Vec<u8> {
    let mut block = vec![0; plain.len() + plain.len() / 255 + 16];
    let len = packer.pack(plain, &mut block).expect("room for the worst");
    block.truncate(len);
    block
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_packed_is_unpacked_by_another_decoder(contents in prop::collection::vec(content(), 1..4)) {
        let mut packer = Packer::default();
        for plain in contents {
            let block = packed(&mut packer, &plain);
            let mut unpacked = vec![0xa5; plain.len()];
            prop_assert!(unpack(&block, &mut unpacked));
            prop_assert!(unpacked == plain);
        }
    }

    #[test]
    fn a_block_that_has_no_room_is_none(plain in content(), room in 0_usize..MOST_BYTES) {
        let mut packer = Packer::default();
        let needed = packed(&mut packer, &plain).len();
        let mut block = vec![0; room];
        prop_assert_eq!(packer.pack(&plain, &mut block), (needed <= room).then_some(needed));
    }

    #[test]
    fn a_block_of_any_bytes_is_refused_or_fills_the_whole_place(block in prop::collection::vec(any::<u8>(), 0..600), pages in 1_usize..3) {
        let mut plain = vec![0; pages * 4096];
        let mut again = vec![0xa5; plain.len()];
        let fits = unpack(&block, &mut plain);
        prop_assert_eq!(unpack(&block, &mut again), fits);
        prop_assert!(!fits || plain == again, "what was in the place before shows through");
    }
}

#[test]
fn every_length_is_packed_and_unpacked() {
    let mut packer = Packer::default();
    for pattern in [&b"\0"[..], b"ab", b"abcdefghijklmnop"] {
        for len in (0..600).chain([4095, 4096, 65_535, MOST_BYTES]) {
            let plain: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
            let block = packed(&mut packer, &plain);
            let mut unpacked = vec![0xa5; len];
            assert!(unpack(&block, &mut unpacked) && unpacked == plain, "{len} bytes");
        }
    }
}

#[test]
fn text_and_pointers_become_less_and_noise_hardly_more() {
    let mut packer = Packer::default();
    let text = include_str!("../src/pack.rs").repeat(2).into_bytes();
    assert!(packed(&mut packer, &text).len() * 10 < text.len() * 4);
    let pointers: Vec<u8> = (0..4096_u64).flat_map(|n| (0x7f12_3400_0000 + n * 48).to_le_bytes()).collect();
    assert!(packed(&mut packer, &pointers).len() * 5 < pointers.len() * 4);
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..8192)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 32) as u32).to_le_bytes()
        })
        .collect();
    assert!(packed(&mut packer, &noise).len() <= noise.len() + noise.len() / 200);
}

#[test]
fn more_than_a_block_holds_is_not_packed() {
    let mut noise = vec![1; MOST_BYTES + 4096];
    noise.iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    assert_eq!(Packer::default().pack(&noise, &mut vec![0; 2 * MOST_BYTES]), None);
    for more in 1..=16 {
        let zeros = vec![0; MOST_BYTES + more];
        assert_eq!(Packer::default().pack(&zeros, &mut vec![0; 2 * MOST_BYTES]), None, "{more} bytes more");
    }
}

#[test]
fn a_block_that_is_short_or_long_or_reaches_back_too_far_is_refused() {
    let plain = b"posthaste ".repeat(410);
    let block = packed(&mut Packer::default(), &plain);
    let mut place = vec![0; plain.len()];
    assert!(unpack(&block, &mut place));
    assert!(!unpack(&block, &mut vec![0; plain.len() + 1]), "too few bytes for the place");
    assert!(!unpack(&block, &mut vec![0; plain.len() - 1]), "too many");
    for cut in 0..block.len() {
        assert!(!unpack(&block[..cut], &mut place), "cut at {cut}");
    }
    assert!(!unpack(b"\x10a\x02\x00\x50bcdef", &mut [0; 10]), "before the first byte");
    assert!(!unpack(b"\x10a\x00\x00\x50bcdef", &mut [0; 10]), "at no distance");
}
