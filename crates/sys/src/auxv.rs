//! The auxiliary vector (getauxval(3)), as the kernel shows it in `/proc/self/auxv`.

/// The value of the entry `key` in `vector`.
#[must_use]
pub fn entry(vector: &[u8], key: u64) -> Option<u64> {
    vector.chunks_exact(16).find_map(|pair| {
        let (tag, value) = pair.split_at_checked(8)?;
        (u64::from_le_bytes(tag.try_into().ok()?) == key).then_some(())?;
        value.try_into().ok().map(u64::from_le_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_its_key_and_a_cut_one_is_none() {
        let words = [6_u64, 4096, 23, 1];
        let vector: std::vec::Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(entry(&vector, 23), Some(1));
        assert_eq!(entry(&vector, 7), None);
        assert_eq!(entry(&vector[..31], 23), None);
    }
}
