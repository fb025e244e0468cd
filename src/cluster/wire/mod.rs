//! The language that nodes and the scripts in Redis speak. The scripts of `../scripts` and their
//! model in `model.rs` implement it; nothing else writes a key of a cluster.
//!
//! # Keys
//! All keys of a partition begin with a tag `T` = `{ringwave:NAME:P}:`, so that they share a slot
//! of Redis Cluster. `CHAN` is a [`ChannelPath`], `USER` a [`UserPath`] and `N` a [`NodeId`].
//!
//! [`ChannelPath`]: crate::channels::ChannelPath
//! [`UserPath`]: crate::channels::UserPath
//!
//! | key behind `T` | type | content |
//! |---|---|---|
//! | `partitions` | string | the number of partitions; a node with another one is refused |
//! | `epoch` | string | random, set by the first node; another value: Redis was emptied |
//! | `run` | string | the `run_id` of the server; another value: it restarted or failed over |
//! | `tended` | string | the time of the last `tend`, in milliseconds of Redis |
//! | `nodes` | zset | node -> end of its lease, in milliseconds of Redis |
//! | `stale` | set | nodes that get every message: the server may have forgotten their interest |
//! | `node:N` | hash | `version`, `base`, `done`, `read`, `unread`, `cut`, `dead`, `owed` |
//! | `addresses` | hash | node -> its address |
//! | `apps` | hash | node -> the fingerprint of its apps |
//! | `in:N` | stream with `PEXPIRE` | the inbox: one entry per call that had records for the node |
//! | `channels` | hash | CHAN -> its nodes and their counts, see below |
//! | `mem:CHAN` | hash | user id -> number of nodes, a space, the encoded member |
//! | `ev:CHAN` | string with `PX` | the last event of a cache channel, as a command brought it |
//! | `of:N` | set | the channels that N is registered for |
//! | `mo:N` | set | registrations of N that others see, by their letters, see below |
//! | `user:USER` | set | nodes that have a connection of the user |
//! | `watch:USER` | set | nodes that watch the user |
//! | `quota:APP` | hash | node -> permits for connections that it holds |
//! | `gone` | zset | departure that webhooks have not been told -> time at which it is due |
//!
//! The nodes of a channel are fetched for each event, so they are one text: their ids in their
//! order, one behind the other, then, unless all counts are 1, a space and the counts with commas
//! between them. A count is the node's number of subscriptions, or 1 where nobody counts them. The
//! texts are in one hash, because its fields are found sooner than keys, and take less memory. The
//! field with the empty name has a long value, with which Redis makes no list of a small hash: it
//! would go through the list for each channel.
//!
//! In `node:N`, `done` is the number of the last batch that was executed. Inboxes hold, or have
//! held, what the batches behind `base` had for them. `read` and `unread` are bytes.
//!
//! `mo:N` holds `m CHAN NUL user id` (a member), `c CHAN` (counted subscriptions), `u USER`
//! (online), `w USER` (watched) and `q APP` (permits). A departure is `CHAN NUL user id`; without a
//! user id, the channel was vacated.
//!
//! # A call
//! `EVALSHA sha 1 T.."nodes" T N epoch kind number lease_ms retention_ms inbox_bytes COMMAND...`
//! with the commands of one call as their arguments ([`Command::push_args`]), in their order.
//! Answer: `done`, or `enter` if the node has to enter first (it is unknown, cut or dead, the epoch
//! is another one, or a number is missing), and then nothing was executed.
//!
//! `kind` is `b` (a batch) or `r` (a registration anew). Batches are numbered without gaps from the
//! `done` of the entrance: a batch with a number that was executed is skipped and answered `done`,
//! one behind a gap is answered `enter`. Registrations have numbers of their own, which nothing
//! checks: they are absolute, so they may be executed twice.
//!
//! Whatever a call has for a node, itself included, is collected and appended to the node's inbox
//! at the end of the call, as one stream entry. The names and values of its fields, one behind the
//! other, are an [`Entry`]: they are cut where this costs Redis least. Past `inbox_bytes` of unread
//! bytes (of entries), the inbox is deleted and the node marked `cut`. So is a node whose inbox
//! Redis has evicted, and one that is buried while it is stale, because its interest is known in
//! part only, and one whose interest is buried, which may take several calls.
//!
//! # The entrance
//! `EVALSHA sha 1 T.."nodes" T N partitions epoch run version address base lease_ms
//! known_node...` introduces a node, at its start and after every reconnection. `epoch` is used if
//! there is none; `run` is the `run_id` of the server (empty if it does not tell); `base` is the
//! number before the first batch that the node can repeat. The script
//! - answers the error `PARTITIONS n` if the cluster has another number of partitions, and does
//!   nothing;
//! - makes `node:N` if there is none, and raises a `done` below `base` to it: then that is the
//!   `base` of `node:N`, because batches before it are lost to those who have not read them;
//! - adds N to `stale`, until its `ready`, if something may be forgotten: the answer has `f`, `c`
//!   or `m`, or `run` or `epoch` is new, or the server does not tell a `run`; gives it a lease;
//! - if `run` or `epoch` is new: adds every other node of `nodes` to `stale`, and every known node
//!   that `nodes` lacks to both, with a lease that starts now: they get every message until they
//!   have registered anew or are buried, so nothing that is published meanwhile misses them;
//! - clears `cut` and `dead`.
//!
//! The answer may be lost. So its letters are added to `owed`, every entrance answers all that is
//! owed, and `ready` clears it.
//!
//! Answer: a list of `epoch`, `done`, letters (`f`: the node was unknown, `c`: it was cut, `d`: its
//! members were buried, `m`: others have made batches while none of them knew it), and the time of
//! Redis in milliseconds. With `f` or `c` the inbox is a new one, whose ids may be below those of
//! the old one: the node reads it from the beginning, and counts the bytes read from 0. With `f`
//! entries may be there already, because the node was stale.
//!
//! # Time
//! Leases run by Redis' `TIME`. If `tended` is more than two seconds old, Redis stood still or was
//! away: all leases start anew, so that an outage buries nobody.
//!
//! # Commands and what they append
//! The table is in [`Command`]; the records are in [`Record`].

mod codec;
mod command;
mod entrance;
mod entry;
mod node_id;
mod record;

#[cfg(any(test, feature = "testing"))]
pub(crate) use codec::{Listed, Values};
pub(crate) use codec::{id, number, text};
pub(crate) use command::{Command, JoinFlags};
pub(crate) use entrance::{Entered, Entrance};
pub(crate) use entry::{CallKind, Entry, EntryError};
pub(crate) use node_id::NodeId;
pub(crate) use record::{Admitted, Batched, MemberText, NodeInfo, Record, Retained};
