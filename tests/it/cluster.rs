//! Several nodes over Redis act as one server, whatever fails.

/// The API on any node.
mod api;
/// Several nodes on one Redis: order, exceptions, whispers, cached events, counts.
mod delivery;
/// Every way in which Redis may be run: TLS, access control, Sentinel, Redis Cluster.
mod engines;
/// Failures of nodes, and of the connections between them and Redis.
mod failures;
/// The start, `ringwave check`, and the refusals of both.
mod forming;
/// Redis that is away for longer than requests wait.
mod outages;
/// Presence channels whose members are on several nodes.
mod presence;
/// The number of connections that an app may have on all nodes.
mod quota;
/// Storms over three nodes while something fails again and again.
mod storms;
/// Publishers and subscribers that go on while something fails.
mod traffic;
/// Users who are signed in on several nodes.
mod users;
/// Webhooks: each event once, whichever nodes have to do with it.
mod webhooks;

/// The tools of the tests themselves.
mod harness;
