//! The records that scripts append to inboxes.
//!
//! A record is a letter, the length of the rest (32 bits, big endian), and fields, each with its
//! length (32 bits, big endian) before it; [`codec`] has the encoding. Everything that comes out of
//! Redis is untrusted: a record that does not fit its form is [`None`], and one with an unknown
//! letter is passed over.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::NodeId;
use super::codec::{self, Fields, Values, flag, id, number, optional, put, take, text};
use crate::channels::{ChannelPath, UserPath};
use crate::frame::Frame;
use crate::id::SocketId;
use crate::protocol::auth::Member;

/// A record, with its letter and its fields in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `M CHAN except ttl_ms data frame`: an event. `except` is a socket id or empty; `ttl_ms` is 0
    /// and `data` empty unless it is kept as the last event of a cache channel.
    Message {
        /// The channel.
        channel: ChannelPath,
        /// The connection that must not get it.
        except: Option<SocketId>,
        /// The part of it that is kept.
        retained: Option<Retained>,
        /// The encoded event.
        frame: Frame,
    },
    /// `J CHAN first exact total ttl_ms last member...`: the answer to `join`. `first`: the channel
    /// was vacant, and webhooks are to be told that it is occupied. `exact`: no node is stale, so
    /// the members are all that there are. An answer that is not exact may lack members, and the
    /// answer in a registration, which never is exact, lists none. `total`: subscriptions of all
    /// nodes. `last` is `ev:CHAN`, empty with a `ttl_ms` of 0 if there is none. The members only on
    /// presence channels.
    Joined {
        /// The channel.
        channel: ChannelPath,
        /// Whether the channel was vacant.
        first: bool,
        /// Whether the members are all.
        exact: bool,
        /// The number of subscriptions of all nodes.
        total: u32,
        /// The last event of a cache channel.
        last: Option<(Retained, Frame)>,
        /// The members of a presence channel.
        members: Vec<MemberText>,
    },
    /// `L CHAN vacated`: the answer to `leave`.
    Left(ChannelPath, bool),
    /// `C CHAN total own`: the number of subscriptions of all nodes. `own`: the receiver's own call
    /// changed it.
    Count(ChannelPath, u32, bool),
    /// `A CHAN member`: a user is a member now.
    Added(ChannelPath, MemberText),
    /// `R CHAN user_id`: a user is no member any more.
    Removed(ChannelPath, Box<str>),
    /// `E CHAN user_id outcome`: the answer to `enter`.
    Entered(ChannelPath, Box<str>, Admitted),
    /// `P CHAN user_id`: the answer to `part`.
    Parted(ChannelPath, Box<str>),
    /// `O USER online`: whether a watched user is online.
    Online(UserPath, bool),
    /// `Q node request payload`: a node asks.
    Question(NodeId, u32, Bytes),
    /// `K request members ttl_ms last node...`: the nodes that were asked, with the number of
    /// members and the last event of the channel, where the question was about one.
    Asked {
        /// The number of the request.
        request: u32,
        /// The members of the channel.
        members: u32,
        /// The last event of the channel.
        last: Option<(Retained, Frame)>,
        /// The nodes that answer.
        nodes: Vec<NodeId>,
    },
    /// `U request user_id...`: the members of a channel.
    Users(u32, Vec<Box<str>>),
    /// `W node request payload`: a node answers.
    Answer(NodeId, u32, Bytes),
    /// `G CHAN user_id`: a departure is due to be told; without a user id, the channel was vacated.
    Gone(ChannelPath, Box<str>),
    /// `T now_ms (node address apps base done)...`: the time of Redis, and all nodes. `base` and
    /// `done` are empty for a node that has not entered.
    Tended(u64, Vec<NodeInfo>),
    /// `D node`: the lease of a node is over, and something is left to bury.
    Dead(NodeId),
    /// `S`: no node is stale any more, or, to one node, none is though an answer was not exact.
    Settled,
    /// `H APP held`: the permits that this node holds.
    Permits(Box<str>, u32),
    /// `V APP`: another node needs permits.
    Recall(Box<str>),
}

/// The outcome of `enter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// `a`: the user was a member already.
    Again,
    /// `n`: the user is a new member, of whom webhooks are to be told.
    New,
    /// `u`: the user has returned before webhooks were told of the departure.
    Returned,
    /// `f`: the channel is full, and the user is not a member.
    Full,
}

/// The part of its last event that a cache channel keeps beside the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retained {
    /// The event's `data`.
    pub(crate) data: Arc<str>,
    /// The milliseconds for which it is kept, from when the record was made.
    pub(crate) ttl_ms: u64,
}

/// A node as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeInfo {
    /// Its id.
    pub(crate) id: NodeId,
    /// Its host name and listener, for the operator.
    pub(crate) address: Box<str>,
    /// The fingerprint of its apps; empty before its first `tend`.
    pub(crate) apps: Box<str>,
    /// Its batches; `None` if it has not entered.
    pub(crate) batched: Option<Batched>,
}

/// The numbers of a node's batches that Redis has executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batched {
    /// The number before the first of them of which nothing is lost.
    pub(crate) base: u64,
    /// The number of the last.
    pub(crate) done: u64,
}

/// A member of a presence channel as text: `{"user_id":"7","user_info":{…}}`, as the app signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberText(Bytes);

impl Retained {
    /// The text that Redis keeps: the length of the data (32 bits, big endian), the data, the
    /// frame.
    pub(crate) fn with_frame(&self, frame: &Frame) -> Bytes {
        let mut out = BytesMut::new();
        put(&mut out, self.data.as_bytes());
        out.put_slice(frame.bytes());
        out.freeze()
    }

    /// Reads that text again.
    pub(crate) fn read(mut text: Bytes, ttl_ms: u64) -> Option<(Self, Frame)> {
        let data = take(&mut text)?;
        let data = std::str::from_utf8(&data).ok()?.into();
        Some((Self { data, ttl_ms }, Frame::text_from_wire(&text)?))
    }
}

impl MemberText {
    /// The text of a member.
    pub(crate) fn of(member: &Member) -> Self {
        let mut text = String::from(r#"{"user_id":"#);
        text.push_str(&member.id_json);
        if let Some(info) = &member.user_info {
            text.push_str(r#","user_info":"#);
            text.push_str(info);
        }
        text.push('}');
        Self(text.into())
    }

    /// Takes the text of a record.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn from_text(text: Bytes) -> Self {
        Self(text)
    }

    /// The text.
    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The member; `None` if the text is not one.
    pub(crate) fn member(&self) -> Option<Member> {
        #[derive(Deserialize)]
        struct Text<'a> {
            #[serde(borrow)]
            user_id: &'a RawValue,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
        }
        let Text { user_id, user_info } = serde_json::from_slice(&self.0).ok()?;
        let id_json = user_id.get();
        let id = match serde_json::from_str(id_json).ok()? {
            serde_json::Value::String(id) => id,
            serde_json::Value::Number(_) => id_json.to_owned(),
            _ => return None,
        };
        let user_info = user_info.map(|info| info.get().into());
        Some(Member { user_id: id.into(), id_json: id_json.into(), user_info })
    }
}

impl Record {
    /// The encoded record.
    pub(crate) fn encode(&self) -> Bytes {
        codec::record(self.letter(), &self.fields())
    }

    /// Reads the next record of an entry. `None` if what follows is no record. `Some(None)` if it
    /// has an unknown letter or does not fit its form.
    pub(crate) fn next(rest: &mut Bytes) -> Option<Option<Self>> {
        let (letter, mut fields) = codec::take_record(rest)?;
        Some(Self::of(letter, &mut fields))
    }

    fn letter(&self) -> u8 {
        match self {
            Self::Message { .. } => b'M',
            Self::Joined { .. } => b'J',
            Self::Left(..) => b'L',
            Self::Count(..) => b'C',
            Self::Added(..) => b'A',
            Self::Removed(..) => b'R',
            Self::Entered(..) => b'E',
            Self::Parted(..) => b'P',
            Self::Online(..) => b'O',
            Self::Question(..) => b'Q',
            Self::Asked { .. } => b'K',
            Self::Users(..) => b'U',
            Self::Answer(..) => b'W',
            Self::Gone(..) => b'G',
            Self::Tended(..) => b'T',
            Self::Dead(_) => b'D',
            Self::Settled => b'S',
            Self::Permits(..) => b'H',
            Self::Recall(_) => b'V',
        }
    }

    fn fields(&self) -> Vec<Bytes> {
        match self {
            Self::Message { channel, except, retained, frame } => {
                let except = optional(*except);
                let (ttl_ms, data) = retained
                    .as_ref()
                    .map_or((0, Bytes::new()), |kept| (kept.ttl_ms, text(&kept.data)));
                vec![text(channel.as_str()), except, number(ttl_ms), data, frame.bytes().clone()]
            }
            Self::Joined { channel, first, exact, total, last, members } => {
                let mut fields =
                    vec![text(channel.as_str()), flag(*first), flag(*exact), number(*total)];
                fields.extend(kept(last.as_ref()));
                fields.extend(members.iter().map(|member| member.0.clone()));
                fields
            }
            Self::Left(channel, vacated) => vec![text(channel.as_str()), flag(*vacated)],
            Self::Count(channel, total, own) => {
                vec![text(channel.as_str()), number(*total), flag(*own)]
            }
            Self::Added(channel, member) => vec![text(channel.as_str()), member.0.clone()],
            Self::Removed(channel, user)
            | Self::Parted(channel, user)
            | Self::Gone(channel, user) => {
                vec![text(channel.as_str()), text(user)]
            }
            Self::Entered(channel, user, admitted) => {
                vec![text(channel.as_str()), text(user), text(admitted.letter())]
            }
            Self::Online(user, online) => vec![text(user.as_str()), flag(*online)],
            Self::Question(node, request, payload) | Self::Answer(node, request, payload) => {
                vec![id(node), number(*request), payload.clone()]
            }
            Self::Asked { request, members, last, nodes } => {
                let mut fields = vec![number(*request), number(*members)];
                fields.extend(kept(last.as_ref()));
                fields.extend(nodes.iter().map(id));
                fields
            }
            Self::Users(request, users) => {
                let users = users.iter().map(|user| text(user));
                std::iter::once(number(*request)).chain(users).collect()
            }
            Self::Tended(now_ms, nodes) => {
                let nodes = nodes.iter().flat_map(|node| {
                    let base = optional(node.batched.map(|batched| batched.base));
                    let done = optional(node.batched.map(|batched| batched.done));
                    [id(node.id), text(&node.address), text(&node.apps), base, done]
                });
                std::iter::once(number(*now_ms)).chain(nodes).collect()
            }
            Self::Dead(node) => vec![id(node)],
            Self::Settled => Vec::new(),
            Self::Permits(app, held) => vec![text(app), number(*held)],
            Self::Recall(app) => vec![text(app)],
        }
    }

    fn of(letter: u8, fields: &mut Fields) -> Option<Self> {
        let record = match letter {
            b'M' => {
                let channel = fields.channel()?;
                let except = fields.optional()?;
                let (ttl_ms, data) = (fields.number()?, fields.text()?);
                let retained = (ttl_ms > 0).then(|| Retained { data: data.into(), ttl_ms });
                let frame = Frame::text_from_wire(&fields.next()?)?;
                Self::Message { channel, except, retained, frame }
            }
            b'J' => Self::Joined {
                channel: fields.channel()?,
                first: fields.flag()?,
                exact: fields.flag()?,
                total: fields.number()?,
                last: read_kept(fields)?,
                members: fields.all(|fields| fields.next().map(MemberText))?,
            },
            b'L' => Self::Left(fields.channel()?, fields.flag()?),
            b'C' => Self::Count(fields.channel()?, fields.number()?, fields.flag()?),
            b'A' => Self::Added(fields.channel()?, MemberText(fields.next()?)),
            b'R' => Self::Removed(fields.channel()?, fields.text()?),
            b'E' => {
                let (channel, user) = (fields.channel()?, fields.text()?);
                Self::Entered(channel, user, Admitted::of(&fields.text()?)?)
            }
            b'P' => Self::Parted(fields.channel()?, fields.text()?),
            b'O' => Self::Online(fields.user()?, fields.flag()?),
            b'Q' => Self::Question(fields.node()?, fields.number()?, fields.next()?),
            b'K' => Self::Asked {
                request: fields.number()?,
                members: fields.number()?,
                last: read_kept(fields)?,
                nodes: fields.all(Fields::node)?,
            },
            b'U' => Self::Users(fields.number()?, fields.all(Fields::text)?),
            b'W' => Self::Answer(fields.node()?, fields.number()?, fields.next()?),
            b'G' => Self::Gone(fields.channel()?, fields.text()?),
            b'T' => {
                let node = |fields: &mut Fields| {
                    let (id, address, apps) = (fields.node()?, fields.text()?, fields.text()?);
                    Some(NodeInfo { id, address, apps, batched: read_batched(fields)? })
                };
                Self::Tended(fields.number()?, fields.all(node)?)
            }
            b'D' => Self::Dead(fields.node()?),
            b'S' => Self::Settled,
            b'H' => Self::Permits(fields.text()?, fields.number()?),
            b'V' => Self::Recall(fields.text()?),
            _ => return None,
        };
        fields.is_empty().then_some(record)
    }
}

impl Admitted {
    const ALL: [Self; 4] = [Self::Again, Self::New, Self::Returned, Self::Full];

    const fn letter(self) -> &'static str {
        match self {
            Self::Again => "a",
            Self::New => "n",
            Self::Returned => "u",
            Self::Full => "f",
        }
    }

    fn of(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|admitted| admitted.letter() == letter)
    }
}

/// The last event of a channel, as `ttl_ms` and the text that Redis keeps.
fn kept(last: Option<&(Retained, Frame)>) -> [Bytes; 2] {
    match last {
        Some((retained, frame)) => [number(retained.ttl_ms), retained.with_frame(frame)],
        None => [number(0), Bytes::new()],
    }
}

/// Reads it again: `Some(None)` if there is none.
fn read_kept(fields: &mut Fields) -> Option<Option<(Retained, Frame)>> {
    let (ttl_ms, kept) = (fields.number()?, fields.next()?);
    if ttl_ms == 0 {
        return Some(None);
    }
    Retained::read(kept, ttl_ms).map(Some)
}

/// Reads the batches of a node: `Some(None)` if it has not entered.
fn read_batched(fields: &mut Fields) -> Option<Option<Batched>> {
    match (fields.optional()?, fields.optional()?) {
        (Some(base), Some(done)) => Some(Some(Batched { base, done })),
        (None, None) => Some(None),
        _ => None,
    }
}
