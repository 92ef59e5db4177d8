//! Handshakes and sealed records: what was not made with the key, or was changed, passes nobody.

use core::sync::atomic::{AtomicU8, Ordering};

use noise::{Initiator, Key, MESSAGE_BYTES, Session, TAG_BYTES, is_genuine, respond};

const PROLOGUE: &[u8] = b"what both have said";

/// Deterministic, and different at each call of one input.
fn random(bytes: &mut [u8]) -> bool {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    bytes.fill_with(|| NEXT.fetch_add(37, Ordering::Relaxed));
    true
}

fn secret() -> Key {
    Key::new(&[0xa5; 32])
}

/// A source's side of a handshake that nobody has answered.
pub(crate) fn initiator() -> Initiator {
    Initiator::new(&secret(), PROLOGUE, random).expect("random numbers").0
}

/// Both sides of a session.
pub(crate) fn sessions() -> (Session, Session) {
    let (source, message) = Initiator::new(&secret(), PROLOGUE, random).expect("random numbers");
    let (there, answer) = respond(&secret(), PROLOGUE, &message, random).expect("it is genuine");
    (source.finish(&answer).expect("it is genuine"), there)
}

/// The first byte chooses what the others are: a first message, an answer, a record, changes to a genuine one, a key's
/// text.
pub fn seals(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    match choice % 5 {
        0 => {
            assert!(!is_genuine(&secret(), PROLOGUE, rest), "a message without the key");
            assert!(respond(&secret(), PROLOGUE, rest, random).is_err(), "a message without the key");
        }
        1 => assert!(initiator().finish(rest).is_err(), "an answer without the key"),
        2 => {
            let mut out = vec![0; rest.len().saturating_sub(TAG_BYTES)];
            assert!(sessions().1.open(rest, &mut out).is_err(), "a record without the key");
        }
        3 => changed(rest),
        _ => {
            let is_key = rest.trim_ascii_end().len() == noise::KEY_TEXT_BYTES
                && rest.trim_ascii_end().iter().all(u8::is_ascii_hexdigit);
            assert_eq!(Key::from_text(rest).is_some(), is_key);
        }
    }
}

/// A genuine message and a genuine record, exclusive-ored with what comes: they pass unchanged and not otherwise.
fn changed(mask: &[u8]) {
    let change = |bytes: &mut [u8]| {
        bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        mask.iter().take(bytes.len()).all(|mask| *mask == 0)
    };
    let (_, mut message) = Initiator::new(&secret(), PROLOGUE, random).expect("random numbers");
    let whole = change(&mut message);
    assert_eq!(is_genuine(&secret(), PROLOGUE, &message), whole);
    let (mut here, mut there) = sessions();
    let mut record = [0; MESSAGE_BYTES + TAG_BYTES];
    here.seal(&[3; MESSAGE_BYTES], &mut record).expect("it is short enough");
    let whole = change(&mut record);
    assert_eq!(there.open(&record, &mut [0; MESSAGE_BYTES]).is_ok(), whole);
}
