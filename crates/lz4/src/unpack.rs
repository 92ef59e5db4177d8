//! Reading a block that a stranger has made.

/// Unpacks a block that holds exactly as many bytes as `plain` has room for; false if it is anything else. Whatever the
/// block says, nothing else is read or written, and `plain` is of no use then.
#[must_use]
pub fn unpack(block: &[u8], plain: &mut [u8]) -> bool {
    lz4_flex::block::decompress_into(block, plain).is_ok_and(|len| len == plain.len())
}
