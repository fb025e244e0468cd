//! The commands of a call.

use bytes::Bytes;

use super::codec::{flag, id, number, text};
use super::{MemberText, NodeId, Record, Retained};
use crate::channels::{ChannelPath, UserPath};
use crate::frame::Frame;
use crate::id::SocketId;

/// A command of a node. Each becomes a verb and its arguments, of which `flags` has a letter for
/// each flag.
///
/// "Its nodes" are those of the channel in `channels`, "all" are those of `nodes`. "Own" is the
/// inbox of the caller. Where nothing changes (a node joins twice, a user that is not there parts),
/// the answer for the own inbox is still appended, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `join CHAN count flags`: the node has its first subscriber. Adds CHAN to `of:N` and sets the
    /// node's count. Own: [`Record::Joined`]. If `counted`: [`Record::Count`] to its nodes, and
    /// `c CHAN` in `mo:N`. A departure that is not told yet (`gone`) is undone: then nobody is told
    /// that the channel is occupied. Behind 4 MiB of members a call lists none of further channels:
    /// these answers are not exact, and [`Record::Settled`] ends the call if no node is stale, upon
    /// which the node asks again.
    Join(ChannelPath, u32, JoinFlags),
    /// `leave CHAN flags`: the last subscriber of the node is gone. Own: [`Record::Left`]. If
    /// `counted` and the node was registered: [`Record::Count`] to its nodes, and an own one for
    /// webhooks. If it was the last node and departures are `told`, the departure is added to
    /// `gone`, due three seconds later.
    Leave(ChannelPath, JoinFlags),
    /// `count CHAN count`: the node has so many subscriptions now, if it is registered.
    /// [`Record::Count`] to its nodes, in which the own record is marked; own only if the count is
    /// the same.
    Count(ChannelPath, u32),
    /// `enter CHAN user_id member max flags`: a user of a presence channel has a first connection
    /// on the node. `max`: the most members, 0 is any number. Adds `m CHAN NUL user_id` to `mo:N`.
    /// Own: [`Record::Entered`]. If the user is new: [`Record::Added`] to its nodes first, unless
    /// `anew`.
    Enter {
        /// The channel.
        channel: ChannelPath,
        /// The id of the user.
        user_id: Box<str>,
        /// The user as subscribers are told of it.
        member: MemberText,
        /// The most members; 0 is any number.
        max: u32,
        /// `anew`: nobody is to be told of the user.
        flags: JoinFlags,
    },
    /// `part CHAN user_id flags`: the last connection of the user on the node is gone. Own:
    /// [`Record::Parted`]. If it was the last node with the user: [`Record::Removed`] to its nodes
    /// first, and, if departures are `told`, the departure is added to `gone`.
    Part(ChannelPath, Box<str>, JoinFlags),
    /// `publish CHAN record`: appends `record`, which is an encoded [`Record::Message`], to its
    /// nodes and to those in `stale`. If it is retained, `retain CHAN ttl_ms retained` stands
    /// before it: `retained` becomes `ev:CHAN` for that time, unless it is 0.
    Publish {
        /// The channel.
        channel: ChannelPath,
        /// The event.
        frame: Frame,
        /// The connection that must not get it.
        except: Option<SocketId>,
        /// The part that is kept as the last event of a cache channel, and for how long.
        retained: Option<Retained>,
    },
    /// `keep CHAN ttl_ms retained`: `retained` becomes `ev:CHAN` for that time, if there is none
    /// and the time is not 0. In a registration, it brings an empty Redis the last event of a cache
    /// channel that the node has a copy of.
    Keep(ChannelPath, Retained, Frame),
    /// `online USER`: the node has a first connection of the user. [`Record::Online`] to the
    /// watching nodes if no node had one.
    Online(UserPath),
    /// `offline USER`: the node has no connection of the user any more. [`Record::Online`] to the
    /// watching nodes if no node has one.
    Offline(UserPath),
    /// `watch USER`: the node wants to know whether the user is online. Own: [`Record::Online`].
    Watch(UserPath),
    /// `unwatch USER`.
    Unwatch(UserPath),
    /// `state CHAN request payload`: Own: [`Record::Asked`] with its nodes, the number of its
    /// members, and its last event. [`Record::Question`] with `payload` to each of its nodes. The
    /// nodes in `stale` count among them; in `Asked` only those that `ask` would name do.
    State {
        /// The channel.
        channel: ChannelPath,
        /// The number of the request at the asking node.
        request: u32,
        /// The question for its nodes.
        payload: Bytes,
    },
    /// `users CHAN request`: Own: [`Record::Users`].
    Users(ChannelPath, u32),
    /// `ask request payload`: Own: [`Record::Asked`] with all nodes whose lease runs and that are
    /// not buried. [`Record::Question`] to all.
    Ask(u32, Bytes),
    /// `answer node request payload`: [`Record::Answer`] to that node, if it is among all. Nothing
    /// if the answers of the call would make its unread bytes more than half of the bound.
    Answer(NodeId, u32, Bytes),
    /// `tend read_id read_bytes departures apps`: see `wire`. Renews the lease, trims the own inbox
    /// below `read_id` (a stream id, or empty), notes the bytes read and the apps, starts leases
    /// anew if nobody tended. Own: [`Record::Tended`]; if `departures` is 1, [`Record::Gone`] for
    /// each departure that is due, at most 1,000; [`Record::Dead`] for each node whose lease is
    /// over and that has something to bury.
    Tend {
        /// The id of the last entry that was read; empty before the first.
        read_id: Box<str>,
        /// The bytes of all entries read since the node began.
        read_bytes: u64,
        /// Whether the node tells webhooks of departures. One that is about to stop leaves them to
        /// the others.
        departures: bool,
        /// The fingerprint of the apps.
        apps: Box<str>,
    },
    /// `ready`: the node has registered and repeated everything: it leaves `stale`, and has heard
    /// the letters that it was owed. If `stale` is empty now: [`Record::Settled`] to all, but only
    /// own if the node was not in it.
    Ready,
    /// `bury node`: takes out at most 200 of the node's registrations, as leaves and parts of its
    /// own would (departures told), if its lease is over: first those in `mo:`, its permits and its
    /// place in `stale`, and marks it `dead`; then, `retention_ms` behind the lease, its inbox (it
    /// is cut), those in `of:`, and `node:N`. Own: [`Record::Dead`] again if something is left that
    /// is due now.
    Bury(NodeId),
    /// `quit`: the node stops, and nothing of it is needed any more: its lease and its retention
    /// are over, and it is buried at once as far as one call may do that. The others do the rest.
    Quit,
    /// `permits APP wanted total`: lends the node permits, so that no more than `total` are lent:
    /// half of the free ones, at least one, at most `wanted`. Own: [`Record::Permits`]. If nothing
    /// was free: [`Record::Recall`] to all others that hold some. While a node is stale, nothing is
    /// lent and nobody is asked, because that node may hold permits that it has not claimed yet. In
    /// a registration it is a claim: the node holds `wanted` from now on, whatever is free.
    Permits {
        /// The id of the app, as in paths.
        app: Box<str>,
        /// The most that are of use.
        wanted: u32,
        /// The quota of the app.
        total: u32,
    },
    /// `return APP count`: gives permits back. Own: [`Record::Permits`].
    Return {
        /// The id of the app, as in paths.
        app: Box<str>,
        /// The number of permits.
        count: u32,
    },
}

/// The circumstances of a command about a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinFlags {
    /// `p`: it is a presence channel, and the members are wanted.
    pub(crate) presence: bool,
    /// `c`: subscribers or webhooks are told the number of subscriptions.
    pub(crate) counted: bool,
    /// `t`: webhooks are told of departures.
    pub(crate) told: bool,
    /// `a`: the node registers anew: nobody is to be told that the channel is occupied.
    pub(crate) anew: bool,
}

impl JoinFlags {
    /// The letters of the flags that are set, in the order `pcta`.
    pub(crate) fn letters(self) -> Bytes {
        let Self { presence, counted, told, anew } = self;
        let letters = [(presence, b'p'), (counted, b'c'), (told, b't'), (anew, b'a')];
        letters.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect()
    }

    /// The flags whose letters are there.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of(letters: &[u8]) -> Self {
        let has = |letter| letters.contains(&letter);
        let [presence, counted, told, anew] = [b'p', b'c', b't', b'a'].map(has);
        Self { presence, counted, told, anew }
    }
}

impl Command {
    /// Appends the verb and its arguments.
    pub(crate) fn push_args(&self, out: &mut Vec<Bytes>) {
        match self {
            Self::Join(channel, count, flags) => {
                push(out, "join", [text(channel.as_str()), number(*count), flags.letters()]);
            }
            Self::Leave(channel, flags) => {
                push(out, "leave", [text(channel.as_str()), flags.letters()]);
            }
            Self::Count(channel, count) => {
                push(out, "count", [text(channel.as_str()), number(*count)]);
            }
            Self::Enter { channel, user_id, member, max, flags } => {
                let (channel, user_id) = (text(channel.as_str()), text(user_id));
                let member = member.bytes().clone();
                push(out, "enter", [channel, user_id, member, number(*max), flags.letters()]);
            }
            Self::Part(channel, user_id, flags) => {
                push(out, "part", [text(channel.as_str()), text(user_id), flags.letters()]);
            }
            Self::Publish { channel, frame, except, retained } => {
                let record = Record::Message {
                    channel: channel.clone(),
                    except: *except,
                    retained: retained.clone(),
                    frame: frame.clone(),
                };
                if let Some(retained) = retained {
                    let (ttl_ms, kept) = (number(retained.ttl_ms), retained.with_frame(frame));
                    push(out, "retain", [text(channel.as_str()), ttl_ms, kept]);
                }
                push(out, "publish", [text(channel.as_str()), record.encode()]);
            }
            Self::Keep(channel, retained, frame) => {
                let (ttl_ms, kept) = (number(retained.ttl_ms), retained.with_frame(frame));
                push(out, "keep", [text(channel.as_str()), ttl_ms, kept]);
            }
            Self::Online(user) => push(out, "online", [text(user.as_str())]),
            Self::Offline(user) => push(out, "offline", [text(user.as_str())]),
            Self::Watch(user) => push(out, "watch", [text(user.as_str())]),
            Self::Unwatch(user) => push(out, "unwatch", [text(user.as_str())]),
            Self::State { channel, request, payload } => {
                push(out, "state", [text(channel.as_str()), number(*request), payload.clone()]);
            }
            Self::Users(channel, request) => {
                push(out, "users", [text(channel.as_str()), number(*request)]);
            }
            Self::Ask(request, payload) => push(out, "ask", [number(*request), payload.clone()]),
            Self::Answer(node, request, payload) => {
                push(out, "answer", [id(node), number(*request), payload.clone()]);
            }
            Self::Tend { read_id, read_bytes, departures, apps } => {
                let departures = flag(*departures);
                push(out, "tend", [text(read_id), number(*read_bytes), departures, text(apps)]);
            }
            Self::Ready => push(out, "ready", []),
            Self::Bury(node) => push(out, "bury", [id(node)]),
            Self::Quit => push(out, "quit", []),
            Self::Permits { app, wanted, total } => {
                push(out, "permits", [text(app), number(*wanted), number(*total)]);
            }
            Self::Return { app, count } => push(out, "return", [text(app), number(*count)]),
        }
    }

    /// The bytes that it takes in a call, roughly.
    pub(crate) fn weight(&self) -> usize {
        let rest = match self {
            Self::Publish { frame, retained, .. } => {
                frame.len() * (1 + usize::from(retained.is_some()))
                    + retained.as_ref().map_or(0, |retained| 2 * retained.data.len())
            }
            Self::Keep(_, retained, frame) => frame.len() + retained.data.len(),
            Self::Enter { member, .. } => member.bytes().len(),
            Self::State { payload, .. } | Self::Ask(_, payload) | Self::Answer(_, _, payload) => {
                payload.len()
            }
            _ => 0,
        };
        // The name of a channel or a user, and the record of the command.
        rest + 128
    }
}

fn push<const N: usize>(out: &mut Vec<Bytes>, verb: &'static str, arguments: [Bytes; N]) {
    out.push(Bytes::from_static(verb.as_bytes()));
    out.extend(arguments);
}
