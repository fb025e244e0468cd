//! A call of the API, and its way to the shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::apps::App;
use crate::channels::ChannelKey;
use crate::protocol::names::ChannelName;
use crate::protocol::signing;

use super::super::gateway::{Gateway, GatewayCommand, Reply, Unserved};
use super::super::pace::Pace;
use super::super::response::Rejection;
use super::info::Info;
use super::json::JsonParser;

/// A request that the app has signed.
pub(super) struct Call<'c, G> {
    pub(super) gateway: &'c G,
    pub(super) pace: &'c Pace,
    pub(super) app: &'c Arc<App>,
    pub(super) query: &'c str,
    pub(super) json: &'c JsonParser,
}

impl<G: Gateway> Call<'_, G> {
    /// The key of a channel of the app.
    pub(super) fn key_of(&self, name: ChannelName) -> ChannelKey {
        self.gateway.channel(self.app.index, name)
    }

    /// Asks the shard. A missing answer is the fault of the server, so the caller may try again.
    ///
    /// # Errors
    /// The shard cannot answer now.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> GatewayCommand,
    ) -> Result<T, Rejection> {
        self.submit(command).within(self.pace).await
    }

    /// Asks the shard, which answers later.
    pub(super) fn submit<T>(&self, command: impl FnOnce(Reply<T>) -> GatewayCommand) -> Asked<T> {
        let (reply, answer) = oneshot::channel();
        self.gateway.submit(command(reply));
        Asked(answer)
    }

    /// The value of a parameter; the last one when it is repeated, as PHP reads it.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let named = signing::query_pairs(self.query).filter(|(key, _)| key == name);
        named.last().map(|(_, value)| value.into_owned())
    }

    /// The attributes that the `info` parameter asks for.
    pub(super) fn info(&self) -> Info {
        self.parameter("info").as_deref().map(Info::of).unwrap_or_default()
    }
}

/// The answer of the shard to come.
pub(super) struct Asked<T>(oneshot::Receiver<Result<T, Unserved>>);

impl<T> Asked<T> {
    /// Waits for the answer for as long as the shard may take.
    ///
    /// # Errors
    /// The shard cannot answer now, or does not.
    pub(super) async fn within(self, pace: &Pace) -> Result<T, Rejection> {
        match pace.within(SHARD_TIMEOUT, self.0).await {
            Ok(Ok(answer)) => answer.map_err(Rejection::Unserved),
            Ok(Err(_)) | Err(_) => Err(Rejection::BUSY),
        }
    }
}

/// The time that a shard has for its answer: the PHP client gives up after 30 s.
const SHARD_TIMEOUT: Duration = Duration::from_secs(25);
