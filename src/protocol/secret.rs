//! Floor 1. The secret of an app, which signs and verifies.
//!
//! Contract: the secret itself is not kept, only the HMAC state that is made of it, and nothing
//! prints that state. Signatures are decoded first and compared in constant time.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The secret of an app, kept as the HMAC-SHA256 state that it makes. Printed as `[withheld]`.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Makes the state of a secret of any length.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        // RFC 2104 section 2: keys past the block size are hashed, others are padded with zeros.
        let mut block = [0; BLOCK_LEN];
        if secret.len() > BLOCK_LEN {
            block[..DIGEST_LEN].copy_from_slice(&Sha256::digest(secret));
        } else {
            block[..secret.len()].copy_from_slice(secret.as_bytes());
        }
        Self(Hmac::new(&block.into()))
    }

    /// Signs the parts as if they were one text. The signature is 64 hexadecimal digits.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.hmac_of(parts).finalize().into_bytes())
    }

    /// Whether `signature` is 64 hexadecimal digits, of either case, that sign the parts. The time
    /// that this takes does not depend on the number of right digits.
    #[must_use]
    pub(crate) fn verify(&self, parts: &[&[u8]], signature: &str) -> bool {
        let mut digest = [0; DIGEST_LEN];
        decode_hex(signature, &mut digest) && self.hmac_of(parts).verify_slice(&digest).is_ok()
    }

    fn hmac_of(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = self.0.clone();
        parts.iter().for_each(|part| hmac.update(part));
        hmac
    }
}

/// Decodes hexadecimal digits of either case. Returns `false` if the text is anything but twice as
/// many of them as there are bytes: the library would skip a leading `0x`.
pub(super) fn decode_hex(text: &str, bytes: &mut [u8]) -> bool {
    text.len() == 2 * bytes.len() && hex::decode_to_slice(text, bytes).is_ok()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[withheld]")
    }
}

/// SHA-256's block and digest in bytes (FIPS 180-4).
const BLOCK_LEN: usize = 64;
const DIGEST_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_have_no_prefix_and_either_case() {
        let decoded = |text| {
            let mut bytes = [0; 2];
            decode_hex(text, &mut bytes).then_some(bytes)
        };
        assert_eq!(decoded("0aF9"), Some([0x0a, 0xf9]));
        for text in ["", "0x0a", "0x0a0b", "0X0a0b", "0a0", "0a0b0", "0a0g", "+a0b", "0a 0", "ä0b"]
        {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_of_any_length_sign() {
        // RFC 4231 section 4.3.
        assert_eq!(
            Secret::new("Jefe").sign(&[b"what do ya want ", b"for nothing?"]),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        for len in [0, 63, 64, 65, 200] {
            let key = "k".repeat(len);
            let hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
            let expected = hex::encode(hmac.chain_update("text").finalize().into_bytes());
            assert_eq!(Secret::new(&key).sign(&[b"te", b"xt"]), expected, "{len}");
        }
    }
}
