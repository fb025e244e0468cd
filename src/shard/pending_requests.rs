//! The front's requests, and the questions to other shards and to homes whose answers they wait
//! for.

use std::collections::HashMap;
use std::sync::Arc;

use super::link::Link;
use super::{Shard, ShardMessage};
use crate::apps::App;
use crate::channels::{
    Answer, ChannelKey, ChannelState, Publication, Question, ReplyTo, ToCluster, ToHome,
};
use crate::front::gateway::{GatewayCommand, PublishedStates, Reply, Unserved};
use crate::id::AppIndex;
use crate::invariant::broken;
use crate::memory::number;
use crate::protocol::names::ChannelName;
use crate::ring::Ring;

/// The front's requests that wait for answers of homes and other shards.
///
/// A request begins with [`publish`](Self::publish), [`state`](Self::state),
/// [`users`](Self::users), [`occupied`](Self::occupied), [`connections`](Self::connections),
/// [`more_places`](Self::more_places) or [`terminate`](Self::terminate), which send its questions
/// with a number for the request. Each answer brings the number back, to [`answer`](Self::answer)
/// or [`terminated`](Self::terminated). The last one sends the reply to the front and ends the
/// request.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    /// The number of the last request.
    last: u32,
    /// Waiting requests by number.
    pending: HashMap<u32, Pending>,
}

/// One request, with the number of answers that are still missing.
#[derive(Debug)]
struct Pending {
    missing: usize,
    request: Request,
}

/// A request with the answers that have come so far, and the sender of the reply.
#[derive(Debug)]
enum Request {
    /// The states that were asked for of a cluster have indices behind those of all events.
    Publish {
        states: PublishedStates,
        reply: Reply<PublishedStates>,
    },
    State {
        state: ChannelState,
        reply: Reply<ChannelState>,
    },
    Users {
        users: Vec<Box<str>>,
        reply: Reply<Vec<Box<str>>>,
    },
    Occupied {
        channels: Channels,
        reply: Reply<Channels>,
    },
    Connections {
        count: u32,
        reply: Reply<u32>,
    },
    Barrier {
        reply: Reply<()>,
    },
    Places {
        granted: bool,
        reply: Reply<bool>,
    },
}

type Channels = Vec<(ChannelName, ChannelState)>;

impl PendingRequests {
    /// The number of requests without a reply.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Sends events to their homes, or to the cluster. The reply comes at once, or with the states
    /// of the channels that were asked for. If an event finds its home's mailbox full, the reply
    /// waits for an answer of the home, so that an answered publish is always ordered before
    /// whatever is published after the answer.
    pub(super) fn publish(
        &mut self,
        events: Vec<Publication>,
        reply: Reply<PublishedStates>,
        link: &mut Link,
    ) {
        if link.port.spilling() {
            return send(reply, Err(Unserved::Overloaded));
        }
        if link.is_clustered() {
            return self.publish_to_cluster(events, reply, link);
        }
        let request = self.number();
        let states = vec![Some(ChannelState::default()); events.len()];
        let mut missing = 0;
        for (index, Publication { event, wants_state }) in (0..).zip(events) {
            let home = link.topology.home_of(&event.key);
            let reply_to = link.reply_to(request, index);
            if wants_state {
                link.send_home(home, ToHome::PublishAndReport(Box::new(event), reply_to));
                missing += 1;
            } else if !link.publish(home, event) {
                link.send_home(home, ToHome::Ask(reply_to, Question::Barrier));
                missing += 1;
            }
        }
        if missing == 0 {
            return send(reply, Ok(states));
        }
        self.wait(request, missing, Request::Publish { states, reply });
    }

    /// Sends events to the cluster. The reply comes when it has confirmed all of them.
    fn publish_to_cluster(
        &mut self,
        events: Vec<Publication>,
        reply: Reply<PublishedStates>,
        link: &mut Link,
    ) {
        let request = self.number();
        let states = vec![Some(ChannelState::default()); events.len()];
        let (mut missing, count) = (0, number(events.len()));
        for (index, Publication { event, wants_state }) in (0..).zip(events) {
            let (key, reply_to) = (event.key.clone(), link.reply_to(request, index));
            link.tell_cluster(ToCluster::PublishAndConfirm(Box::new(event), reply_to));
            missing += 1;
            if wants_state {
                let reply_to = link.reply_to(request, count.saturating_add(index));
                link.tell_cluster(ToCluster::Ask(reply_to, Question::State(key)));
                missing += 1;
            }
        }
        self.wait(request, missing, Request::Publish { states, reply });
    }

    /// Asks the home of a channel for its state.
    pub(super) fn state(&mut self, key: ChannelKey, reply: Reply<ChannelState>, link: &mut Link) {
        let request = Request::State { state: ChannelState::default(), reply };
        self.ask_home(&key, Question::State(key.clone()), request, link);
    }

    /// Asks the home of a presence channel for its users.
    pub(super) fn users(&mut self, key: ChannelKey, reply: Reply<Vec<Box<str>>>, link: &mut Link) {
        let request = Request::Users { users: Vec::new(), reply };
        self.ask_home(&key, Question::Users(key.clone()), request, link);
    }

    /// Asks all homes for the occupied channels of an app whose names begin with `prefix`.
    pub(super) fn occupied(
        &mut self,
        app: AppIndex,
        prefix: &Arc<str>,
        reply: Reply<Channels>,
        link: &mut Link,
    ) {
        let request = Request::Occupied { channels: Vec::new(), reply };
        if link.is_clustered() {
            return self.ask_cluster(Question::Occupied(app, Arc::clone(prefix)), request, link);
        }
        let number = self.number();
        for shard in link.topology.shards() {
            let question = Question::Occupied(app, Arc::clone(prefix));
            link.send_home(shard, ToHome::Ask(link.reply_to(number, 0), question));
        }
        self.wait(number, link.topology.shards().len(), request);
    }

    /// Counts the open connections of an app, on all nodes.
    pub(super) fn connections(&mut self, app: &App, reply: Reply<u32>, link: &mut Link) {
        if !link.is_clustered() {
            return send(reply, Ok(app.counters.connections()));
        }
        let request = Request::Connections { count: 0, reply };
        self.ask_cluster(Question::Connections(app.index), request, link);
    }

    /// Asks the cluster for a place for one more connection of an app.
    pub(super) fn more_places(&mut self, app: AppIndex, reply: Reply<bool>, link: &mut Link) {
        if !link.is_clustered() {
            return send(reply, Ok(false));
        }
        let number = self.number();
        link.tell_cluster(ToCluster::MorePlaces(link.reply_to(number, 0), app));
        self.wait(number, 1, Request::Places { granted: true, reply });
    }

    /// Has all shards close the connections of a user, on all nodes.
    pub(super) fn terminate(
        &mut self,
        app: AppIndex,
        user_id: &Arc<str>,
        reply: Reply<()>,
        link: &mut Link,
    ) {
        let number = self.number();
        if link.is_clustered() {
            let user_id = Arc::clone(user_id);
            link.tell_cluster(ToCluster::Terminate(link.reply_to(number, 0), app, user_id));
            return self.wait(number, 1, Request::Barrier { reply });
        }
        for shard in link.topology.shards() {
            let reply_to = link.reply_to(number, 0);
            link.send(shard, ShardMessage::Terminate(reply_to, app, Arc::clone(user_id)));
        }
        let missing = link.topology.shards().len();
        self.wait(number, missing, Request::Barrier { reply });
    }

    /// Handles a home's answer to a question, or the cluster's.
    pub(super) fn answer(&mut self, to: ReplyTo, answer: Answer) {
        match answer {
            Answer::Unavailable => return self.unserved(to, Unserved::NodesSilent),
            Answer::Away => return self.unserved(to, Unserved::RedisAway),
            _ => {}
        }
        if let Some(pending) = self.pending.get_mut(&to.request)
            && pending.request.take(to.index, answer)
        {
            self.count_down(to.request);
        }
    }

    /// Fails a request that the cluster cannot answer. An event that is published stays so: only
    /// the state of its channel is left out then.
    fn unserved(&mut self, to: ReplyTo, cause: Unserved) {
        let Some(pending) = self.pending.get_mut(&to.request) else { return };
        if pending.request.leave_out(to.index) {
            self.count_down(to.request);
        } else if let Some(pending) = self.pending.remove(&to.request) {
            pending.request.fail(cause);
        }
    }

    /// Handles a shard's report that it has closed the connections of a user.
    pub(super) fn terminated(&mut self, to: ReplyTo) {
        self.count_down(to.request);
    }

    fn ask_cluster(&mut self, question: Question, request: Request, link: &mut Link) {
        let number = self.number();
        link.tell_cluster(ToCluster::Ask(link.reply_to(number, 0), question));
        self.wait(number, 1, request);
    }

    fn ask_home(
        &mut self,
        key: &ChannelKey,
        question: Question,
        request: Request,
        link: &mut Link,
    ) {
        if link.is_clustered() {
            return self.ask_cluster(question, request, link);
        }
        let number = self.number();
        let ask = ToHome::Ask(link.reply_to(number, 0), question);
        link.send_home(link.topology.home_of(key), ask);
        self.wait(number, 1, request);
    }

    /// Allocates the number of the next request. A number recurs only after 2^32 requests.
    fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    fn wait(&mut self, number: u32, missing: usize, request: Request) {
        let earlier = self.pending.insert(number, Pending { missing, request });
        if earlier.is_some() {
            broken("a request waits for its answer while 2^32 others came");
        }
    }

    /// Counts a complete answer. The last one ends the request.
    fn count_down(&mut self, number: u32) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.missing -= 1;
        if pending.missing == 0
            && let Some(pending) = self.pending.remove(&number)
        {
            pending.request.finish();
        }
    }
}

impl Request {
    /// Stores an answer. Returns whether it is complete, because lists come in parts.
    fn take(&mut self, index: u32, answer: Answer) -> bool {
        match (self, answer) {
            (Self::Publish { states, .. }, Answer::State(state)) => match place_of(states, index) {
                Some(place) => *place = Some(state),
                None => broken("an answer names an event that its publish does not have"),
            },
            (Self::Publish { .. } | Self::Barrier { .. }, Answer::Barrier) => {}
            (Self::Places { .. }, Answer::Barrier) => {}
            (Self::Places { granted, .. }, Answer::Full) => *granted = false,
            (Self::Connections { count, .. }, Answer::Connections(told)) => *count = told,
            (Self::State { state, .. }, Answer::State(told)) => *state = told,
            (Self::Users { users, .. }, Answer::Users(told)) => *users = told,
            (Self::Occupied { channels, .. }, Answer::Occupied { channels: part, last }) => {
                channels.extend(part);
                return last;
            }
            _ => {
                broken("a home answers another question than it was asked");
                return false;
            }
        }
        true
    }

    /// Leaves out the state of a channel that is answered at this index. Returns `false` if the
    /// answer is needed.
    fn leave_out(&mut self, index: u32) -> bool {
        let Self::Publish { states, .. } = self else { return false };
        let is_state = index as usize >= states.len();
        let place = place_of(states, index).filter(|_| is_state);
        place.map(|place| *place = None).is_some()
    }

    /// Replies to the front that the cluster cannot answer now.
    fn fail(self, cause: Unserved) {
        match self {
            Self::Publish { reply, .. } => send(reply, Err(cause)),
            Self::State { reply, .. } => send(reply, Err(cause)),
            Self::Users { reply, .. } => send(reply, Err(cause)),
            Self::Occupied { reply, .. } => send(reply, Err(cause)),
            Self::Connections { reply, .. } => send(reply, Err(cause)),
            Self::Barrier { reply } => send(reply, Err(cause)),
            Self::Places { reply, .. } => send(reply, Err(cause)),
        }
    }

    /// Replies to the front, after the last answer.
    fn finish(self) {
        match self {
            Self::Publish { states, reply } => send(reply, Ok(states)),
            Self::State { state, reply } => send(reply, Ok(state)),
            Self::Users { users, reply } => send(reply, Ok(users)),
            Self::Occupied { channels, reply } => send(reply, Ok(channels)),
            Self::Connections { count, reply } => send(reply, Ok(count)),
            Self::Barrier { reply } => send(reply, Ok(())),
            Self::Places { granted, reply } => send(reply, Ok(granted)),
        }
    }
}

/// The state of the event that an index names, be it that of its confirmation or of the question.
fn place_of(states: &mut [Option<ChannelState>], index: u32) -> Option<&mut Option<ChannelState>> {
    let count = states.len().max(1);
    let index = index as usize;
    (index < 2 * count).then(|| states.get_mut(index % count))?
}

/// Replies to the front, which may have dropped the request meanwhile.
fn send<T>(reply: Reply<T>, answer: Result<T, Unserved>) {
    let _dropped = reply.send(answer);
}

impl<R: Ring> Shard<R> {
    /// Handles a command of the front.
    pub(crate) fn command(&mut self, command: GatewayCommand) {
        let (requests, link) = (&mut self.requests, &mut self.subscribers.link);
        match command {
            GatewayCommand::Adopt(upgraded) => self.adopt(upgraded),
            GatewayCommand::Publish { events, reply } => requests.publish(events, reply, link),
            GatewayCommand::Channel { channel, reply } => requests.state(channel, reply, link),
            GatewayCommand::Users { channel, reply } => requests.users(channel, reply, link),
            GatewayCommand::Channels { app, prefix, reply } => {
                requests.occupied(app.index, &prefix, reply, link);
            }
            GatewayCommand::Connections { app, reply } => requests.connections(&app, reply, link),
            GatewayCommand::MorePlaces { app, reply } => {
                requests.more_places(app.index, reply, link);
            }
            GatewayCommand::Terminate { app, user_id, reply } => {
                requests.terminate(app.index, &user_id.into(), reply, link);
            }
        }
    }
}
