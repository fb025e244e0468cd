//! Steps that tests of one gateway share with tests of several nodes. A step that takes nodes uses
//! them in turn: whichever nodes clients and requests come to, the answers are the same.

/// Clients that are let in or refused.
pub mod admission;
/// Requests of the API.
pub mod api;
/// Events, whispers and last events.
pub mod delivery;
/// The output of commands.
pub mod output;
/// Members of a presence channel.
pub mod presence;
/// Users who sign in.
pub mod users;
/// The events that an app's own server gets.
pub mod webhooks;

use crate::gateway::Gateway;

/// The node whose turn it is.
fn in_turn<'n>(nodes: &[&'n Gateway], turn: usize) -> &'n Gateway {
    nodes[turn % nodes.len()]
}
