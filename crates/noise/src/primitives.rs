//! The primitives that the handshake uses, one of each sort, as the types that `noise-protocol` asks for.

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use curve25519_dalek::montgomery::MontgomeryPoint;
use noise_protocol::{Cipher, DH, Hash, U8Array};
use sha2::Digest;
use zeroize::Zeroize;

/// A cipher's or curve's key; overwritten when it is dropped.
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl U8Array for Secret {
    fn new() -> Self {
        Self([0; 32])
    }

    fn new_with(byte: u8) -> Self {
        Self([byte; 32])
    }

    fn from_slice(bytes: &[u8]) -> Self {
        Self(<[u8; 32]>::from_slice(bytes))
    }

    fn len() -> usize {
        32
    }

    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// RFC 7748.
pub(crate) enum X25519 {}

/// The ladder for every point: a table for the base point would only make the parasite larger.
const BASE: MontgomeryPoint = {
    let mut base = [0; 32];
    base[0] = 9;
    MontgomeryPoint(base)
};

impl DH for X25519 {
    type Key = Secret;
    type Pubkey = [u8; 32];
    type Output = [u8; 32];

    fn name() -> &'static str {
        "25519"
    }

    fn genkey() -> Secret {
        unreachable!("every handshake is given its ephemeral key")
    }

    fn pubkey(private: &Secret) -> [u8; 32] {
        multiply(&BASE, private)
    }

    fn dh(private: &Secret, public: &[u8; 32]) -> Result<[u8; 32], ()> {
        Ok(multiply(&MontgomeryPoint(*public), private))
    }
}

#[inline(never)]
fn multiply(point: &MontgomeryPoint, private: &Secret) -> [u8; 32] {
    point.mul_clamped(private.0).to_bytes()
}

/// RFC 8439, the nonce as Noise wants it: four zero bytes, then the count, little endian.
pub(crate) enum ChaChaPoly {}

fn prepare(key: &Secret, count: u64) -> (ChaCha20Poly1305, [u8; 12]) {
    let mut nonce = [0; 12];
    if let Some(tail) = nonce.last_chunk_mut() {
        *tail = count.to_le_bytes();
    }
    (ChaCha20Poly1305::new(&key.0.into()), nonce)
}

impl Cipher for ChaChaPoly {
    type Key = Secret;

    fn name() -> &'static str {
        "ChaChaPoly"
    }

    fn encrypt(key: &Secret, count: u64, also: &[u8], plain: &[u8], out: &mut [u8]) {
        let (body, _) = out.split_at_mut(plain.len());
        body.copy_from_slice(plain);
        Self::encrypt_in_place(key, count, also, out, plain.len());
    }

    #[inline(never)]
    fn encrypt_in_place(key: &Secret, count: u64, also: &[u8], both: &mut [u8], len: usize) -> usize {
        let (body, rest) = both.split_at_mut(len);
        let (cipher, nonce) = prepare(key, count);
        // It fails for gigabytes only. Then there is no tag, and nobody takes it for a record.
        if let (Ok(tag), Some(to)) =
            (cipher.encrypt_in_place_detached(&nonce.into(), also, body), rest.first_chunk_mut::<16>())
        {
            *to = tag.into();
        }
        len + 16
    }

    fn decrypt(key: &Secret, count: u64, also: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), ()> {
        let (body, tag) = sealed.split_last_chunk::<16>().ok_or(())?;
        out.copy_from_slice(body);
        open(key, count, also, out, tag)
    }

    fn decrypt_in_place(
        key: &Secret,
        count: u64,
        also: &[u8],
        both: &mut [u8],
        len: usize,
    ) -> Result<usize, ()> {
        let (body, tag) = both.get_mut(..len).and_then(<[u8]>::split_last_chunk_mut::<16>).ok_or(())?;
        open(key, count, also, body, tag).map(|()| len - 16)
    }
}

#[inline(never)]
fn open(key: &Secret, count: u64, also: &[u8], body: &mut [u8], tag: &[u8; 16]) -> Result<(), ()> {
    let (cipher, nonce) = prepare(key, count);
    cipher.decrypt_in_place_detached(&nonce.into(), also, body, tag.into()).map_err(|_| ())
}

/// FIPS 180-4. (BLAKE2s is faster, which a handshake does not notice, and 2 KiB larger.)
#[derive(Default)]
pub(crate) struct Sha256(sha2::Sha256);

impl Hash for Sha256 {
    type Block = [u8; 64];
    type Output = [u8; 32];

    fn name() -> &'static str {
        "SHA256"
    }

    #[inline(never)]
    fn input(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    #[inline(never)]
    fn result(&mut self) -> [u8; 32] {
        self.0.finalize_reset().into()
    }
}
