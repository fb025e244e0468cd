//! The client's handling of each frame: whether the server may send it now, and its effects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Channel, Client, Phase, Request, Surroundings};
use crate::ledger::Ledger;
use crate::stream::Heard;
use crate::world::SWITCHED;

impl Client {
    pub(super) fn hear(&mut self, frame: Heard, with: &mut Surroundings<'_>) {
        let text = match frame {
            Heard::Text(text) => text,
            Heard::Ping(payload) => return self.put(10, true, &payload, with.dice),
            Heard::Pong(payload) => {
                let due = self.pings.pop_front();
                return assert_eq!(due, Some(payload), "client {}: another pong", self.id);
            }
            Heard::Close(code) => return self.hear_close(code, with),
        };
        let message: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("client {}: {error} in {text:?}", self.id));
        let event = message["event"].as_str().unwrap_or_default();
        if let Some((channel, _)) = self.cache_due {
            let same = message["channel"] == with.channels[channel].name.as_str();
            // The part of a slow reader's backlog that is dropped may begin behind any frame.
            let cut = event == "pusher:error" && text.contains(r#"{\"code\":4101,"#);
            assert!(same || cut, "client {}: {text} in place of a cached event", self.id);
            if cut {
                self.cache_due = None;
            }
        }
        match event {
            "pusher:connection_established" => {
                let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
                let earlier = self.socket_id.replace(data["socket_id"].as_str().unwrap().into());
                assert_eq!(earlier, None, "client {}: established twice", self.id);
            }
            _ if self.socket_id.is_none() => panic!("client {}: {text} came first", self.id),
            "pusher:ping" => self.say(r#"{"event":"pusher:pong"}"#, with.dice),
            "pusher:pong" => self.handled(with.ledger),
            "pusher:error" => self.hear_error(&message),
            "pusher:signin_success" => {
                let due = self.sign_ins.pop_front();
                self.watching = Some(due.expect("signed in without asking"));
                self.online.clear();
            }
            "pusher_internal:watchlist_events" => self.hear_of_users(&message),
            _ => self.hear_of_channel(event, &message, with),
        }
    }

    /// Notes that the server has handled one more request.
    fn handled(&mut self, ledger: &mut Ledger) {
        let request = self.requests.pop_front();
        let request = request.unwrap_or_else(|| panic!("client {}: a stray pong", self.id));
        match request {
            Request::Subscribe(channel, asked) => {
                if let Some(seat) = self.seats.get_mut(&channel).filter(|seat| !seat.wanted) {
                    (seat.wanted, seat.asked) = (true, asked);
                }
            }
            Request::Unsubscribe(channel) => {
                let Some(seat) = self.seats.get_mut(&channel) else { return };
                (seat.wanted, seat.full) = (false, false);
                if let Some(episode) = seat.episode.take() {
                    ledger.end(episode);
                }
            }
            Request::Other => {}
        }
    }

    fn hear_error(&mut self, message: &Value) {
        let error: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
        self.errors += usize::from(error["code"] == 4009);
    }

    /// Takes news of watched users, which has to be new to the client.
    fn hear_of_users(&mut self, message: &Value) {
        let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
        for event in data["events"].as_array().unwrap() {
            for user in event["user_ids"].as_array().unwrap() {
                let user = user.as_str().unwrap();
                let watched = self.watching.as_ref().is_some_and(|of| of.contains(user));
                assert!(watched, "client {} does not watch {user}", self.id);
                let new = match event["name"].as_str().unwrap() {
                    "online" => self.online.insert(user.to_owned()),
                    "offline" => self.online.remove(user),
                    other => panic!("client {}: a user is {other}", self.id),
                };
                assert!(new, "client {}: {message} is not new", self.id);
            }
        }
    }

    fn hear_close(&mut self, code: Option<u16>, with: &mut Surroundings<'_>) {
        let id = self.id;
        let code = code.unwrap_or_else(|| panic!("client {id}: a close frame without a code"));
        let of_us = |(app, user): &(usize, String)| *app == self.app && *user == self.user;
        match code {
            1000 => {
                assert_eq!(self.phase, Phase::Leaving, "client {id} is closed with 1000");
                self.heard_out = true;
            }
            1002 => assert!(self.violated, "client {id} broke no rule"),
            4003 => assert!(with.switched_off && self.app == SWITCHED, "client {id} is evicted"),
            4009 => assert!(with.terminated.iter().any(of_us), "client {id} is terminated"),
            4101 => {}
            4102 | 4200 => assert!(with.draining, "client {id} is closed with {code}"),
            4201 => {
                let silence = self.silence.max(with.now.since(self.wrote));
                let mute = silence >= self.pong_timeout && !with.quiet;
                assert!(mute, "client {id} was silent for no more than {silence:?}");
            }
            code => panic!("client {id} is closed with {code}"),
        }
        if self.phase == Phase::Open && !self.rude {
            self.put(8, true, &code.to_be_bytes(), with.dice);
            self.answered_close = true;
        }
        self.end(Phase::Closed(code), with.ledger);
    }

    fn hear_of_channel(&mut self, event: &str, message: &Value, with: &mut Surroundings<'_>) {
        let (id, name) = (self.id, message["channel"].as_str().unwrap_or_default());
        let of = |channel: &Channel| channel.name == name && channel.app == self.app;
        let channel = with.channels.iter().position(of);
        let channel = channel.unwrap_or_else(|| panic!("client {id} got {message}"));
        let about_to = match self.requests.front() {
            Some(&Request::Subscribe(of, asked)) if of == channel => Some(asked),
            _ => None,
        };
        let seat = self.seats.entry(channel).or_default();
        match event {
            "pusher_internal:subscription_succeeded" => {
                let asked = if seat.wanted { Some(seat.asked) } else { about_to };
                let asked = asked.unwrap_or_else(|| panic!("client {id} does not want {name}"));
                seat.successes += 1;
                assert!(seat.successes <= seat.subscribes, "client {id}: success without asking");
                let again = seat.episode.is_some();
                if with.channels[channel].presence {
                    let members = members_of(message, id);
                    assert!(members.contains(&self.user), "client {id} is not in {name}");
                    assert!(!again || members == seat.members, "client {id}: {members:?} again");
                    seat.members = members;
                }
                if !again {
                    let episode = with.ledger.begin(id, channel, asked);
                    seat.episode = Some(episode);
                    seat.count = None;
                    if !seat.wanted_last || self.phase != Phase::Open {
                        with.ledger.end(episode);
                    }
                }
                seat.full = false;
                self.cache_due = with.channels[channel].cache.then_some((channel, again));
            }
            "pusher:subscription_error" => {
                if message["data"]["type"] == "LimitReached" {
                    assert!(with.channels[channel].presence, "client {id}: {message}");
                    seat.full = true;
                }
            }
            _ if seat.episode.is_none() => panic!("client {id}: not subscribed, got {message}"),
            "pusher:cache_miss" => {
                let (_, again) = self.cache_due.take().expect("a miss that nobody asked for");
                self.hear_cached(channel, None, again, with);
            }
            "pusher_internal:member_added" => {
                let user = user_of(message);
                let seats = &mut seat.members;
                assert!(seats.insert(user.clone()), "client {id}: {user} came to {name} twice");
            }
            "pusher_internal:member_removed" => {
                let user = user_of(message);
                assert!(seat.members.remove(&user), "client {id}: {user} was not in {name}");
            }
            "pusher_internal:subscription_count" => {
                assert!(with.channels[channel].counted, "client {id}: {message}");
                assert_eq!(self.cache_due, None, "client {id}: {message} before the cached event");
                seat.count = Some(count_of(message));
            }
            _ => self.hear_message(channel, message, with),
        }
    }

    fn hear_message(&mut self, channel: usize, message: &Value, with: &mut Surroundings<'_>) {
        let data = message["data"].as_str().unwrap_or_default();
        let id = with.ledger.recognise(self.id, channel, data);
        if let Some((_, again)) = self.cache_due.take() {
            return self.hear_cached(channel, Some(id), again, with);
        }
        let episode = self.seats.get(&channel).and_then(|seat| seat.episode);
        with.ledger.got(episode.expect("checked before"), id);
    }

    fn hear_cached(
        &mut self,
        channel: usize,
        message: Option<usize>,
        again: bool,
        with: &mut Surroundings<'_>,
    ) {
        let episode = self.seats.get(&channel).and_then(|seat| seat.episode).expect("subscribed");
        if let Some(id) = message {
            assert!(with.ledger.message(id).kept, "client {}: {id} was not to be kept", self.id);
        }
        if !again {
            with.ledger.episode(episode).cached = Some(message);
            return;
        }
        // After a repeated subscribe the event is the last one that came, or one that was not for
        // this client.
        let got = with.ledger.episode(episode).got.clone();
        let last = got.iter().rev().copied().find(|&id| with.ledger.message(id).kept);
        let not_ours = message.is_some_and(|id| with.ledger.message(id).except == Some(self.id));
        let fits = last.is_none()
            || last == message
            || not_ours
            || with.ledger.disordered
            || with.draining;
        assert!(fits, "client {} is given {message:?} again, but {last:?} was last", self.id);
    }
}

/// The hash of a presence channel.
fn members_of(message: &Value, client: usize) -> BTreeSet<String> {
    let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
    let presence = &data["presence"];
    let hash = presence["hash"].as_object().unwrap();
    let ids = presence["ids"].as_array().unwrap();
    let counts = [presence["count"].as_u64().unwrap(), ids.len() as u64];
    assert_eq!(counts, [hash.len() as u64; 2], "client {client}: {presence}");
    assert!(ids.iter().all(|id| hash.contains_key(id.as_str().unwrap())), "{presence}");
    hash.keys().cloned().collect()
}

/// The number of subscribers that a message tells.
fn count_of(message: &Value) -> u64 {
    let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
    data["subscription_count"].as_u64().unwrap()
}

/// The user that a membership event is about.
fn user_of(message: &Value) -> String {
    let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
    data["user_id"].as_str().unwrap().to_owned()
}
