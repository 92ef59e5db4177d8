//! Which words of an image are addresses within it.
//!
//! In the image each of them is the offset of what it points to; where the image runs, its base is added. The list is
//! one byte a word: how many words it is behind the one before. 255 is a step of 254 words to nothing, 0 the end.

use crate::Damaged;

const WORD: usize = 8;
const FAR: u8 = 255;

/// The list of the words at the ascending offsets `at`, all whole words from 0.
#[cfg(feature = "pack")]
pub(crate) fn list(at: &[usize]) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    // One word in front of the image: no step is 0.
    let mut last = 0;
    for offset in at {
        let mut step = (offset.is_multiple_of(WORD).then_some(offset / WORD + 1)?).checked_sub(last)?;
        last += step;
        while step >= usize::from(FAR) {
            list.push(FAR);
            step -= usize::from(FAR - 1);
        }
        list.push(u8::try_from(step).ok().filter(|step| *step != 0)?);
    }
    list.push(0);
    Some(list)
}

/// Adds `base` to every word that the list at offset `list` of `image` names.
pub(crate) fn apply(image: &mut [u8], list: usize, base: u64) -> Result<(), Damaged> {
    let (image, list) = image.split_at_mut_checked(list).ok_or(Damaged)?;
    let mut words = image.as_chunks_mut::<WORD>().0.iter_mut();
    for step in list.iter() {
        match *step {
            0 => return Ok(()),
            FAR => {
                words.nth(usize::from(FAR - 2)).ok_or(Damaged)?;
            }
            step => {
                let word = words.nth(usize::from(step - 1)).ok_or(Damaged)?;
                *word = u64::from_le_bytes(*word).wrapping_add(base).to_le_bytes();
            }
        }
    }
    Err(Damaged)
}
