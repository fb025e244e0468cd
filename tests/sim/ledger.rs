//! The judge of delivery: it knows the messages that were published and the clients that got them.
//!
//! Time is counted in the driver's steps. An *epoch* ends when everything has come to rest; all
//! that was published in it must have arrived by then, so each epoch is judged by itself:
//! - the messages of two subscribers of a channel agree in order and have no gaps in either;
//! - a client that was subscribed all along got everything, others a run of it without gaps;
//! - no client got a message twice, or one of another channel, or one that was refused or excepted;
//! - a client event is accepted if its sender had asked to subscribe before, answered or not, and
//!   refused if its sender had unsubscribed before. Only where a full channel may refuse the
//!   subscribe it may be either, but never both.

use std::collections::{BTreeSet, HashMap};

use ringwave::testing::front::gateway::{PublishedStates, Unserved};
use tokio::sync::oneshot;

/// The publisher of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The API of this shard.
    Shard(usize),
    /// A client event.
    Client(usize),
}

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unknown,
    /// Every subscriber gets it.
    Accepted,
    /// No subscriber gets it.
    Refused,
    /// The sender may have gone before the server read the message.
    Possible,
}

/// A published message.
#[derive(Debug)]
pub(crate) struct Sent {
    pub channel: usize,
    pub source: Source,
    /// The client that must not get it.
    pub except: Option<usize>,
    /// Whether a cache channel keeps it.
    pub kept: bool,
    pub data: String,
    pub fate: Fate,
    /// Some subscriber got it.
    pub seen: bool,
    epoch: u32,
    issued: u64,
    /// The step in which the publisher got its answer.
    answered: Option<u64>,
}

/// One subscription of one client, from success to unsubscribe.
#[derive(Debug)]
pub(crate) struct Episode {
    pub client: usize,
    pub channel: usize,
    /// The step in which the client began to ask.
    pub asked: u64,
    succeeded: u64,
    /// Whether it began in an earlier epoch, so that nothing of this one may be missing at its
    /// start.
    from_start: bool,
    /// The answer of the cache, if one has come: a message, or `None` for a miss.
    pub cached: Option<Option<usize>>,
    /// The messages that it got in this epoch.
    pub got: Vec<usize>,
    /// Whether the client is still subscribed, so that nothing may be missing at its end.
    pub open: bool,
}

/// An answer that is waited for, and the messages that it is about.
type Question = (oneshot::Receiver<Result<PublishedStates, Unserved>>, Vec<usize>);

/// Everything that was published, and all subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub step: u64,
    /// Whether several nodes are one server. Then a publish that fails may have reached everybody,
    /// and a subscriber may get messages that its node had not read when it asked.
    pub clustered: bool,
    /// Clients whose node may have lost messages: they have gaps before they are closed.
    pub excused: BTreeSet<usize>,
    /// Whether this epoch's messages may come to different nodes in different orders.
    pub disordered: bool,
    /// Whether a node was alone in this epoch, so that subscribers miss messages of each other.
    pub divided: bool,
    epoch: u32,
    sent: Vec<Sent>,
    episodes: Vec<Episode>,
    questions: Vec<Question>,
    /// Channels that have kept a message by the start of this epoch.
    keeping: Vec<usize>,
    /// Deliveries, counted for the summary.
    pub delivered: u64,
    pub refused: u64,
    /// Client events that were sent before the answer to their sender's subscribe.
    pub early: u64,
}

impl Ledger {
    /// A ledger of several nodes that are one server.
    pub(crate) fn of_cluster() -> Self {
        Self { clustered: true, ..Self::default() }
    }

    /// Notes that a message is on its way. Returns its text.
    pub(crate) fn publish(
        &mut self,
        channel: usize,
        source: Source,
        except: Option<usize>,
        kept: bool,
        filler: usize,
    ) -> usize {
        let id = self.sent.len();
        let letter = char::from(b'a' + u8::try_from(id % 26).unwrap());
        let data = format!("m{id:06}:{}", letter.to_string().repeat(filler));
        let (epoch, issued) = (self.epoch, self.step);
        let fate = Fate::Unknown;
        self.sent.push(Sent {
            channel,
            source,
            except,
            kept,
            data,
            fate,
            seen: false,
            epoch,
            issued,
            answered: None,
        });
        id
    }

    pub(crate) fn message(&self, id: usize) -> &Sent {
        &self.sent[id]
    }

    /// Decides the client events without a fate: they reach everybody if the server has certainly
    /// read them.
    pub(crate) fn settle_whispers(&mut self, was_heard: impl Fn(usize) -> bool) {
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Unknown) {
            if let Source::Client(client) = sent.source {
                sent.fate = if was_heard(client) { Fate::Accepted } else { Fate::Possible };
            }
        }
    }

    /// Notes that the accepted messages of these sources may be lost: Redis may have forgotten
    /// them, and their node can repeat them no more.
    pub(crate) fn doubt(&mut self, sources: impl Fn(Source) -> bool) {
        let epoch = self.epoch;
        let accepted = self.sent.iter_mut().filter(|sent| sent.fate == Fate::Accepted);
        for sent in accepted.filter(|sent| sent.epoch == epoch && sources(sent.source)) {
            sent.fate = Fate::Possible;
        }
    }

    pub(crate) fn set_fate(&mut self, id: usize, fate: Fate) {
        self.sent[id].fate = fate;
    }

    /// Notes that the publisher of these messages waits for this answer.
    pub(crate) fn ask(
        &mut self,
        answer: oneshot::Receiver<Result<PublishedStates, Unserved>>,
        ids: Vec<usize>,
    ) {
        self.questions.push((answer, ids));
    }

    /// Takes the answers that have come.
    pub(crate) fn poll_answers(&mut self) {
        let Self { questions, sent, step, refused, clustered, .. } = self;
        questions.retain_mut(|(answer, ids)| {
            let fate = match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return true,
                Ok(Err(_)) | Err(_) if *clustered => Fate::Possible,
                Err(closed) => panic!("a publish was not answered: {closed}"),
                Ok(Err(_overloaded)) => Fate::Refused,
                Ok(Ok(states)) => {
                    assert_eq!(states.len(), ids.len(), "a state for each message");
                    Fate::Accepted
                }
            };
            *refused += u64::from(fate != Fate::Accepted);
            for &id in &*ids {
                sent[id].fate = fate;
                // A message that was refused for now may still come, and late.
                sent[id].answered = (fate != Fate::Possible).then_some(*step);
            }
            false
        });
    }

    pub(crate) fn begin(&mut self, client: usize, channel: usize, asked: u64) -> usize {
        self.episodes.push(Episode {
            client,
            channel,
            asked,
            succeeded: self.step,
            from_start: false,
            cached: None,
            got: Vec::new(),
            open: true,
        });
        self.episodes.len() - 1
    }

    pub(crate) fn episode(&mut self, episode: usize) -> &mut Episode {
        &mut self.episodes[episode]
    }

    /// Notes that the subscription may miss messages from here on.
    pub(crate) fn end(&mut self, episode: usize) {
        self.episodes[episode].open = false;
    }

    /// Finds the message that a client got.
    pub(crate) fn recognise(&self, client: usize, channel: usize, data: &str) -> usize {
        let id = data.strip_prefix('m').and_then(|rest| rest.get(..6)?.parse().ok());
        let id: usize = id.unwrap_or_else(|| panic!("client {client} got {data:?}"));
        let sent = &self.sent[id];
        assert_eq!(sent.channel, channel, "client {client} got {id} of another channel");
        assert_eq!(sent.data, data, "client {client}: message {id} is not what was sent");
        id
    }

    /// Notes that a subscriber got a message.
    pub(crate) fn got(&mut self, episode: usize, id: usize) {
        let (client, channel) = (self.episodes[episode].client, self.episodes[episode].channel);
        let has =
            |of: &Episode| of.client == client && of.channel == channel && of.got.contains(&id);
        // However often it subscribes: its node takes no message twice.
        assert!(!self.episodes.iter().any(has), "client {client} got {id} twice");
        let Self { sent, episodes, epoch, disordered, divided, .. } = self;
        let (message, episode) = (&sent[id], &mut episodes[episode]);
        // A message that Redis has forgotten is sent again, after the answer to its publisher.
        let in_time = message.epoch == *epoch || *disordered || *divided;
        assert!(in_time, "client {client} got {id} when all had come to rest");
        assert_ne!(message.except, Some(client), "client {client} got {id}, excepted from it");
        // Redis may have ordered it anew, behind the subscription.
        let again = episode.cached == Some(Some(id)) && !*disordered && !*divided;
        assert!(!again, "client {client} got {id} again, cached before");
        let before = message.answered.is_some_and(|answered| answered < episode.asked);
        assert!(
            !before || self.clustered,
            "client {client} got {id}, published before it asked to subscribe"
        );
        let ordered = if *disordered || *divided { 0 } else { 8 };
        for &earlier in episode.got.iter().rev().take(ordered) {
            let earlier_sent = &sent[earlier];
            let same_source = earlier_sent.source == message.source;
            assert!(!same_source || earlier < id, "client {client} got {earlier} before {id}");
            let answered_first = message.answered.is_some_and(|at| at < earlier_sent.issued);
            assert!(!answered_first, "client {client} got {earlier} before {id}, answered first");
        }
        sent[id].seen = true;
        episode.got.push(id);
        self.delivered += 1;
    }

    /// Judges the epoch, in which everything has come to rest, and begins the next one.
    pub(crate) fn judge(&mut self) {
        self.poll_answers();
        assert!(self.questions.is_empty(), "{} publishes wait for an answer", self.questions.len());
        let mut by_channel: HashMap<usize, Vec<&Episode>> = HashMap::new();
        let concerned = |episode: &&Episode| episode.open || !episode.got.is_empty();
        for episode in self.episodes.iter().filter(concerned) {
            by_channel.entry(episode.channel).or_default().push(episode);
        }
        for (channel, episodes) in &by_channel {
            for one in episodes {
                if self.divided {
                    continue;
                }
                self.judge_completeness(one);
                if self.disordered {
                    continue;
                }
                for other in episodes {
                    self.compare(one, other);
                }
                self.judge_cached(one, *channel);
            }
        }
        let epoch = self.epoch;
        let certain = !self.divided;
        let kept = |sent: &&Sent| {
            certain && sent.kept && sent.epoch == epoch && sent.fate == Fate::Accepted
        };
        self.keeping.extend(self.sent.iter().filter(kept).map(|sent| sent.channel));
        self.episodes.iter_mut().for_each(|episode| {
            episode.got.clear();
            episode.from_start = true;
        });
        self.epoch += 1;
    }

    /// Checks that a client that is still subscribed got every accepted message that was published
    /// since it subscribed, and that no client got a refused one.
    fn judge_completeness(&self, episode: &Episode) {
        let client = episode.client;
        for &id in &episode.got {
            assert_ne!(self.sent[id].fate, Fate::Refused, "client {client} got {id}, refused");
        }
        if !episode.open {
            return;
        }
        let of_epoch = self.sent.iter().enumerate().rev();
        for (id, sent) in of_epoch.take_while(|(_, sent)| sent.epoch == self.epoch) {
            let due = sent.channel == episode.channel
                && sent.fate == Fate::Accepted
                && episode.succeeded < sent.issued
                && sent.except != Some(client);
            assert!(!due || episode.got.contains(&id), "client {client} never got {id}: {sent:?}");
        }
    }

    /// Checks that both got their common messages in the same order, and that `one` got all that
    /// `other` got in between.
    fn compare(&self, one: &Episode, other: &Episode) {
        let places: HashMap<usize, usize> =
            other.got.iter().enumerate().map(|(place, &id)| (id, place)).collect();
        let common: Vec<usize> = one.got.iter().filter_map(|id| places.get(id).copied()).collect();
        let (a, b) = (one.client, other.client);
        assert!(
            common.is_sorted(),
            "clients {a} and {b} disagree on the order: {:?} {:?}",
            one.got,
            other.got
        );
        let first = if one.from_start { Some(0) } else { common.first().copied() };
        let end = if one.open { Some(other.got.len()) } else { common.last().map(|last| last + 1) };
        let (Some(first), Some(end)) = (first, end) else { return };
        for &id in other.got.get(first..end).unwrap_or_default() {
            let excepted =
                self.sent[id].except == Some(a) || (!one.open && self.excused.contains(&a));
            let has = excepted || one.got.contains(&id);
            assert!(has, "client {a} has a gap: not {id}, which {b} got: {one:?} {other:?}");
        }
        // A node that has lost messages may have an old one in its cache until it has registered.
        if let Some(cached) = one.cached.filter(|_| !self.excused.contains(&a)) {
            self.compare_cached(one, other, cached, common.first().copied());
        }
    }

    /// Checks that no message was kept between the cached one and the first that follows.
    fn compare_cached(
        &self,
        one: &Episode,
        other: &Episode,
        cached: Option<usize>,
        first_common: Option<usize>,
    ) {
        if one.from_start {
            return;
        }
        let Some(end) = first_common else { return };
        let of_this_epoch = cached.filter(|&id| self.sent[id].epoch == self.epoch);
        let start = match of_this_epoch {
            Some(cached) => other.got.iter().position(|&id| id == cached).map(|at| at + 1),
            None if other.from_start => Some(0),
            None => None,
        };
        let Some(start) = start else { return };
        assert!(start <= end, "client {} got its cached message late", one.client);
        let client = one.client;
        let newer = |id: &&usize| self.sent[**id].kept && self.sent[**id].except != Some(client);
        let missed = other.got[start..end].iter().find(newer);
        assert_eq!(missed, None, "client {client} was given {cached:?}, which was not the last");
    }

    /// Notes that the last events of cache channels are lost.
    pub(crate) fn forget_kept(&mut self) {
        self.keeping.clear();
    }

    fn judge_cached(&self, episode: &Episode, channel: usize) {
        let miss = episode.cached == Some(None) && !episode.from_start;
        let wrong = miss && self.keeping.contains(&channel);
        assert!(!wrong, "client {} was told of a cache miss: {episode:?}", episode.client);
    }
}
