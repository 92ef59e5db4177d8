//! What the receiver makes of a manifest before it touches anything.

use protocol::Manifest;

/// Any manifest is planned or refused.
pub fn plan_manifest(bytes: &[u8]) {
    let Ok(manifest) = protocol::decode::<Manifest>(bytes) else { return };
    if let Err(refusal) = receiver::restorer::plan(&manifest) {
        assert!(!refusal.line().chars().any(char::is_control), "it could write to a terminal");
    }
}
