//! The front's commands, and questions to other shards whose answers are put together here.

use std::collections::HashMap;
use std::sync::Arc;

use super::message::{Answer, Ask, Question, Told};
use super::{Core, Message, Shard};
use crate::channels::{self, ChannelState, Publication, Publish};
use crate::front::gateway::{Command, Overloaded, Published, Reply};
use crate::id::{AppIndex, ShardId};
use crate::plane::Plane;
use crate::protocol::app::App;
use crate::protocol::close::ProtocolError;
use crate::protocol::names::ChannelName;
use crate::ring::Ring;

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    next: u32,
    open: HashMap<u32, Gather>,
}

/// One question of the front.
#[derive(Debug)]
enum Gather {
    Publish { left: usize, states: Vec<ChannelState>, reply: Reply<Published> },
    Channel(Reply<ChannelState>),
    Users(Reply<Vec<Box<str>>>),
    Channels { left: usize, list: Vec<(ChannelName, ChannelState)>, reply: Reply<Channels> },
    Terminate { left: usize, reply: Reply<()> },
}

type Channels = Vec<(ChannelName, ChannelState)>;

impl Gathers {
    /// Questions without an answer.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn start(&mut self, gather: Gather) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, gather);
        self.next
    }

    /// The publication's home has told the channel's state.
    pub(super) fn published(&mut self, question: u32, index: u32, state: ChannelState) {
        let Some(Gather::Publish { left, states, .. }) = self.open.get_mut(&question) else {
            return;
        };
        if let Some(slot) = states.get_mut(index as usize) {
            *slot = state;
        }
        *left -= 1;
        if *left == 0 {
            self.finish(question);
        }
    }

    /// A shard has answered.
    pub(super) fn answer(&mut self, answer: Answer) {
        let question = answer.question;
        let Some(gather) = self.open.get_mut(&question) else { return };
        match (gather, answer.what) {
            (Gather::Channels { left, list, .. }, Told::Occupied { channels, last }) => {
                list.extend(channels);
                *left -= usize::from(last);
                if *left == 0 {
                    self.finish(question);
                }
            }
            (Gather::Terminate { left, .. }, Told::Terminated) => {
                *left -= 1;
                if *left == 0 {
                    self.finish(question);
                }
            }
            (Gather::Channel(_), Told::Channel(state)) => {
                if let Some(Gather::Channel(reply)) = self.open.remove(&question) {
                    // The request may have been dropped meanwhile.
                    let _gone = reply.send(state);
                }
            }
            (Gather::Users(_), Told::Users(users)) => {
                if let Some(Gather::Users(reply)) = self.open.remove(&question) {
                    let _gone = reply.send(users);
                }
            }
            (_, _) => tracing::error!("a shard answered another question than it was asked"),
        }
    }

    /// The last part of an answer is in. The request may have been dropped meanwhile.
    fn finish(&mut self, question: u32) {
        match self.open.remove(&question) {
            Some(Gather::Publish { states, reply, .. }) => drop(reply.send(Ok(states))),
            Some(Gather::Channels { list, reply, .. }) => drop(reply.send(list)),
            Some(Gather::Terminate { reply, .. }) => drop(reply.send(())),
            _ => {}
        }
    }
}

impl<R: Ring> Shard<R> {
    /// A command of the front.
    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::Adopt(upgraded) => self.adopt(upgraded),
            Command::Publish { app, events, reply } => self.core.publish(&app, events, reply),
            Command::Channel { app, channel, reply } => {
                let key = self.core.hash.key(app.index, channel);
                let home = key.home(self.core.port.shards());
                let question = self.core.gathers.start(Gather::Channel(reply));
                self.core.ask(home, question, Question::Channel(key));
            }
            Command::Users { app, channel, reply } => {
                let key = self.core.hash.key(app.index, channel);
                let home = key.home(self.core.port.shards());
                let question = self.core.gathers.start(Gather::Users(reply));
                self.core.ask(home, question, Question::Users(key));
            }
            Command::Channels { app, prefix, reply } => {
                let left = self.core.port.shards();
                let gather = Gather::Channels { left, list: Vec::new(), reply };
                let question = || Question::Occupied(app.index, Arc::clone(&prefix));
                self.core.ask_all(gather, question);
            }
            Command::Terminate { app, user_id, reply } => {
                let left = self.core.port.shards();
                let gather = Gather::Terminate { left, reply };
                let question = || Question::Terminate(app.index, user_id.clone());
                self.core.ask_all(gather, question);
            }
        }
    }
}

impl Core {
    /// Publishes come back with the channels' states where these were asked for. Where a mailbox is
    /// full, the answer waits until the home has the event, so that an answered publish is always
    /// ordered before whatever is published after the answer.
    fn publish(&mut self, app: &App, events: Vec<Publication>, reply: Reply<Published>) {
        if self.port.spilling() {
            let _gone = reply.send(Err(Overloaded));
            return;
        }
        let states = vec![ChannelState::default(); events.len()];
        let question = self.gathers.next.wrapping_add(1);
        let mut left = 0;
        for (index, event) in (0..).zip(events) {
            let key = self.hash.key(app.index, event.channel);
            let home = key.home(self.port.shards());
            let answer_to = (self.id, question, index);
            let publish = Publish {
                key,
                frame: event.frame,
                cached: event.cached.map(|data| (data, app.cache_ttl)),
                except: event.except,
                whisper: None,
                joining: None,
                by_client: false,
                answer_to: event.wants_state.then_some(answer_to),
            };
            let answers = self.send_publish(home, publish, answer_to);
            left += usize::from(answers);
        }
        if left > 0 {
            self.gathers.start(Gather::Publish { left, states, reply });
        } else {
            let _gone = reply.send(Ok(states));
        }
    }

    /// Whether the home will answer: it was to, or its mailbox has no room.
    fn send_publish(
        &mut self,
        home: ShardId,
        publish: Publish,
        answer_to: (ShardId, u32, u32),
    ) -> bool {
        let answers = publish.answer_to.is_some();
        let message = Message::Channel(channels::Message::Publish(Box::new(publish)));
        let Err(mut message) = self.port.try_send(home, message) else { return answers };
        if let Message::Channel(channels::Message::Publish(publish)) = &mut message {
            publish.answer_to = Some(answer_to);
        }
        self.port.send(home, message);
        true
    }

    fn ask(&mut self, to: ShardId, question: u32, what: Question) {
        let ask = Ask { shard: self.id, question, what };
        self.port.send(to, Message::Ask(Box::new(ask)));
    }

    fn ask_all(&mut self, gather: Gather, what: impl Fn() -> Question) {
        let question = self.gathers.start(gather);
        for shard in (0..self.port.shards()).filter_map(|index| u16::try_from(index).ok()) {
            self.ask(ShardId(shard), question, what());
        }
    }

    /// Another shard wants to know.
    pub(super) fn asked<R: Ring>(&mut self, plane: &mut Plane<R>, ask: Ask) {
        let what = match ask.what {
            Question::Channel(key) => Told::Channel(self.homes.state(&key, self.now)),
            Question::Users(key) => Told::Users(self.homes.users(&key)),
            Question::Occupied(app, prefix) => {
                return self.list(ask.shard, ask.question, app, prefix);
            }
            Question::Terminate(app, user_id) => {
                self.terminate(plane, app, &user_id);
                Told::Terminated
            }
        };
        let answer = Answer { question: ask.question, what };
        self.port.send(ask.shard, Message::Answer(Box::new(answer)));
    }

    /// Closes the connections of a user on this shard: those that are signed in as the user, and
    /// those that are present in a channel as the user.
    fn terminate<R: Ring>(&mut self, plane: &mut Plane<R>, app: AppIndex, user_id: &str) {
        let of_user = |key: &crate::id::ConnKey| {
            let occupant = self.sessions.get(key.slot as usize).and_then(Option::as_ref);
            occupant.is_some_and(|of| of.session.app() == app)
                && (self.local.is_user(key.slot, user_id)
                    || self.users.user(key.slot).is_some_and(|user| *user.user_id == *user_id))
        };
        let keys: Vec<_> = plane.keys().filter(of_user).collect();
        tracing::debug!(app = self.app_name(app), user_id, connections = keys.len(), "terminate");
        for key in keys {
            self.end(plane, key, ProtocolError::Terminated);
        }
    }
}
