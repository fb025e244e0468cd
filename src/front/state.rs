//! The state of one shard's front.

use super::api::JsonParser;
use super::body::BodyBudget;
use super::clock::Date;
use super::permits::Permits;
use super::settings::CurrentSettings;

/// The state that all connections of one shard share.
pub(super) struct Front<G> {
    pub(super) gateway: G,
    pub(super) settings: CurrentSettings,
    pub(super) bodies: BodyBudget,
    pub(super) permits: Permits,
    pub(super) date: Date,
    pub(super) json: JsonParser,
}
