//! Floor 1. Names of channels and events. They are checked once where they arrive, and are types
//! from there on.
//!
//! Contract: a [`ChannelName`] is never empty, never longer than the limit that it was parsed
//! with, and free of control characters, so it may stand in logs and frames.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A valid channel name. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Checks a name of at most `max_len` bytes.
    ///
    /// The same rule holds for subscribers and publishers. `strict` restricts names to Pusher's
    /// alphabet, `[-a-zA-Z0-9_=@,.;]+`, with the prefix `#server-to-user-` as the only use of `#`.
    /// Reverb takes any name, and apps rely on names with `:` or `/`, so without `strict` only
    /// control characters are refused.
    ///
    /// # Errors
    /// The name is empty, too long, or has a character that is not allowed.
    pub fn parse(text: &str, max_len: usize, strict: bool) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > max_len {
            return Err(NameError::TooLong { max_len });
        }
        let fits = if strict { in_alphabet(text) } else { !text.contains(char::is_control) };
        if fits { Ok(Self(text.into())) } else { Err(NameError::Alphabet) }
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of this channel, by its prefix.
    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        ChannelKind::of(&self.0)
    }

    /// The user whom a `#server-to-user-` channel belongs to.
    #[must_use]
    pub(crate) fn user(&self) -> Option<&str> {
        self.0.strip_prefix(SERVER_TO_USER)
    }
}

impl Deref for ChannelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ChannelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The kinds of channels of the Pusher protocol.
///
/// Only the official prefixes count, dash included. Reverb also protects `privatefoo` and caches
/// `cachefoo`, but client libraries look for the dash and never sign such a name, so these are
/// public names like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Open to everyone.
    Public,
    /// `cache-`: public, keeps its last event.
    Cache,
    /// `private-`: needs a signature.
    Private,
    /// `private-cache-`: private, keeps its last event.
    PrivateCache,
    /// `private-encrypted-`: private, with payloads that are encrypted between the clients.
    Encrypted,
    /// `private-encrypted-cache-`: encrypted, keeps its last event.
    EncryptedCache,
    /// `presence-`: needs a signature that names a member; members see each other.
    Presence,
    /// `presence-cache-`: presence, keeps its last event.
    PresenceCache,
    /// `#server-to-user-`: for the connections that are signed in as that user.
    ServerToUser,
}

impl ChannelKind {
    fn of(name: &str) -> Self {
        let prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        prefix.map_or(Self::Public, |&(_, kind)| kind)
    }

    /// Whether a subscribe needs a signature of the app.
    #[must_use]
    pub const fn needs_signature(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::ServerToUser)
    }

    /// Whether subscribers are members with a user id.
    #[must_use]
    pub const fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the last event is kept for later subscribers.
    #[must_use]
    pub const fn is_cache(self) -> bool {
        matches!(
            self,
            Self::Cache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache
        )
    }
}

/// The reason why a text is no channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The name is empty.
    Empty,
    /// The name is longer than the app allows.
    TooLong {
        /// The app's limit in bytes.
        max_len: usize,
    },
    /// The name has a character that is not allowed.
    Alphabet,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("The channel name is empty."),
            Self::TooLong { max_len } => {
                write!(f, "The channel name is longer than {max_len} bytes.")
            }
            Self::Alphabet => f.write_str("The channel name has a character that is not allowed."),
        }
    }
}

impl std::error::Error for NameError {}

/// Whether this is a valid name of an event: not empty, at most `max_len` bytes if there is a
/// limit, and free of control characters.
#[must_use]
pub fn valid_event_name(text: &str, max_len: Option<usize>) -> bool {
    let fits = max_len.is_none_or(|max_len| text.len() <= max_len);
    fits && !text.is_empty() && !text.contains(char::is_control)
}

fn in_alphabet(text: &str) -> bool {
    let body = text.strip_prefix(SERVER_TO_USER).unwrap_or(text);
    !body.is_empty()
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=@,.;".contains(&byte))
}

const SERVER_TO_USER: &str = "#server-to-user-";

/// The prefixes and their kinds. A longer prefix stands before a shorter one that it begins with.
const PREFIXES: [(&str, ChannelKind); 8] = [
    ("private-encrypted-cache-", ChannelKind::EncryptedCache),
    ("private-encrypted-", ChannelKind::Encrypted),
    ("private-cache-", ChannelKind::PrivateCache),
    ("private-", ChannelKind::Private),
    ("presence-cache-", ChannelKind::PresenceCache),
    ("presence-", ChannelKind::Presence),
    ("cache-", ChannelKind::Cache),
    (SERVER_TO_USER, ChannelKind::ServerToUser),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> ChannelKind {
        ChannelName::parse(text, 200, false).unwrap().kind()
    }

    #[test]
    fn the_official_prefixes_decide_the_kind() {
        assert_eq!(kind("news"), ChannelKind::Public);
        assert_eq!(kind("cache-news"), ChannelKind::Cache);
        assert_eq!(kind("private-x"), ChannelKind::Private);
        assert_eq!(kind("private-cache-x"), ChannelKind::PrivateCache);
        assert_eq!(kind("private-encrypted-x"), ChannelKind::Encrypted);
        assert_eq!(kind("private-encrypted-cache-x"), ChannelKind::EncryptedCache);
        assert_eq!(kind("presence-x"), ChannelKind::Presence);
        assert_eq!(kind("presence-cache-x"), ChannelKind::PresenceCache);
        assert_eq!(kind("#server-to-user-1"), ChannelKind::ServerToUser);
    }

    #[test]
    fn look_alikes_without_the_dash_are_public() {
        for text in ["privatefoo", "presencefoo", "cachefoo", "Private-x", "#private-x", "#x"] {
            assert_eq!(kind(text), ChannelKind::Public, "{text}");
        }
        assert_eq!(kind("private-encryptedx"), ChannelKind::Private);
        assert_eq!(kind("presence-cachex"), ChannelKind::Presence);
    }

    #[test]
    fn kinds_say_what_they_ask_for() {
        for (_, kind) in PREFIXES {
            let name = format!("{kind:?}");
            let private = ["Private", "Encrypted", "Presence"].iter().any(|p| name.starts_with(p));
            assert_eq!(kind.needs_signature(), private, "{name}");
            assert_eq!(kind.is_cache(), name.ends_with("Cache"), "{name}");
            assert_eq!(kind.is_presence(), name.starts_with("Presence"), "{name}");
        }
        assert!(!ChannelKind::Public.needs_signature());
    }

    #[test]
    fn strict_names_are_those_of_pushers_alphabet() {
        for text in ["a", "-_=@,.;", "#server-to-user-1", "presence-r.1", "AZaz09"] {
            assert!(ChannelName::parse(text, 200, true).is_ok(), "{text}");
        }
        for text in ["#", "#a", "#private-a", "#server-to-user", "#server-to-user-", "##a", "a#"] {
            assert_eq!(ChannelName::parse(text, 200, true), Err(NameError::Alphabet), "{text:?}");
        }
        for text in ["#server-to-user-a:b", "a b", "a/b", "a:b", "ü", "a\n", "a\0", "a[]", "*"] {
            assert_eq!(ChannelName::parse(text, 200, true), Err(NameError::Alphabet), "{text:?}");
        }
    }

    #[test]
    fn lenient_names_only_lack_control_characters() {
        for text in ["a b", "a/b", "a:b", "ü", "#", "😀"] {
            assert!(ChannelName::parse(text, 200, false).is_ok(), "{text}");
        }
        for text in ["a\n", "\0", "a\u{7f}", "a\u{85}"] {
            assert_eq!(ChannelName::parse(text, 200, false), Err(NameError::Alphabet), "{text:?}");
        }
    }

    #[test]
    fn length_counts_bytes_and_empty_is_no_name() {
        for strict in [false, true] {
            let parse = |text: &str| ChannelName::parse(text, 4, strict);
            assert_eq!(parse(""), Err(NameError::Empty));
            assert!(parse("abcd").is_ok());
            assert_eq!(parse("abcde"), Err(NameError::TooLong { max_len: 4 }));
        }
        assert!(ChannelName::parse("üü", 4, false).is_ok());
        assert!(ChannelName::parse("üüa", 4, false).is_err());
    }

    #[test]
    fn a_server_to_user_channel_names_its_user() {
        let name = ChannelName::parse("#server-to-user-a@b", 200, true).unwrap();
        assert_eq!(name.user(), Some("a@b"));
        assert_eq!(ChannelName::parse("private-a", 200, true).unwrap().user(), None);
    }

    #[test]
    fn event_names_have_length_and_no_control_characters() {
        assert!(valid_event_name("App\\Events\\Order shipped", Some(200)));
        assert!(valid_event_name("abcd", Some(4)));
        for text in ["", "abcde", "a\r"] {
            assert!(!valid_event_name(text, Some(4)), "{text:?}");
        }
        assert!(valid_event_name(&"n".repeat(10_000), None), "without a limit any length");
        assert!(!valid_event_name("", None) && !valid_event_name("a\0", None));
    }
}
