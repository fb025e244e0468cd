//! The channels of a storm.

use clap::ValueEnum;

/// The kind of the channels, which decides who may subscribe. The texts are those of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChannelAccess {
    /// Anybody, without a signature
    Public,
    /// Subscribers with a signature
    Private,
    /// Subscribers with a signature, which become members that are announced to each other
    Presence,
}

impl ChannelAccess {
    /// The prefix that the Pusher protocol gives the names of such channels.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Public => "",
            Self::Private => "private-",
            Self::Presence => "presence-",
        }
    }
}
