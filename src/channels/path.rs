//! The names of channels and users as several nodes share them, and the partition of each.

use std::hash::Hasher;
use std::marker::PhantomData;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// The path of a channel or a user of an app: the app's id with `%` and `:` percent-encoded, a
/// colon, and the channel's name or the user's id as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Path<Of> {
    text: Arc<str>,
    of: PhantomData<Of>,
}

/// The path of a channel.
pub(crate) type ChannelPath = Path<OfChannel>;

/// The path of a user.
pub(crate) type UserPath = Path<OfUser>;

/// Keeps the paths of channels apart from those of users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OfChannel {}

/// Keeps the paths of users apart from those of channels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OfUser {}

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

impl<Of> Path<Of> {
    /// The path of a channel or a user of the app with this id.
    pub(crate) fn new(app_id: &str, name: &str) -> Self {
        Self::from_text(&format!("{}:{name}", escaped(app_id)))
    }

    /// Takes the text of a record.
    pub(crate) fn from_text(text: &str) -> Self {
        Self { text: text.into(), of: PhantomData }
    }

    /// The text, as it is in keys.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The id of the app, and the name of the channel or the id of the user; `None` if the text is
    /// not a path.
    pub(crate) fn parts(&self) -> Option<(String, &str)> {
        let (app, name) = self.text.split_once(':')?;
        Some((app.replace("%3A", ":").replace("%25", "%"), name))
    }

    /// The partition of the channel or the user, of so many.
    pub(crate) fn partition(&self, partitions: u16) -> u16 {
        partition(&[&self.text], partitions)
    }
}

fn escaped(app_id: &str) -> String {
    app_id.replace('%', "%25").replace(':', "%3A")
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
