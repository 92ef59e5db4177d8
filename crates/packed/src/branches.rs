//! Calls and jumps, and what reads or takes the address of data, compress better by where they lead than by how far: the same
//! function is called, and the same text is named, from many places.
//!
//! The operand of `call` and of jumps, and of most of those that have a place in memory by its distance, is one
//! from the instruction's end (a byte or four less where something follows). One that leads into the
//! image becomes the offset of its target; the few numbers whose place this takes become negative. So each operand stands
//! for one other, and nothing has to be noted. Bytes that only look like these instructions come back all the same,
//! because both ways see the same bytes in front of an operand.

/// Bytes of an operand.
const OPERAND: usize = 4;

/// Distances become offsets, in the `code` that lies at `start` of an image of `len` bytes.
#[cfg(feature = "pack")]
pub(crate) fn filter(code: &mut [u8], start: usize, len: usize) {
    convert(code, start, len, |distance, end, len| {
        let target = distance.wrapping_add(end);
        if target < len { Some(target) } else { (distance < len).then(|| distance.wrapping_sub(len)) }
    });
}

/// Offsets become distances again.
pub(crate) fn restore(code: &mut [u8], start: usize, len: usize) {
    convert(code, start, len, |operand, end, len| {
        if operand < len {
            Some(operand.wrapping_sub(end))
        } else {
            (operand >= end.wrapping_neg()).then(|| operand.wrapping_add(len))
        }
    });
}

/// `other` gets an operand, the end of its instruction and the length of the image; `None` if it stays.
fn convert(code: &mut [u8], start: usize, len: usize, other: fn(u32, u32, u32) -> Option<u32>) {
    const CALL: u8 = 0xe8;
    const JUMP: u8 = 0xe9;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let mut at = 0;
    while let Some(window) = code.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<{ 2 + OPERAND }>) {
        let [opcode, mode, ..] = *window;
        at += match opcode {
            CALL | JUMP => 1,
            // The mode that stands for a distance from the instruction pointer.
            0x80.. if mode & 0xc7 == 5 => 2,
            // A conditional jump.
            0x0f if mode & 0xf0 == 0x80 => 2,
            _ => {
                at += 1;
                continue;
            }
        };
        let Some(operand) = code.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<OPERAND>) else { break };
        // Also behind one that stays: what is found within it would change it.
        at += OPERAND;
        let end = u32::try_from(start + at).unwrap_or(u32::MAX);
        if let Some(new) = other(u32::from_le_bytes(*operand), end, len) {
            *operand = new.to_le_bytes();
        }
    }
}
