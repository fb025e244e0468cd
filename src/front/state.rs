//! The state of one shard's front.

use std::cell::Cell;
use std::rc::Rc;

use super::body::BodyBudget;
use super::permits::Permits;
use super::settings::CurrentSettings;

/// The state that all connections of one shard share.
pub(super) struct Front<G> {
    pub(super) gateway: G,
    pub(super) settings: CurrentSettings,
    pub(super) bodies: BodyBudget,
    pub(super) permits: Permits,
    /// The number of open connections that were accepted while memory was short.
    pub(super) low_memory_connections: Rc<Cell<usize>>,
}
