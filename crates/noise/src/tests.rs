//! The handshake against itself, against every altered bit, and against snow.

use alloc::boxed::Box;
use alloc::vec::Vec;

use proptest::prelude::*;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};

use crate::*;

/// Deterministic, and different at each call, which is all that a test needs.
fn random(bytes: &mut [u8]) -> bool {
    use core::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    bytes.fill_with(|| NEXT.fetch_add(37, Ordering::Relaxed));
    true
}

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32])
}

fn sessions() -> (Session, Session) {
    let (source, message) = Initiator::new(&key(1), b"said", random).expect("random numbers");
    let (there, answer) = respond(&key(1), b"said", &message, random).expect("genuine");
    (source.finish(&answer).expect("genuine"), there)
}

fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut record = alloc::vec![0; plain.len() + TAG_BYTES];
    assert_eq!(session.seal(plain, &mut record), Ok(()));
    record
}

proptest! {
    #[test]
    fn what_one_side_seals_the_other_opens_in_order(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..20),
    ) {
        let (mut here, mut there) = sessions();
        for text in &texts {
            let record = sealed(&mut here, text);
            let mut out = alloc::vec![0; text.len()];
            prop_assert_eq!(there.open(&record, &mut out), Ok(()));
            prop_assert_eq!(&out, text);
            let back = sealed(&mut there, text);
            prop_assert_ne!(&record, &back);
            prop_assert_eq!(here.open(&back, &mut out), Ok(()));
        }
    }
}

#[test]
fn no_altered_bit_passes() {
    for bit in 0..8 * (MESSAGE_BYTES + MESSAGE_BYTES + 5 + TAG_BYTES) {
        let mut at = bit / 8;
        let mut flip = |bytes: &mut [u8]| {
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => {
                    at -= bytes.len();
                    return false;
                }
            }
            true
        };
        let (source, mut message) = Initiator::new(&key(1), b"said", random).expect("random numbers");
        if flip(&mut message) {
            assert!(!is_genuine(&key(1), b"said", &message), "bit {bit}");
            assert!(respond(&key(1), b"said", &message, random).is_err(), "bit {bit}");
            continue;
        }
        let (mut there, mut answer) = respond(&key(1), b"said", &message, random).expect("genuine");
        if flip(&mut answer) {
            assert!(source.finish(&answer).is_err(), "bit {bit}");
            continue;
        }
        let mut record = sealed(&mut source.finish(&answer).expect("genuine"), b"hello");
        assert!(flip(&mut record));
        assert_eq!(there.open(&record, &mut [0; 5]), Err(Refuted), "bit {bit}");
    }
}

#[test]
fn another_key_another_prologue_and_another_length_are_refuted() {
    let (source, message) = Initiator::new(&key(1), b"said", random).expect("random numbers");
    assert!(is_genuine(&key(1), b"said", &message));
    assert!(!is_genuine(&key(2), b"said", &message));
    assert!(!is_genuine(&key(1), b"sad", &message));
    for len in 0..MESSAGE_BYTES {
        assert!(!is_genuine(&key(1), b"said", &message[..len]), "{len} bytes");
    }
    assert!(respond(&key(2), b"said", &message, random).is_err());
    let (_, answer) = respond(&key(1), b"said", &message, random).expect("genuine");
    assert!(source.finish(&answer[..MESSAGE_BYTES - 1]).is_err());
}

#[test]
fn records_that_are_repeated_left_out_or_sent_back_are_refuted() {
    let (mut here, mut there) = sessions();
    let (first, second) = (sealed(&mut here, b"1"), sealed(&mut here, b"2"));
    assert_eq!(there.open(&second, &mut [0]), Err(Refuted));
    assert_eq!(there.open(&first, &mut [0]), Ok(()));
    assert_eq!(there.open(&first, &mut [0]), Err(Refuted));
    assert_eq!(here.open(&first, &mut [0]), Err(Refuted));
}

#[test]
fn a_repeated_handshake_yields_another_session() {
    let (source, message) = Initiator::new(&key(1), b"said", random).expect("random numbers");
    let (mut first, answer) = respond(&key(1), b"said", &message, random).expect("genuine");
    let (mut second, _) = respond(&key(1), b"said", &message, random).expect("genuine");
    let record = sealed(&mut source.finish(&answer).expect("genuine"), b"run");
    assert_eq!(second.open(&record, &mut [0; 3]), Err(Refuted));
    assert_eq!(first.open(&record, &mut [0; 3]), Ok(()));
}

#[test]
fn without_random_numbers_nothing_is_said() {
    assert!(Initiator::new(&key(1), b"", |_| false).is_err());
}

#[test]
fn a_key_is_64_digits_and_never_shown() {
    let text = "00ff".repeat(16);
    let key = Key::from_text(text.as_bytes()).expect("a key");
    assert_eq!(key.bytes()[..4], [0, 255, 0, 255]);
    assert!(Key::from_text(alloc::format!("{text}\n").as_bytes()).is_some());
    for wrong in [&text[1..], &text.replace('f', "g"), &alloc::format!(" {text}"), "", &text.repeat(2)] {
        assert!(Key::from_text(wrong.as_bytes()).is_none(), "{wrong:?}");
    }
    assert_eq!(alloc::format!("{key:?}"), "Key");
}

struct Theirs;

impl snow::types::Random for Theirs {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        random(bytes);
        Ok(())
    }
}

impl CryptoResolver for Theirs {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Self))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn snow::types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

fn snow() -> snow::Builder<'static> {
    let params = "Noise_NNpsk0_25519_ChaChaPoly_SHA256".parse().expect("a name");
    let builder = snow::Builder::with_resolver(params, Box::new(Theirs));
    builder.psk(0, &[1; 32]).and_then(|builder| builder.prologue(b"said")).expect("given once")
}

#[test]
fn snow_answers_us() {
    let mut theirs = snow().build_responder().expect("all is there");
    let (ours, message) = Initiator::new(&key(1), b"said", random).expect("random numbers");
    theirs.read_message(&message, &mut []).expect("they understand");
    let mut answer = [0; MESSAGE_BYTES];
    theirs.write_message(&[], &mut answer).expect("they answer");
    exchange(ours.finish(&answer).expect("we understand"), theirs);
}

#[test]
fn we_answer_snow() {
    let mut theirs = snow().build_initiator().expect("all is there");
    let mut message = [0; MESSAGE_BYTES];
    theirs.write_message(&[], &mut message).expect("they begin");
    let (ours, answer) = respond(&key(1), b"said", &message, random).expect("we understand");
    theirs.read_message(&answer, &mut []).expect("they understand");
    exchange(ours, theirs);
}

/// Three records in each direction.
fn exchange(mut ours: Session, theirs: snow::HandshakeState) {
    let mut theirs = theirs.into_transport_mode().expect("finished");
    for text in [&b"hello"[..], b"", &[7; 65_519]] {
        let mut out = alloc::vec![0; text.len() + TAG_BYTES];
        assert_eq!(theirs.read_message(&sealed(&mut ours, text), &mut out), Ok(text.len()));
        assert_eq!(&out[..text.len()], text);
        assert_eq!(theirs.write_message(text, &mut out), Ok(out.len()));
        let mut back = alloc::vec![0; text.len()];
        assert_eq!(ours.open(&out, &mut back), Ok(()));
        assert_eq!(back, text);
    }
}
