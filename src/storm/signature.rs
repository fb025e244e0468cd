//! The client's side of Pusher signatures: HMAC-SHA256 with the secret of the app, in hexadecimal
//! digits.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signs with one app's secret, of which it keeps only the HMAC state.
#[derive(Clone)]
pub(crate) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(crate) fn new(secret: &str) -> Self {
        let hmac = Hmac::new_from_slice(secret.as_bytes());
        Self(hmac.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")))
    }

    /// Signs the parts as if they were one text.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> String {
        let hmac = parts.iter().fold(self.0.clone(), |hmac, part| hmac.chain_update(part));
        hex::encode(hmac.finalize().into_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[withheld]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Pusher's documentation for a private and a presence channel.
    #[test]
    fn the_examples_of_the_protocol_are_signed_as_documented() {
        let signer = Signer::new("7ad3773142a6692b25b8");
        assert_eq!(
            signer.sign(&[b"1234.1234:private-foobar"]),
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        let data = br#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        assert_eq!(
            signer.sign(&[b"1234.1234", b":", b"presence-foobar", b":", data]),
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"
        );
        assert_eq!(format!("{signer:?}"), "[withheld]");
    }
}
