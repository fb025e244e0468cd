//! Floor 7. The settings of the listener for operators.

use std::net::SocketAddr;

use crate::protocol::secret::Secret;

use super::error::ConfigError;
use super::reader::SettingsReader;
use super::settings;

/// The listener for operators.
#[derive(Clone, Debug)]
pub(crate) struct AdminSettings {
    /// Its address.
    pub(crate) listen: SocketAddr,
    /// The token that requests have to show. `None` only on a loopback address.
    pub(crate) token: Option<AdminToken>,
}

/// The token of the listener for operators. It is kept as a [`Secret`], which is never printed.
#[derive(Clone, Debug)]
pub(crate) struct AdminToken(Secret);

/// The text that tokens sign, so that two of them are compared by their signatures.
const SIGNED: &[&[u8]] = &[b"ringwave admin"];

impl AdminToken {
    /// The token with this text.
    #[must_use]
    pub(crate) fn new(text: &str) -> Self {
        Self(Secret::new(text))
    }

    /// Whether a request shows this token. The time that this takes does not depend on the number
    /// of right characters, because signatures are compared, in constant time.
    #[must_use]
    pub(crate) fn is(&self, shown: &str) -> bool {
        self.0.verify(SIGNED, &Secret::new(shown).sign(SIGNED))
    }
}

/// Takes the settings; `None` if there is no such listener.
pub(super) fn read(reader: &mut SettingsReader<'_>) -> Result<Option<AdminSettings>, ConfigError> {
    let listen = reader.take(&settings::ADMIN_LISTEN)?;
    let token = reader.take(&settings::ADMIN_TOKEN)?;
    let Some(listen) = listen else { return Ok(None) };
    if token.is_none() && !listen.ip().is_loopback() {
        return Err(ConfigError::AdminExposed(listen));
    }
    Ok(Some(AdminSettings { listen, token: token.as_deref().map(AdminToken::new) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = AdminToken::new("correct horse");
        assert!(token.is("correct horse"));
        for other in ["", "correct hors", "correct horse ", "Correct horse", "battery staple"] {
            assert!(!token.is(other), "{other:?}");
        }
        assert!(!format!("{token:?}").contains("horse"));
    }
}
