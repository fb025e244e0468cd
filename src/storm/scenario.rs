//! The scenarios of a storm.

use clap::ValueEnum;

/// A scenario decides which part of the server is put under load. The texts are those of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Connect and subscribe, then hold the connections
    Connect,
    /// Publish through the API to subscribers
    Fanout,
    /// Publish through the API to channels with few or no subscribers
    Publish,
    /// Send client events between subscribers
    Whisper,
    /// Connect, subscribe and leave, over and over
    Churn,
    /// Like fanout, but a share of the subscribers stops reading
    Slow,
    /// Drop all connections at once and let them return at once
    Reconnect,
}

impl Scenario {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Fanout => "fanout",
            Self::Publish => "publish",
            Self::Whisper => "whisper",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Reconnect => "reconnect",
        }
    }
}
