//! The partition against a Redis of a few lines, which loses answers, forgets and is emptied.

use proptest::prelude::*;

use super::*;
use crate::channels::ChannelPath;
use crate::cluster::wire::{Entry, JoinFlags};
use crate::frame::Frame;
use crate::id::ShardId;

const NOW: Millis = Millis(10_000);

const BOUNDS: Bounds = Bounds {
    lease: Duration::from_secs(5),
    retention: Duration::from_secs(60),
    keep_bytes: 1 << 20,
    inbox_bytes: 8000,
};

fn partition() -> Partition {
    Partition::new(NodeId(1), BOUNDS, "apps".into(), NOW)
}

fn admitted(epoch: &str, done: u64) -> Entered {
    let (unknown, cut, buried, missed) = (false, false, false, false);
    Entered { epoch: epoch.into(), done, unknown, cut, buried, missed, now_ms: 0 }
}

/// Enters for the first time, up to the end of the entrance.
fn serving() -> Partition {
    let mut partition = partition();
    partition.entered(Entered { unknown: true, ..admitted("e", 0) }, false, NOW);
    assert_eq!(verbs(&run(&mut partition)), ["tend", "ready"]);
    partition
}

/// Executes everything that there is. Returns the calls.
fn run(partition: &mut Partition) -> Vec<Call> {
    run_at(partition, NOW)
}

fn run_at(partition: &mut Partition, now: Millis) -> Vec<Call> {
    let mut calls = Vec::new();
    while let Some(call) = partition.next_call(now) {
        partition.executed(now);
        calls.push(call);
    }
    calls
}

fn channel(name: &str) -> ChannelPath {
    ChannelPath::new("app", name)
}

/// A command that can be told apart.
fn command(name: &str) -> Command {
    let frame = Frame::text(1, |out| out.extend(b"x"));
    Command::Publish { channel: channel(name), frame, except: None, retained: None }
}

fn leave(name: &str) -> Command {
    Command::Leave(channel(name), JoinFlags::default())
}

fn reply(request: u32) -> ReplyTo {
    ReplyTo { shard: ShardId(0), request, index: 0 }
}

/// The first argument of each call; `-` if it has none.
fn verbs(calls: &[Call]) -> Vec<String> {
    let verb = |call: &Call| call.args.first().map_or_else(|| "-".into(), text);
    calls.iter().map(verb).collect()
}

/// The channels of all commands of [`command`] in the call, with its number in front.
fn channels(call: &Call) -> String {
    let names = call.args.iter().map(text);
    let names = names.filter_map(|arg| arg.strip_prefix("app:").map(str::to_owned));
    format!("{} {}", call.number, names.collect::<Vec<_>>().join(" "))
}

fn text(arg: &Bytes) -> String {
    String::from_utf8_lossy(arg).into_owned()
}

#[test]
fn what_comes_while_a_call_is_under_way_forms_the_next_batch() {
    let mut partition = serving();
    partition.push(command("a"), None, NOW);
    let first = partition.next_call(NOW).unwrap();
    partition.push(command("b"), Some(reply(1)), NOW);
    partition.push(command("c"), None, NOW);
    assert_eq!(partition.next_call(NOW), None, "one call at a time");
    assert_eq!(partition.executed(NOW), Outcome::default());
    let second = partition.next_call(NOW).unwrap();
    assert_eq!([channels(&first), channels(&second)], ["1 a", "2 b c"]);
    assert_eq!(partition.executed(NOW).confirmed, [reply(1)]);
    assert!(partition.is_settled());
}

#[test]
fn a_call_whose_answer_is_lost_is_sent_again_or_was_executed() {
    for done in [0, 1] {
        let mut partition = serving();
        partition.push(command("a"), Some(reply(1)), NOW);
        let call = partition.next_call(NOW).unwrap();
        partition.lost(NOW);
        partition.push(command("b"), None, NOW);
        assert_eq!(partition.next_call(NOW), None);
        let admission = partition.entered(admitted("e", done), false, NOW);
        let confirmed = if done == 1 { vec![reply(1)] } else { Vec::new() };
        let expected = Admission::In { register: false, emptied: false, cut_off: false, confirmed };
        assert_eq!(admission, expected);
        let calls = run(&mut partition);
        match done {
            0 => {
                assert_eq!(verbs(&calls), ["tend", "publish", "ready", "publish"]);
                assert_eq!(calls[1], call);
            }
            _ => assert_eq!(verbs(&calls), ["tend", "ready", "publish"]),
        }
        assert_eq!(channels(calls.last().unwrap()), "2 b");
    }
}

#[test]
fn batches_that_redis_has_forgotten_are_repeated_without_questions() {
    let mut partition = serving();
    for name in ["a", "b", "c"] {
        partition.push(command(name), None, NOW);
        partition.push(Command::Ask(1, Bytes::from_static(b"app:question")), None, NOW);
        run(&mut partition);
    }
    partition.lost(NOW);
    assert_eq!(partition.base(), 0);
    partition.entered(admitted("e", 1), false, NOW);
    let later = NOW + Duration::from_secs(2);
    let calls = run(&mut partition);
    assert_eq!(verbs(&calls), ["tend", "publish", "publish", "ready"]);
    assert_eq!([channels(&calls[1]), channels(&calls[2])], ["2 b", "3 c"]);
    partition.lost(NOW);
    partition.entered(admitted("e", 3), false, later);
    while let Some(call) = partition.next_call(later) {
        let ready = verbs(&[call]) == ["ready"];
        let returned = partition.executed(later).returned;
        let expected = Returned { away: Duration::from_secs(2), repeated: 0 };
        assert_eq!(returned, ready.then_some(expected));
    }
}

#[test]
fn permits_that_were_asked_for_or_returned_before_an_entrance_are_not_afterwards() {
    let mut partition = serving();
    let permits = || Command::Return { app: "app".into(), count: 367 };
    partition.push(command("a"), None, NOW);
    partition.push(permits(), None, NOW);
    partition.next_call(NOW).unwrap();
    partition.lost(NOW);
    partition.push(permits(), None, NOW);
    partition.push(command("b"), None, NOW);
    partition.entered(admitted("e", 0), false, NOW);
    partition.register(Command::Permits { app: "app".into(), wanted: 133, total: 500 });
    let calls = run(&mut partition);
    assert_eq!(verbs(&calls), ["tend", "permits", "publish", "ready", "publish"]);
    assert_eq!([channels(&calls[2]), channels(&calls[4])], ["1 a", "2 b"]);
    assert_eq!(calls.iter().map(|call| call.args.len()).collect::<Vec<_>>()[2..], [3, 1, 3]);
    assert_eq!(partition.waiting_bytes(), 0);
}

#[test]
fn executed_batches_are_kept_for_two_leases_of_a_redis_that_answers() {
    let mut partition = serving();
    for (name, second) in [("a", 0), ("b", 8), ("c", 11)] {
        partition.push(command(name), None, NOW);
        let now = NOW + Duration::from_secs(second);
        while partition.next_call(now).is_some() {
            partition.executed(now);
        }
    }
    assert_eq!(partition.base(), 1, "the first is older than two leases");
    partition.lost(NOW + Duration::from_secs(12));
    assert_eq!(partition.base(), 1, "however long Redis is away");
    partition.entered(admitted("e", 3), false, NOW + Duration::from_secs(30));
    while partition.next_call(NOW + Duration::from_secs(30)).is_some() {
        partition.executed(NOW + Duration::from_secs(30));
    }
    assert_eq!(partition.base(), 3, "a Redis that is back and remembers them");
}

#[test]
fn batches_that_cannot_be_kept_for_as_long_as_they_should_are_counted() {
    let bounds = Bounds { keep_bytes: 800, ..BOUNDS };
    let mut partition = Partition::new(NodeId(1), bounds, "apps".into(), NOW);
    partition.entered(admitted("e", 0), false, NOW);
    let mut run_at = |second| {
        let now = NOW + Duration::from_secs(second);
        partition.push(command("a"), None, now);
        while partition.next_call(now).is_some() {
            partition.executed(now);
        }
        partition.crowded_out()
    };
    assert_eq!([0, 20, 40].map(&mut run_at), [0, 0, 0], "these had their time");
    assert!((40..44).map(run_at).max() > Some(0));
}

#[test]
fn an_emptied_redis_gets_registrations_first_then_everything_that_is_kept() {
    let mut partition = serving();
    partition.push(command("a"), None, NOW);
    run(&mut partition);
    partition.lost(NOW);
    let emptied = Entered { unknown: true, ..admitted("other", 0) };
    let admission = partition.entered(emptied, false, NOW);
    let expected =
        Admission::In { register: true, emptied: true, cut_off: false, confirmed: Vec::new() };
    assert_eq!(admission, expected);
    assert!(partition.ask_shards(2));
    partition.push(command("new"), None, NOW);
    partition.register(command("x"));
    assert!(!partition.registered());
    assert_eq!(verbs(&run(&mut partition)), ["tend", "publish"]);
    partition.register(command("y"));
    assert_eq!(run(&mut partition).iter().map(channels).collect::<Vec<_>>(), ["5 y"]);
    assert!(!partition.registered());
    assert_eq!(run(&mut partition), [], "others may not have entered");
    let calls = run_at(&mut partition, NOW + OTHERS_ENTER);
    let calls: Vec<_> = calls.iter().map(channels).collect();
    assert_eq!(calls, ["6 ", "1 a", "7 ", "2 new"]);
}

#[test]
fn of_commands_that_redis_has_forgotten_events_are_repeated_and_last_ends_registered() {
    let mut partition = serving();
    let join = |name| Command::Join(channel(name), 1, JoinFlags::default());
    for commands in [[leave("a"), command("event")], [join("a"), leave("b")]] {
        commands.into_iter().for_each(|command| partition.push(command, None, NOW));
        run(&mut partition);
    }
    partition.push(join("b"), None, NOW);
    for _ in 0..2 {
        partition.lost(NOW);
        let admission = partition.entered(admitted("e", 0), false, NOW);
        assert!(matches!(admission, Admission::In { register: true, .. }), "{admission:?}");
    }
    let calls = run(&mut partition);
    assert_eq!(verbs(&calls), ["tend", "leave", "publish", "-", "ready", "join"]);
    assert_eq!([&calls[1], &calls[2], &calls[5]].map(channels), ["4 b", "1 event", "3 b"]);
    partition.lost(NOW);
    partition.entered(admitted("e", 3), false, NOW);
    assert_eq!(verbs(&run(&mut partition)), ["tend", "ready"]);
}

#[test]
fn a_batch_whose_answer_the_inbox_has_brought_was_executed_though_redis_has_forgotten_it() {
    let mut partition = serving();
    partition.push(leave("a"), None, NOW);
    partition.push(command("b"), Some(reply(1)), NOW);
    let call = partition.next_call(NOW).unwrap();
    let records = Record::Left(channel("a"), false).encode();
    let entry = Entry { origin: NodeId(1), kind: call.kind, number: call.number, records };
    partition.read(vec![("1-0".into(), entry.encode())], NOW);
    partition.lost(NOW);
    let admission = partition.entered(admitted("e", 0), false, NOW);
    assert!(matches!(admission, Admission::In { confirmed, .. } if confirmed == [reply(1)]));
    assert_eq!(verbs(&run(&mut partition)), ["tend", "leave", "publish", "ready"]);
}

#[test]
fn registrations_whose_answer_is_lost_are_sent_again_with_another_number() {
    let mut partition = serving();
    partition.lost(NOW);
    partition.entered(Entered { buried: true, ..admitted("e", 0) }, false, NOW);
    assert!(partition.ask_shards(1));
    run(&mut partition);
    partition.register(command("x"));
    let first = partition.next_call(NOW).unwrap();
    partition.lost(NOW);
    partition.entered(admitted("e", 0), false, NOW);
    assert_eq!(verbs(&[partition.next_call(NOW).unwrap()]), ["tend"]);
    partition.executed(NOW);
    let second = partition.next_call(NOW).unwrap();
    assert_eq!(first.args, second.args);
    assert!(second.number > first.number);
}

#[test]
fn shards_are_asked_once_more_only_when_they_have_answered() {
    let mut partition = serving();
    assert!(partition.ask_shards(2) && !partition.ask_shards(2));
    assert!(!partition.registered() && partition.registered());
    assert!(partition.ask_shards(1) && !partition.registered());
}

#[test]
fn each_answer_of_the_entrance_has_its_consequence() {
    let admission_after = |seconds, entered: Entered| {
        let mut partition = serving();
        partition.lost(NOW);
        partition.entered(entered, false, NOW + Duration::from_secs(seconds))
    };
    let admission = |entered| admission_after(4, entered);
    let outcome = |register, emptied, cut_off| Admission::In {
        register,
        emptied,
        cut_off,
        confirmed: Vec::new(),
    };
    let plain = || admitted("e", 0);
    assert_eq!(admission(plain()), outcome(false, false, false));
    assert_eq!(admission(Entered { buried: true, ..plain() }), outcome(true, false, false));
    assert_eq!(admission(Entered { cut: true, ..plain() }), outcome(true, false, true));
    assert_eq!(
        admission(Entered { unknown: true, ..admitted("f", 0) }),
        outcome(true, true, false)
    );
    let unknown = || Entered { unknown: true, ..plain() };
    assert_eq!(
        admission(unknown()),
        outcome(true, false, false),
        "a replica that had not heard of the node has heard of it from another one"
    );
    let missed = || Entered { missed: true, ..unknown() };
    assert_eq!(admission(missed()), outcome(true, false, true), "or from none");
    assert_eq!(admission_after(66, unknown()), Admission::Buried);
    let emptied = Entered { unknown: true, ..admitted("f", 0) };
    assert_eq!(admission_after(66, emptied), Admission::Buried, "nobody kept so much");
}

#[test]
fn a_node_that_was_buried_returns_under_another_name_with_what_was_never_sent() {
    let mut partition = serving();
    partition.push(command("a"), None, NOW);
    partition.push(command("b"), Some(reply(2)), NOW);
    partition.next_call(NOW).unwrap();
    partition.lost(NOW);
    partition.push(command("c"), None, NOW);
    let unknown = || Entered { unknown: true, ..admitted("e", 0) };
    let later = NOW + Duration::from_secs(70);
    assert_eq!(partition.entered(unknown(), false, later), Admission::Buried);
    partition.push(command("d"), Some(reply(4)), NOW);
    assert_eq!(
        partition.rename(NodeId(2), true, true, NOW),
        [reply(2)],
        "it may have been executed"
    );
    assert_eq!((partition.node(), partition.base(), partition.epoch()), (NodeId(2), 0, ""));
    let expected =
        Admission::In { register: true, emptied: false, cut_off: true, confirmed: Vec::new() };
    assert_eq!(partition.entered(unknown(), false, NOW), expected);
    let calls: Vec<_> = run(&mut partition).iter().map(channels).collect();
    assert_eq!(calls[1..], ["4 ", "1 c d"]);
}

#[test]
fn a_new_name_without_what_waits_drops_it_and_tells_the_publishers() {
    let mut partition = serving();
    partition.push(command("a"), Some(reply(1)), NOW);
    partition.next_call(NOW).unwrap();
    partition.lost(NOW);
    partition.push(command("b"), Some(reply(2)), NOW);
    assert_eq!(partition.rename(NodeId(2), false, false, NOW), [reply(1), reply(2)]);
    assert!(partition.is_settled());
}

#[test]
fn publishers_are_told_when_they_have_waited_too_long() {
    let mut partition = serving();
    partition.push(command("a"), Some(reply(1)), NOW);
    partition.next_call(NOW).unwrap();
    partition.push(command("b"), Some(reply(2)), NOW);
    partition.push(leave("c"), None, NOW);
    partition.lost(NOW);
    assert_eq!(partition.expire(NOW), Expired::default());
    let expired = Expired { publishers: vec![reply(1), reply(2)], dropped: 0 };
    assert_eq!(partition.expire(NOW + Duration::from_millis(1)), expired);
    partition.entered(admitted("e", 0), false, NOW);
    let calls: Vec<_> = run(&mut partition).iter().map(channels).collect();
    assert_eq!(calls[1..], ["1 ", "4 ", "2 c"], "who was refused repeats it");
}

#[test]
fn a_call_that_was_not_executed_goes_on_without_the_events_of_refused_publishers() {
    let mut partition = serving();
    let later = NOW + Duration::from_secs(1);
    partition.push(command("a"), Some(reply(1)), NOW);
    partition.push(command("b"), None, NOW);
    partition.push(leave("c"), None, NOW);
    partition.push(command("d"), Some(reply(2)), later);
    partition.next_call(NOW).unwrap();
    assert_eq!(partition.expire(later).publishers, [reply(1)]);
    partition.lost(NOW);
    partition.entered(admitted("e", 0), false, NOW);
    let calls: Vec<_> = run(&mut partition).iter().map(channels).collect();
    assert_eq!(calls[1..], ["1 b c d", "4 "]);
}

#[test]
fn a_refused_event_whose_call_was_executed_counts_all_the_same() {
    let mut partition = serving();
    partition.push(command("a"), Some(reply(1)), NOW);
    partition.push(command("b"), Some(reply(2)), NOW + Duration::from_secs(1));
    partition.next_call(NOW).unwrap();
    partition.expire(NOW + Duration::from_secs(1));
    partition.lost(NOW);
    let entered = partition.entered(admitted("e", 1), false, NOW);
    assert!(matches!(entered, Admission::In { confirmed, .. } if confirmed == [reply(2)]));
    assert!(partition.is_settled());
}

#[test]
fn the_lease_is_renewed_each_second_whatever_else_there_is() {
    let mut partition = serving();
    assert_eq!(partition.due(), Some(NOW + TEND_PERIOD));
    partition.push(command("a"), None, NOW);
    let later = NOW + TEND_PERIOD;
    assert_eq!(verbs(&[partition.next_call(later).unwrap()]), ["tend"]);
    assert_eq!(partition.due(), None, "the answer is due first");
    partition.executed(later);
    assert_eq!(verbs(&[partition.next_call(later).unwrap()]), ["publish"]);
}

#[test]
fn an_inbox_that_is_read_as_fast_as_it_fills_is_never_cut() {
    let mut partition = serving();
    let entry = |number| {
        let origin = NodeId(2);
        let records = Record::Left(channel(&"x".repeat(450)), false).encode();
        Entry { origin, kind: CallKind::Batch, number, records }.encode()
    };
    let len = entry(0).len() as u64;
    let (mut told, mut read) = (0, 0);
    for number in 1..100 {
        partition.read(vec![(format!("{number}-0").into(), entry(number))], NOW);
        read += len;
        if let Some(call) = partition.next_call(NOW) {
            let [verb, id, bytes, ..] = &*call.args else { panic!("{call:?}") };
            assert_eq!([text(verb), text(id)], ["tend".to_owned(), format!("{number}-0")]);
            told = text(bytes).parse().unwrap();
            partition.executed(NOW);
        }
        assert!(read - told <= BOUNDS.inbox_bytes / 4, "{told} of {read} bytes after {number}");
    }
}

#[test]
fn a_node_that_is_about_to_stop_takes_no_departures() {
    let mut partition = serving();
    let mut departures = |later: Duration| {
        let call = partition.next_call(NOW + later).unwrap();
        partition.executed(NOW + later);
        partition.leave_departures();
        (text(&call.args[0]), text(&call.args[3]))
    };
    assert_eq!(departures(TEND_PERIOD), ("tend".into(), "1".into()));
    assert_eq!(departures(2 * TEND_PERIOD), ("tend".into(), "0".into()));
}

#[test]
fn burials_and_batches_take_turns() {
    let mut partition = serving();
    let dead = [7, 8, 7, 1].map(NodeId);
    dead.into_iter().for_each(|node| partition.bury(node));
    let mut calls = Vec::new();
    for name in ["a", "b", "c"] {
        partition.push(command(name), None, NOW);
        for _ in 0..2 {
            calls.extend(partition.next_call(NOW));
            partition.executed(NOW);
        }
    }
    assert_eq!(verbs(&calls), ["bury", "publish", "bury", "publish", "publish"]);
}

/// A Redis of one partition with one receiver: it executes batches in the order of their numbers,
/// and appends the channels of a batch to the receiver's inbox.
#[derive(Clone, Default)]
struct FakeRedis {
    epoch: String,
    known: bool,
    done: u64,
    entries: Vec<Bytes>,
}

impl FakeRedis {
    fn enter(&mut self, base: u64) -> Entered {
        let unknown = !std::mem::replace(&mut self.known, true);
        self.done = self.done.max(base);
        Entered { unknown, ..admitted(&self.epoch, self.done) }
    }

    /// Returns whether the node has to enter.
    fn call(&mut self, call: &Call) -> bool {
        if call.kind == CallKind::Batch {
            if call.number > self.done + 1 {
                return true;
            }
            if call.number == self.done + 1 {
                self.done += 1;
                let leaves =
                    call.args.iter().filter_map(|arg| text(arg).strip_prefix("app:").map(channel));
                let records: Vec<u8> = leaves
                    .flat_map(|channel| Record::Left(channel, false).encode().to_vec())
                    .collect();
                let (origin, kind, number) = (NodeId(1), call.kind, call.number);
                let entry = Entry { origin, kind, number, records: records.into() };
                self.entries.push(entry.encode());
            }
        }
        false
    }
}

/// An event of the property test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Call,
    LoseAnswer,
    Cut,
    /// The receiver reads.
    Read,
    /// A replica takes over that lacks the last calls.
    FailOver(usize),
    Empty,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Push),
        6 => Just(Step::Call),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::Cut),
        3 => Just(Step::Read),
        1 => (0..6_usize).prop_map(Step::FailOver),
        1 => Just(Step::Empty),
    ];
    prop::collection::vec(step, 1..120)
}

/// A node, its Redis and another node that reads.
struct World {
    partition: Partition,
    redis: FakeRedis,
    /// Redis as it was after each call.
    history: Vec<FakeRedis>,
    receiver: Inbox,
    /// The entries that the receiver has read since Redis was another one.
    read: usize,
    received: Vec<String>,
    connected: bool,
}

impl World {
    fn new() -> Self {
        Self {
            partition: partition(),
            redis: FakeRedis::default(),
            history: vec![FakeRedis::default()],
            receiver: Inbox::new(Duration::from_secs(70), BOUNDS.inbox_bytes),
            read: 0,
            received: Vec::new(),
            connected: false,
        }
    }

    fn call(&mut self, answered: bool) {
        if !self.connected {
            let entered = self.redis.enter(self.partition.base());
            let admission = self.partition.entered(entered, false, NOW);
            assert_ne!(admission, Admission::Buried);
            self.connected = true;
        }
        let later = NOW + OTHERS_ENTER;
        let Some(call) = self.partition.next_call(later) else { return };
        let enter = self.redis.call(&call);
        self.history.push(self.redis.clone());
        match answered && !enter {
            true => drop(self.partition.executed(later)),
            false => self.cut(),
        }
    }

    fn cut(&mut self) {
        self.connected = false;
        self.partition.lost(NOW);
    }

    fn become_another(&mut self, redis: FakeRedis) {
        self.redis = redis;
        self.history = vec![self.redis.clone()];
        self.read = 0;
        self.cut();
    }

    fn read(&mut self) {
        let entries = self.redis.entries.iter().enumerate().skip(self.read);
        let entries = entries.map(|(n, entry)| (format!("{n}-1").into(), entry.clone())).collect();
        self.read = self.redis.entries.len();
        for record in self.receiver.read(entries, NOW) {
            let Record::Left(channel, _) = record else { panic!("{record:?}") };
            self.received.push(channel.as_str().to_owned());
        }
    }
}

proptest! {
    #[test]
    fn every_command_arrives_once_and_in_order_whatever_redis_forgets(steps in steps()) {
        let mut world = World::new();
        let mut pushed = Vec::new();
        for step in steps {
            match step {
                Step::Push => {
                    let name = pushed.len().to_string();
                    world.partition.push(command(&name), None, NOW);
                    pushed.push(channel(&name).as_str().to_owned());
                }
                Step::Call => world.call(true),
                Step::LoseAnswer => world.call(false),
                Step::Cut => world.cut(),
                Step::Read => world.read(),
                Step::FailOver(back) => {
                    let index = world.history.len().saturating_sub(1 + back);
                    let redis = world.history[index].clone();
                    world.become_another(redis);
                }
                Step::Empty => {
                    let epoch = format!("{}+", world.redis.epoch);
                    world.become_another(FakeRedis { epoch, ..FakeRedis::default() });
                }
            }
        }
        while !(world.connected && world.partition.is_settled()) {
            world.call(true);
        }
        world.read();
        prop_assert_eq!(world.received, pushed);
    }
}

#[test]
fn a_node_that_quits_does_so_behind_everything_else_and_says_nothing_afterwards() {
    let mut partition = serving();
    partition.push(command("a"), None, NOW);
    partition.quit();
    assert!(!partition.is_settled());
    assert_eq!(verbs(&run(&mut partition)), ["publish", "quit"]);
    partition.quit();
    assert!(partition.is_settled());
    assert_eq!(partition.next_call(NOW + Duration::from_secs(9)), None);
}

#[test]
fn a_node_that_quits_does_not_return_for_a_lost_answer_or_for_registrations() {
    let mut partition = serving();
    partition.push(command("a"), None, NOW);
    partition.quit();
    partition.lost(NOW);
    let admission = partition.entered(Entered { unknown: true, ..admitted("f", 0) }, false, NOW);
    assert!(matches!(admission, Admission::In { register: false, .. }), "{admission:?}");
    let now = NOW + OTHERS_ENTER;
    while partition.next_call(now).is_some_and(|call| verbs(&[call]) != ["quit"]) {
        partition.executed(now);
    }
    assert!(!partition.has_quit());
    partition.lost(NOW);
    assert!(partition.has_quit() && partition.is_settled());
}
