//! LZMA, decoded into the memory where the result is to be: that is the dictionary too (Igor Pavlov, "LZMA
//! specification", 2015). Always with three bits of literal context and no position bits, without an end marker.
//!
//! Written by hand because a decoder counts uncompressed: this one is a sixth of the smallest that is published. The
//! tests hold it against the published encoder that packs.

use crate::Damaged;

/// Literal context bits.
pub(crate) const LITERAL_CONTEXT: u32 = 3;

// States, from what the last few decisions were; literals are below 7.
const STATES: usize = 12;
const AFTER_LITERALS: usize = 7;

const LENGTHS: usize = 2 + 8 + 8 + 256;
const LITERALS: usize = 0x300;

// Where each kind of decision has its chances.
const IS_MATCH: usize = 0;
const IS_REPEATED: usize = IS_MATCH + STATES;
/// Not the last distance, not the last but one, not the one before.
const IS_OLDER: [usize; 3] = [IS_REPEATED + STATES, IS_REPEATED + 2 * STATES, IS_REPEATED + 3 * STATES];
const IS_LONG: usize = IS_REPEATED + 4 * STATES;
const SLOT: usize = IS_LONG + STATES;
const MIDDLE: usize = SLOT + 4 * 64;
const ALIGNED: usize = MIDDLE + 128;
const LENGTH: usize = ALIGNED + 16;
const REPEATED_LENGTH: usize = LENGTH + LENGTHS;
const LITERAL: usize = REPEATED_LENGTH + LENGTHS;
const CHANCES: usize = LITERAL + (LITERALS << LITERAL_CONTEXT);

/// A chance of 1 is this much.
const CERTAIN: u16 = 1 << 11;

/// The range coder: bits out of bytes, each by its own chance.
struct Bits<'a> {
    input: core::slice::Iter<'a, u8>,
    range: u32,
    code: u32,
    is_cut_off: bool,
    chances: [u16; CHANCES],
}

impl<'a> Bits<'a> {
    fn new(stream: &'a [u8]) -> Self {
        let mut bits = Self {
            input: stream.iter(),
            range: u32::MAX,
            code: 0,
            is_cut_off: false,
            chances: [CERTAIN / 2; CHANCES],
        };
        for _ in 0..5 {
            bits.shift();
        }
        bits
    }

    fn shift(&mut self) {
        let byte = self.input.next();
        self.is_cut_off |= byte.is_none();
        self.code = self.code << 8 | u32::from(*byte.unwrap_or(&0));
    }

    fn normalize(&mut self) {
        if self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }

    /// A bit by chance number `at`, which learns from it.
    fn bit(&mut self, at: usize) -> usize {
        self.normalize();
        let Some(chance) = self.chances.get_mut(at) else { return 0 };
        let bound = (self.range >> 11) * u32::from(*chance);
        if self.code < bound {
            self.range = bound;
            *chance += (CERTAIN - *chance) >> 5;
            0
        } else {
            self.range -= bound;
            self.code -= bound;
            *chance -= *chance >> 5;
            1
        }
    }

    /// A bit that is 0 as often as 1.
    fn even_bit(&mut self) -> usize {
        self.normalize();
        self.range >>= 1;
        let is_set = self.code >= self.range;
        if is_set {
            self.code -= self.range;
        }
        usize::from(is_set)
    }

    /// A number of `bits`, the highest first.
    fn number(&mut self, at: usize, bits: u32) -> usize {
        let mut path = 1;
        for _ in 0..bits {
            path = path << 1 | self.bit(at + path);
        }
        path - (1 << bits)
    }

    /// A number of `bits`, the lowest first.
    fn number_from_below(&mut self, at: usize, bits: u32) -> usize {
        let (mut path, mut number) = (1, 0);
        for place in 0..bits {
            let bit = self.bit(at + path);
            path = path << 1 | bit;
            number |= bit << place;
        }
        number
    }

    /// The length of a match, of which the lowest is 2.
    fn length(&mut self, at: usize) -> usize {
        if self.bit(at) == 0 {
            2 + self.number(at + 2, 3)
        } else if self.bit(at + 1) == 0 {
            10 + self.number(at + 10, 3)
        } else {
            18 + self.number(at + 18, 8)
        }
    }

    /// The distance of a match of `length`, from 0 for the byte before.
    fn distance(&mut self, length: usize) -> usize {
        let slot = self.number(SLOT + (length - 2).min(3) * 64, 6);
        if slot < 4 {
            return slot;
        }
        let bits = u32::try_from(slot / 2 - 1).unwrap_or(0);
        let high = (2 | slot & 1) << bits;
        if slot < 14 {
            return high + self.number_from_below(MIDDLE + high - slot, bits);
        }
        let mut even = 0;
        for _ in 4..bits {
            even = even << 1 | self.even_bit();
        }
        high + (even << 4) + self.number_from_below(ALIGNED, 4)
    }

    /// A byte behind `before`; `other` is the one at the last distance, if that did not go on.
    fn literal(&mut self, before: u8, other: Option<u8>) -> u8 {
        let at = LITERAL + LITERALS * usize::from(before >> (8 - LITERAL_CONTEXT));
        let mut path = 1;
        let mut other = other.map(usize::from);
        while path < 0x100 {
            let expected = other.map(|other| other >> 7 & 1);
            let bit = self.bit(at + path + expected.map_or(0, |expected| (1 + expected) << 8));
            path = path << 1 | bit;
            other = other.filter(|_| expected == Some(bit)).map(|other| other << 1);
        }
        u8::try_from(path & 0xff).unwrap_or(0)
    }
}

/// Fills `memory` with what `stream` says.
pub(crate) fn decode(stream: &[u8], memory: &mut [u8]) -> Result<(), Damaged> {
    let mut bits = Bits::new(stream);
    let mut state = 0;
    let mut distances = [0; 4];
    let mut at = 0;
    while at < memory.len() {
        let [last, ..] = distances;
        let other = at.checked_sub(last + 1).and_then(|from| memory.get(from)).copied();
        if bits.bit(IS_MATCH + state) == 0 {
            let before = at.checked_sub(1).and_then(|before| memory.get(before)).copied().unwrap_or(0);
            let byte = bits.literal(before, other.filter(|_| state >= AFTER_LITERALS));
            *memory.get_mut(at).ok_or(Damaged)? = byte;
            at += 1;
            state = state.saturating_sub(if state < 10 { 3 } else { 6 });
            continue;
        }
        let is_late = usize::from(state >= AFTER_LITERALS) * 3;
        let length = if bits.bit(IS_REPEATED + state) == 0 {
            let length = bits.length(LENGTH);
            distances.rotate_right(1);
            distances[0] = bits.distance(length);
            state = 7 + is_late;
            length
        } else if older(&mut bits, state, &mut distances) {
            let length = bits.length(REPEATED_LENGTH);
            state = 8 + is_late;
            length
        } else {
            state = if is_late == 0 { 9 } else { 11 };
            1
        };
        repeat(memory, &mut at, distances[0], length)?;
    }
    bits.normalize();
    // The encoder ends so that nothing is left.
    if bits.code == 0 && !bits.is_cut_off { Ok(()) } else { Err(Damaged) }
}

/// Brings the distance that is used again to the front; false if it is the last one, for one byte.
fn older(bits: &mut Bits<'_>, state: usize, distances: &mut [usize; 4]) -> bool {
    let [first, second, third] = IS_OLDER;
    if bits.bit(first + state) == 0 {
        return bits.bit(IS_LONG + state) != 0;
    }
    let age = if bits.bit(second + state) == 0 { 1 } else { 2 + bits.bit(third + state) };
    if let Some(younger) = distances.get_mut(..=age) {
        younger.rotate_right(1);
    }
    true
}

/// Writes `length` bytes from `at` on, each as the one that is `distance` + 1 before it.
fn repeat(memory: &mut [u8], at: &mut usize, distance: usize, length: usize) -> Result<(), Damaged> {
    for _ in 0..length {
        let from = at.checked_sub(distance + 1).ok_or(Damaged)?;
        let byte = *memory.get(from).ok_or(Damaged)?;
        *memory.get_mut(*at).ok_or(Damaged)? = byte;
        *at += 1;
    }
    Ok(())
}
