//! Floor 1. Judges the head of an upgrade request (RFC 6455 section 4.2.1), given as plain values
//! so that any HTTP library can ask. The caller judges the path, the origin and the app.

use std::fmt;

use tungstenite::handshake::derive_accept_key;

/// The parts of the request that matter here. Each header is the list of its values, in the order
/// of the request, trimmed; a value that is not text may be left empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpgradeRequest<'a> {
    /// The method, as sent.
    pub(crate) method: &'a str,
    /// Whether the request is HTTP/1.1 or newer.
    pub(crate) http11: bool,
    /// `Connection`.
    pub(crate) connection: &'a [&'a str],
    /// `Upgrade`.
    pub(crate) upgrade: &'a [&'a str],
    /// `Sec-WebSocket-Version`.
    pub(crate) version: &'a [&'a str],
    /// `Sec-WebSocket-Key`.
    pub(crate) key: &'a [&'a str],
    /// Whether a body follows the head. What follows an upgrade must be frames.
    pub(crate) has_body: bool,
}

/// The reason why a request is not upgraded. Its text is meant for the developer of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The method is not GET: 405.
    MethodNotGet,
    /// The request is an ordinary one: 426. It may be for another part of the server.
    NotAnUpgrade,
    /// The request asks for an upgrade to something else: 400.
    BadUpgrade,
    /// HTTP/1.0 or older cannot upgrade: 400.
    Http10,
    /// `Connection` does not list `upgrade`: 400.
    BadConnection,
    /// The request has a body: 400.
    HasBody,
    /// The version is not 13, or is not given exactly once: 426.
    Version,
    /// The key is not exactly one value of 16 bytes in base64: 400.
    BadKey,
}

/// Returns the value of `Sec-WebSocket-Accept` for the 101 response.
///
/// # Errors
/// The first rule of the handshake that the request breaks.
pub(crate) fn accept(request: &UpgradeRequest<'_>) -> Result<String, HandshakeError> {
    if request.method != "GET" {
        Err(HandshakeError::MethodNotGet)
    } else if request.upgrade.iter().all(|value| value.is_empty()) {
        Err(HandshakeError::NotAnUpgrade)
    } else if !lists(request.upgrade, "websocket") {
        Err(HandshakeError::BadUpgrade)
    } else if !request.http11 {
        Err(HandshakeError::Http10)
    } else if !lists(request.connection, "upgrade") {
        Err(HandshakeError::BadConnection)
    } else if request.has_body {
        Err(HandshakeError::HasBody)
    } else if request.version != ["13"] {
        Err(HandshakeError::Version)
    } else {
        match request.key {
            [key] if is_key(key) => Ok(derive_accept_key(key.as_bytes())),
            _ => Err(HandshakeError::BadKey),
        }
    }
}

impl HandshakeError {
    /// The HTTP status of the answer.
    #[must_use]
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::MethodNotGet => 405,
            Self::NotAnUpgrade | Self::Version => 426,
            Self::BadUpgrade
            | Self::Http10
            | Self::BadConnection
            | Self::HasBody
            | Self::BadKey => 400,
        }
    }

    /// The headers that the answer must have, which say what to send instead (RFC 9110 sections
    /// 15.5.6 and 15.5.22, RFC 6455 section 4.4).
    #[must_use]
    pub(crate) const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::MethodNotGet => &[("Allow", "GET")],
            Self::NotAnUpgrade => &[("Upgrade", "websocket"), ("Connection", "Upgrade")],
            Self::Version => &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ],
            _ => &[],
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MethodNotGet => "A WebSocket upgrade must be a GET request",
            Self::NotAnUpgrade => "Upgrade required: this is a WebSocket endpoint",
            Self::BadUpgrade => "The only upgrade is `Upgrade: websocket`",
            Self::Http10 => "A WebSocket upgrade needs HTTP/1.1",
            Self::BadConnection => "A WebSocket upgrade needs `Connection: Upgrade`",
            Self::HasBody => "A WebSocket upgrade must not have a body",
            Self::Version => "The only version is `Sec-WebSocket-Version: 13`",
            Self::BadKey => "Sec-WebSocket-Key must be given once: 16 bytes in base64",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Whether a header with a list of tokens contains `token` (RFC 9110 section 5.6.1).
fn lists(values: &[&str], token: &str) -> bool {
    values.iter().flat_map(|value| value.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Whether this is base64 of 16 bytes: 22 digits and the padding. The value means nothing, so the
/// four bits that the last digit has to spare are not judged.
fn is_key(key: &str) -> bool {
    key.strip_suffix("==").is_some_and(|digits| {
        digits.len() == 22
            && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.3.
    const GOOD: UpgradeRequest<'_> = UpgradeRequest {
        method: "GET",
        http11: true,
        connection: &["Upgrade"],
        upgrade: &["websocket"],
        version: &["13"],
        key: &["dGhlIHNhbXBsZSBub25jZQ=="],
        has_body: false,
    };

    #[test]
    fn the_example_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accept(&GOOD).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn tokens_are_found_in_any_case_and_place() {
        for connection in [&["upgrade"][..], &["keep-alive, UPGRADE"], &["close", " x ,Upgrade,"]] {
            assert!(accept(&UpgradeRequest { connection, ..GOOD }).is_ok(), "{connection:?}");
        }
        for upgrade in [&["WebSocket"][..], &["h2c, websocket"], &["h2c", "websocket"]] {
            assert!(accept(&UpgradeRequest { upgrade, ..GOOD }).is_ok(), "{upgrade:?}");
        }
    }

    #[test]
    fn each_broken_rule_has_its_refusal() {
        use HandshakeError::*;
        for (request, refusal, status) in [
            (UpgradeRequest { method: "POST", ..GOOD }, MethodNotGet, 405),
            (UpgradeRequest { method: "get", ..GOOD }, MethodNotGet, 405),
            (UpgradeRequest { upgrade: &[], ..GOOD }, NotAnUpgrade, 426),
            (UpgradeRequest { upgrade: &[""], ..GOOD }, NotAnUpgrade, 426),
            (UpgradeRequest { upgrade: &["h2c"], ..GOOD }, BadUpgrade, 400),
            (UpgradeRequest { upgrade: &["websockets"], ..GOOD }, BadUpgrade, 400),
            (UpgradeRequest { upgrade: &["web socket"], ..GOOD }, BadUpgrade, 400),
            (UpgradeRequest { http11: false, ..GOOD }, Http10, 400),
            (UpgradeRequest { connection: &[], ..GOOD }, BadConnection, 400),
            (UpgradeRequest { connection: &["keep-alive"], ..GOOD }, BadConnection, 400),
            (UpgradeRequest { connection: &["no-upgrade"], ..GOOD }, BadConnection, 400),
            (UpgradeRequest { has_body: true, ..GOOD }, HasBody, 400),
            (UpgradeRequest { version: &[], ..GOOD }, Version, 426),
            (UpgradeRequest { version: &["8"], ..GOOD }, Version, 426),
            (UpgradeRequest { version: &["13, 8"], ..GOOD }, Version, 426),
            (UpgradeRequest { version: &["013"], ..GOOD }, Version, 426),
            (UpgradeRequest { version: &["13", "13"], ..GOOD }, Version, 426),
        ] {
            assert_eq!(accept(&request), Err(refusal), "{request:?}");
            assert_eq!(refusal.status(), status);
        }
    }

    #[test]
    fn a_key_is_one_value_of_sixteen_bytes_in_base64() {
        for key in [
            &[][..],
            &[""],
            &["dGhlIHNhbXBsZSBub25jZQ=="; 2],
            &["SGVsbG8sIHdvcmxkIQ=="],
            &["dGhlIHNhbXBsZSBub25jZQ="],
            &["dGhlIHNhbXBsZSBub25jZQ"],
            &["dGhlIHNhbXBsZSBub25jZ==="],
            &["dGhlIHNhbXBsZSBub25jZQA=="],
            &["dGhlIHNhbXBsZSBub25j Q=="],
            &["dGhlIHNhbXBsZSBub25j-Q=="],
            &["dGhlIHNhbXBsZSBub25j\u{e9}=="],
        ] {
            assert_eq!(
                accept(&UpgradeRequest { key, ..GOOD }),
                Err(HandshakeError::BadKey),
                "{key:?}"
            );
        }
        assert!(accept(&UpgradeRequest { key: &["+/+/+/+/+/+/+/+/+/+/+Q=="], ..GOOD }).is_ok());
    }

    #[test]
    fn a_client_that_may_try_again_is_told_how() {
        assert!(HandshakeError::Version.headers().contains(&("Sec-WebSocket-Version", "13")));
        assert!(HandshakeError::NotAnUpgrade.headers().contains(&("Upgrade", "websocket")));
        assert_eq!(HandshakeError::MethodNotGet.headers(), [("Allow", "GET")]);
    }
}
