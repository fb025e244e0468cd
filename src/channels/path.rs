//! The names of channels and users as several nodes share them, and the partition of each.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// A channel of an app: the app's id with `%` and `:` percent-encoded, a colon, and the channel's
/// name as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelPath(Arc<str>);

/// A user of an app: the same with the user's id for the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserPath(Arc<str>);

/// The beginning of the paths of an app, by which partitions are found without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppPath(Box<str>);

impl AppPath {
    /// The beginning of the paths of the app with this id.
    pub(crate) fn new(app_id: &str) -> Self {
        Self(format!("{}:", escaped(app_id)).into())
    }

    /// The partition of a channel of the app, of so many.
    pub(crate) fn partition(&self, channel: &str, partitions: u16) -> u16 {
        partition(&[&self.0, channel], partitions)
    }
}

impl ChannelPath {
    /// The path of a channel.
    pub(crate) fn new(app_id: &str, channel: &str) -> Self {
        Self(joined(app_id, channel))
    }

    /// Takes the text of a record.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, as it is in keys.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the app and the name of the channel; `None` if the text is not a path.
    pub(crate) fn parts(&self) -> Option<(String, &str)> {
        parts(&self.0)
    }

    /// The partition of the channel, of so many.
    pub(crate) fn partition(&self, partitions: u16) -> u16 {
        partition(&[&self.0], partitions)
    }
}

impl UserPath {
    /// The path of a user.
    pub(crate) fn new(app_id: &str, user_id: &str) -> Self {
        Self(joined(app_id, user_id))
    }

    /// Takes the text of a record.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, as it is in keys.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the app and the id of the user; `None` if the text is not a path.
    pub(crate) fn parts(&self) -> Option<(String, &str)> {
        parts(&self.0)
    }

    /// The partition of the user, of so many.
    pub(crate) fn partition(&self, partitions: u16) -> u16 {
        partition(&[&self.0], partitions)
    }
}

fn joined(app_id: &str, name: &str) -> Arc<str> {
    format!("{}:{name}", escaped(app_id)).into()
}

fn escaped(app_id: &str) -> String {
    app_id.replace('%', "%25").replace(':', "%3A")
}

fn parts(path: &str) -> Option<(String, &str)> {
    let (app, name) = path.split_once(':')?;
    Some((app.replace("%3A", ":").replace("%25", "%"), name))
}

/// SipHash-1-3 with a key of zeros, modulo the number of partitions: all versions of all nodes have
/// to agree on it.
fn partition(path: &[&str], partitions: u16) -> u16 {
    let mut hash = SipHasher13::new_with_keys(0, 0);
    path.iter().for_each(|part| hash.write(part.as_bytes()));
    let partition = hash.finish() % u64::from(partitions.max(1));
    // A remainder of a u16 fits into one.
    u16::try_from(partition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_different_channels_differ_and_can_be_read() {
        let names = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a%", "3Ab:c"), ("", ":")];
        for (app, name) in names {
            let path = ChannelPath::new(app, name);
            assert_eq!(path.parts(), Some((app.to_owned(), name)));
            let same = names.iter().filter(|(a, n)| ChannelPath::new(a, n) == path).count();
            assert_eq!(same, 1, "{path:?}");
        }
        assert_eq!(ChannelPath::from_text("none").parts(), None);
    }

    #[test]
    fn the_partition_of_a_channel_never_changes() {
        let of = |name: &str| ChannelPath::new("app", name).partition(16);
        assert_eq!(["a", "b", "news", "presence-room.1"].map(of), PARTITIONS);
        assert_eq!(ChannelPath::new("app", "a").partition(1), 0);
        for app in ["app", "a:b%"] {
            for name in ["", "a", "presence-room.1"] {
                let partition = AppPath::new(app).partition(name, 16);
                assert_eq!(partition, ChannelPath::new(app, name).partition(16));
            }
        }
    }

    /// The partitions that the first version computed.
    const PARTITIONS: [u16; 4] = [6, 12, 0, 3];
}
