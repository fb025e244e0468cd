//! Facts about the state that nodes share, each on the model and on a Redis.

use super::server::Server;
use super::world::{
    LEASE_MS, RETENTION_MS, World, channel, enter, events, flags, join, keep, leave, member, part,
    publish, user,
};
use crate::cluster::store::Executed;
use crate::cluster::wire::{
    Admitted, Batched, CallKind, Command, Entrance, MemberText, NodeId, Record,
};

const LEASE_S: u64 = LEASE_MS / 1000;
const RETENTION_S: u64 = RETENTION_MS / 1000;

const ROOM: &str = "presence-room";

#[test]
fn a_member_on_two_nodes_leaves_once() {
    let mut world = World::settled(3);
    for node in [0, 1] {
        world.call(node, &[join(ROOM, 1, "p"), enter(ROOM, "7", 0, "")]);
    }
    world.call(2, &[join(ROOM, 1, "p")]);
    let records = world.read(2);
    assert!(matches!(&records[..], [Record::Joined { members, .. }] if *members == [member("7")]));
    world.call(0, &[part(ROOM, "7", "t")]);
    assert_eq!(world.read(2), []);
    world.call(1, &[part(ROOM, "7", "t")]);
    let removed = Record::Removed(channel(ROOM), "7".into());
    assert_eq!(world.read(2), std::slice::from_ref(&removed));
    let parted = Record::Parted(channel(ROOM), "7".into());
    assert!(world.read(1).ends_with(&[removed, parted]));
}

#[test]
fn a_full_channel_admits_only_those_who_are_members() {
    let mut world = World::settled(2);
    let outcome = |world: &mut World, node: usize, user: &str| {
        world.call(node, &[enter(ROOM, user, 2, "")]);
        match world.read(node).last() {
            Some(Record::Entered(_, _, admitted)) => *admitted,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome(&mut world, 0, "7"), Admitted::New);
    assert_eq!(outcome(&mut world, 0, "8"), Admitted::New);
    assert_eq!(outcome(&mut world, 0, "9"), Admitted::Full);
    assert_eq!(outcome(&mut world, 1, "8"), Admitted::Again);
    assert_eq!(outcome(&mut world, 1, "9"), Admitted::Full);
    world.call(0, &[part(ROOM, "7", "")]);
    assert_eq!(outcome(&mut world, 1, "9"), Admitted::New);
}

#[test]
fn webhooks_are_told_of_a_departure_after_three_seconds_unless_it_is_undone() {
    let mut world = World::settled(2);
    let departures = |records: Vec<Record>| {
        let gone = records.into_iter().filter(|record| matches!(record, Record::Gone(..)));
        gone.collect::<Vec<_>>()
    };
    world.call(0, &[join(ROOM, 1, "pt"), enter(ROOM, "7", 0, ""), enter(ROOM, "8", 0, "")]);
    let gone = [part(ROOM, "7", "t"), part(ROOM, "8", "t"), leave(ROOM, "t")];
    world.call(0, &gone);
    world.pass_tended(2, &[0, 1]);
    // The user returns on another node.
    world.call(1, &[join(ROOM, 1, "pt"), enter(ROOM, "7", 0, "")]);
    let records = world.read(1);
    assert!(records.iter().any(|record| matches!(record, Record::Joined { first: false, .. })));
    assert!(records.contains(&Record::Entered(channel(ROOM), "7".into(), Admitted::Returned)));
    world.pass_tended(1, &[1, 0]);
    assert_eq!(departures(world.read(1)), [Record::Gone(channel(ROOM), "8".into())]);
    world.pass_tended(5, &[0, 1]);
    assert_eq!(departures([world.read(0), world.read(1)].concat()), []);
}

#[test]
fn a_call_lists_members_up_to_a_bound() {
    let mut world = World::settled(2);
    let info = "x".repeat(1 << 20);
    let rooms: Vec<_> = (0..7).map(|room| format!("presence-{room}")).collect();
    for room in &rooms {
        let member = MemberText::from_text(format!(r#"{{"user_id":"7","info":"{info}"}}"#).into());
        let (channel, user_id, flags) = (channel(room), "7".into(), flags(""));
        world.call(0, &[Command::Enter { channel, user_id, member, max: 0, flags }]);
    }
    let rejoin = |rooms: &[String]| rooms.iter().map(|room| join(room, 1, "p")).collect::<Vec<_>>();
    let listed = |record: &Record| match record {
        Record::Joined { members, exact, .. } => {
            assert_eq!(members.len(), usize::from(*exact));
            *exact
        }
        other => panic!("{other:?}"),
    };
    world.call(1, &rejoin(&rooms));
    let records = world.read(1);
    let (last, answers) = records.split_last().unwrap();
    assert_eq!(last, &Record::Settled);
    let exact: Vec<_> = answers.iter().map(listed).collect();
    assert_eq!(exact, [true, true, true, true, false, false, false]);
    world.call(1, &rejoin(&rooms[4..]));
    let exact: Vec<_> = world.read(1).iter().map(listed).collect();
    assert_eq!(exact, [true; 3]);
    // Registrations list none.
    world.register(1, &rejoin(&rooms));
    let exact: Vec<_> = world.read(1).iter().map(listed).collect();
    assert_eq!(exact, [false; 7]);
}

#[test]
fn the_answer_to_a_join_stands_in_order_with_the_events() {
    let mut world = World::settled(2);
    world.call(0, &[join("cache-news", 1, "")]);
    world.call(1, &[publish("cache-news", "before")]);
    world.call(1, &[join("cache-news", 1, ""), publish("cache-news", "behind")]);
    assert_eq!(events(&world.read(0)), ["before", "behind"]);
    match &world.read(1)[..] {
        [
            Record::Joined { first: false, last: Some((retained, _)), .. },
            Record::Message { .. },
        ] => {
            assert_eq!(&*retained.data, "before");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_executed_once_and_in_order() {
    let mut world = World::settled(1);
    let twice = [join("news", 1, ""), publish("news", "a")];
    let number = world.nodes[0].next;
    assert_eq!(world.call(0, &twice), Executed::Done);
    assert_eq!(world.call_as(0, CallKind::Batch, number, &twice), Executed::Done);
    assert_eq!(world.call_as(0, CallKind::Batch, number + 2, &twice), Executed::Enter);
    assert_eq!(events(&world.read(0)), ["a"]);
    // Registrations are absolute: their numbers do not matter.
    assert_eq!(world.call_as(0, CallKind::Registration, number, &twice), Executed::Done);
    assert_eq!(events(&world.read(0)), ["a"]);
}

#[test]
fn an_inbox_is_cut_at_its_bound_and_its_node_has_to_enter() {
    let mut world = World::settled(2);
    world.inbox_bytes = 2500;
    world.call(0, &[join("news", 1, "")]);
    world.read(0);
    world.tend(0);
    let event = "x".repeat(500);
    for _ in 0..3 {
        assert_eq!(world.call(1, &[publish("news", &event)]), Executed::Done);
    }
    // What is read makes room.
    assert_eq!(events(&world.read(0)).len(), 3);
    assert_eq!(world.tend(0), Executed::Done);
    for _ in 0..5 {
        world.call(1, &[publish("news", &event)]);
    }
    assert_eq!(world.read(0), []);
    assert_eq!(world.tend(0), Executed::Enter);
    let entered = world.enter(0);
    assert!(entered.cut && !entered.unknown && !entered.buried, "{entered:?}");
    world.call(1, &[publish("news", "again")]);
    assert_eq!(events(&world.read(0)), ["again"]);
}

#[test]
fn a_node_whose_inbox_was_evicted_has_to_enter() {
    for tends in [false, true] {
        let mut world = World::settled(2);
        world.call(0, &[join("news", 1, "")]);
        world.evict_inbox(0);
        if tends {
            assert_eq!(world.tend(0), Executed::Done);
        } else {
            world.call(1, &[publish("news", "lost")]);
        }
        assert_eq!(world.call(0, &[]), Executed::Enter);
        assert!(world.enter(0).cut);
    }
}

#[test]
fn a_dead_node_is_buried_in_two_steps_of_at_most_200_registrations_a_call() {
    for server in [None, Server::start()] {
        bury_in_two_steps(World { apart: true, ..World::settled_on(server, 3) });
    }
}

fn bury_in_two_steps(mut world: World) {
    let id = world.id(0);
    world.call(2, &[join(ROOM, 1, "pc")]);
    world.call(0, &[join(ROOM, 1, "pc")]);
    let users: Vec<_> = (0..1750).map(|user| user.to_string()).collect();
    let members: Vec<_> = users.iter().map(|user| enter(ROOM, user, 0, "")).collect();
    world.call(0, &members);
    let rooms: Vec<_> = users.iter().map(|name| join(name, 1, "t")).collect();
    world.call(0, &rooms);
    world.read(2);

    let removed = |records: &[Record]| {
        records.iter().filter(|record| matches!(record, Record::Removed(..))).count()
    };
    let dead = |records: &[Record]| records.contains(&Record::Dead(id));
    world.pass_tended(LEASE_S - 1, &[1, 2]);
    assert!(!dead(&world.read(1)));
    world.pass_tended(1, &[1, 2]);
    assert!(dead(&world.read(1)));
    assert_eq!(removed(&world.read(2)), 0);
    // 1,750 members and one count.
    for _ in 0..8 {
        world.call(1, &[Command::Bury(id), Command::Bury(id)]);
        assert!((199..=200).contains(&removed(&world.read(2))));
        assert!(dead(&world.read(1)));
    }
    world.call(1, &[Command::Bury(id)]);
    assert!((150..=151).contains(&removed(&world.read(2))));
    assert!(!dead(&world.read(1)));

    // Its interest stays, and so does its inbox.
    world.call(1, &[publish("17", "kept")]);
    assert_eq!(events(&world.read(0)), ["kept"]);
    world.pass_tended(RETENTION_S - 1, &[1, 2]);
    assert!(!dead(&world.read(1)));
    world.pass_tended(1, &[1]);
    let mut calls = 0;
    while dead(&world.read(1)) {
        world.call(1, &[Command::Bury(id)]);
        calls += 1;
    }
    assert_eq!(calls, 9);
    // All channels but the one with another node are vacated, which is told 1,000 a second.
    let vacated = |record: &Record| matches!(record, Record::Gone(_, user) if user.is_empty());
    for expected in [0, 0, 1000, 750] {
        world.pass_tended(1, &[1]);
        let records = world.read(1);
        assert_eq!(records.iter().filter(|record| vacated(record)).count(), expected);
    }
    assert!(world.enter(0).unknown);
}

#[test]
fn a_node_that_returns_is_not_buried_further() {
    for server in [None, Server::start()] {
        bury_and_return(World { apart: true, ..World::settled_on(server, 2) });
    }
}

fn bury_and_return(mut world: World) {
    let id = world.id(0);
    let users: Vec<_> = (0..750).map(|user| user.to_string()).collect();
    world.call(0, &[join(ROOM, 1, "p")]);
    world.call(0, &users.iter().map(|user| enter(ROOM, user, 0, "")).collect::<Vec<_>>());
    world.read(0);
    world.pass_tended(LEASE_S, &[1]);
    world.call(1, &[Command::Bury(id)]);
    world.call(1, &[publish(ROOM, "meanwhile")]);
    // A node that stood still with its connection alive learns of it by its next call.
    assert_eq!(world.call(0, &[]), Executed::Enter);
    let entered = world.enter(0);
    assert!(entered.buried && !entered.unknown && !entered.cut, "{entered:?}");
    world.call(1, &[Command::Bury(id)]);
    assert_eq!(events(&world.read(0)), ["meanwhile"]);
    // 550 are still there, and all are after it has registered them.
    world.call(0, &users.iter().map(|user| enter(ROOM, user, 0, "")).collect::<Vec<_>>());
    let new = world.read(0).into_iter();
    let new = new.filter(|it| matches!(it, Record::Entered(_, _, Admitted::Returned)));
    assert_eq!(new.count(), 200);
}

#[test]
fn a_node_that_returns_while_its_interest_is_taken_out_has_lost_events() {
    for server in [None, Server::start()] {
        bury_interest_and_return(World { apart: true, ..World::settled_on(server, 3) });
    }
}

fn bury_interest_and_return(mut world: World) {
    let id = world.id(0);
    let names: Vec<_> = (0..2500).map(|name| name.to_string()).collect();
    let joins: Vec<_> = names.iter().map(|name| join(name, 1, "t")).collect();
    let publishes: Vec<_> = names.iter().map(|name| publish(name, "event")).collect();
    world.call(0, &joins);
    world.read(0);
    world.pass_tended(LEASE_S, &[1, 2]);
    world.call(1, &[Command::Bury(id)]);
    world.pass_tended(RETENTION_S, &[1, 2]);
    // Two nodes bury, and 2,100 channels remain.
    world.call(1, &[Command::Bury(id)]);
    world.call(2, &[Command::Bury(id)]);
    world.call(1, &publishes);
    assert_eq!(world.read(0), []);
    let entered = world.enter(0);
    assert!(entered.cut && entered.buried && !entered.unknown, "{entered:?}");
    // A burial that was on its way takes nothing of a node that has returned.
    world.register(0, &joins);
    world.call(0, &[Command::Ready]);
    world.call(2, &[Command::Bury(id)]);
    world.read(0);
    world.call(1, &publishes);
    assert_eq!(events(&world.read(0)).len(), names.len());
}

#[test]
fn an_outage_buries_nobody() {
    let mut world = World::settled(3);
    world.pass(10 * LEASE_MS);
    let bury: Vec<_> = (0..3).map(|node| Command::Bury(world.id(node))).collect();
    world.call(0, &bury);
    world.tend(0);
    world.pass_tended(LEASE_S - 1, &[0]);
    assert!(!world.read(0).iter().any(|record| matches!(record, Record::Dead(_))));
    assert_eq!(world.tend(1), Executed::Done);
}

#[test]
fn an_empty_redis_forgets_no_event_of_the_known_nodes() {
    let mut world = World::settled(3);
    for node in 0..3 {
        world.call(node, &[join("news", 1, "")]);
        world.read(node);
    }
    world.empty();
    // The first node that enters publishes before the others are there.
    let entered = world.enter(0);
    assert!(entered.unknown && !entered.cut, "{entered:?}");
    world.call(0, &[publish("news", "first")]);
    world.register(0, &[join("news", 1, "a")]);
    world.call(0, &[publish("news", "second"), Command::Ready]);
    let records = world.read(0);
    assert_eq!(events(&records), ["first", "second"]);
    assert!(
        records.iter().any(|it| matches!(it, Record::Joined { exact: false, first: false, .. }))
    );
    for node in [1, 2] {
        assert!(world.enter(node).unknown);
        assert_eq!(events(&world.read(node)), ["first", "second"]);
        world.register(node, &[join("news", 1, "a"), Command::Ready]);
        let settled = world.read(node).contains(&Record::Settled);
        assert_eq!(settled, node == 2);
    }
    world.call(0, &[publish("news", "third"), publish("other", "of nobody")]);
    for node in 0..3 {
        assert_eq!(events(&world.read(node)), ["third"]);
    }
}

#[test]
fn a_node_that_none_knew_hears_that_it_missed_batches_until_it_is_ready() {
    let mut world = World::settled(3);
    world.empty();
    assert!(!world.enter_knowing(0, 0, [1]).missed);
    assert!(!world.enter_knowing(2, 0, []).missed, "there are no batches yet");
    world.empty();
    world.enter_knowing(0, 0, [1]);
    world.call(0, &[publish("news", "first")]);
    assert!(!world.enter_knowing(1, 0, []).missed, "the first one knew it");
    let entered = [world.enter_knowing(2, 0, []), world.enter_knowing(2, 0, [])];
    assert!(entered.iter().all(|entered| entered.missed && entered.unknown));
    world.call(2, &[Command::Ready]);
    assert!(!world.enter_knowing(2, 0, []).missed);
}

#[test]
fn a_list_tells_of_each_node_which_batches_are_lost_and_executed() {
    let mut world = World::settled(2);
    world.call(1, &[publish("news", "a"), publish("news", "b")]);
    let batches = |world: &mut World, base| {
        world.enter_knowing(1, base, [0]);
        world.tend(0);
        let list = world.read(0).into_iter().rev().find_map(|record| match record {
            Record::Tended(_, nodes) => Some(nodes),
            _ => None,
        });
        let node = list.unwrap().into_iter().find(|node| node.id == NodeId(2)).unwrap();
        node.batched.map(|Batched { base, done }| (base, done))
    };
    let done = world.nodes[1].next - 1;
    assert_eq!(batches(&mut world, done - 1), Some((0, done)), "nothing is lost");
    world.empty();
    world.enter_knowing(0, 0, [1]);
    assert_eq!(batches(&mut world, done - 1), Some((done - 1, done - 1)));
    world.call(1, &[]);
    assert_eq!(batches(&mut world, done), Some((done - 1, done)));
    assert_eq!(batches(&mut world, done + 5), Some((done + 5, done + 5)), "a replica knew less");
}

#[test]
fn an_event_that_a_node_has_kept_becomes_the_last_one_of_an_empty_redis() {
    let mut world = World::settled(1);
    world.register(0, &[keep("cache-news", "kept"), keep("cache-news", "older")]);
    world.call(0, &[join("cache-news", 1, "")]);
    let last = |records: Vec<Record>| match records.into_iter().next_back() {
        Some(Record::Joined { last: Some((retained, _)), .. }) => retained.data,
        other => panic!("{other:?}"),
    };
    assert_eq!(&*last(world.read(0)), "kept");
    world.call(0, &[publish("cache-news", "new"), join("cache-news", 1, "")]);
    assert_eq!(&*last(world.read(0)), "new");
}

#[test]
fn stale_nodes_get_every_event_and_every_question() {
    let mut world = World::settled(2);
    world.restart();
    world.enter(0);
    world.call(0, &[publish("news", "a"), Command::Ready]);
    assert_eq!(events(&world.read(1)), ["a"]);
    let payload = || "what?".into();
    world.call(0, &[Command::State { channel: channel("news"), request: 3, payload: payload() }]);
    let question = Record::Question(world.id(0), 3, payload());
    assert_eq!(world.read(1), [question]);
    let nodes = |records: Vec<Record>| match records.last() {
        Some(Record::Asked { nodes, .. }) => nodes.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(nodes(world.read(0)), [world.id(1)]);
    world.enter(1);
    world.call(1, &[Command::Ready, publish("news", "b")]);
    assert_eq!(world.read(1), [Record::Settled]);
    world.read(0);
    world.call(0, &[Command::State { channel: channel("news"), request: 4, payload: payload() }]);
    assert_eq!(nodes(world.read(0)), []);
}

#[test]
fn a_node_that_is_buried_while_it_is_stale_has_lost_events() {
    let mut world = World::settled(2);
    world.empty();
    world.enter(0);
    world.call(0, &[Command::Ready]);
    world.tend(0);
    world.read(0);
    world.pass_tended(LEASE_S, &[0]);
    world.call(0, &[Command::Bury(world.id(1)), publish("news", "lost")]);
    assert!(world.read(0).contains(&Record::Settled));
    let entered = world.enter(1);
    assert!(entered.unknown && entered.cut && entered.buried, "{entered:?}");
}

#[test]
fn a_silent_node_is_asked_but_nobody_waits_for_it() {
    let mut world = World::settled(2);
    world.pass_tended(LEASE_S, &[0]);
    world.read(0);
    world.call(0, &[Command::Ask(5, "what?".into())]);
    let nodes = vec![world.id(0)];
    let asked = Record::Asked { request: 5, members: 0, last: None, nodes };
    let question = Record::Question(world.id(0), 5, "what?".into());
    assert_eq!(world.read(0), [asked, question.clone()]);
    assert_eq!(world.read(1), [question]);
}

#[test]
fn large_answers_do_not_cut_the_node_that_asks() {
    let mut world = World::settled(3);
    world.inbox_bytes = 5200;
    world.tend(0);
    world.read(0);
    let answer = |request| Command::Answer(NodeId(1), request, "x".repeat(900).into());
    // The unread bytes of the first call count, and so do the earlier answers of the second one.
    world.call(1, &[answer(1)]);
    world.call(2, &[answer(2), answer(3)]);
    let answers = [(1, 1), (2, 2)]
        .map(|(node, request)| Record::Answer(world.id(node), request, "x".repeat(900).into()));
    assert_eq!(world.read(0), answers);
    world.tend(0);
    world.call(2, &[answer(4)]);
    assert_eq!(world.read(0).len(), 2);
}

#[test]
fn nobody_waits_for_the_answer_of_a_buried_node() {
    let mut world = World::settled(2);
    let id = world.id(0);
    world.pass_tended(LEASE_S, &[0]);
    world.call(0, &[Command::Bury(world.id(1))]);
    world.read(0);
    // Redis is away for so long that leases start anew.
    world.pass(LEASE_MS);
    for tended in [false, true] {
        if tended {
            world.tend(0);
            world.read(0);
        }
        world.call(0, &[Command::Ask(5, "what?".into())]);
        let asked =
            |record: &Record| matches!(record, Record::Asked { nodes, .. } if *nodes == [id]);
        assert!(world.read(0).iter().any(asked));
    }
}

#[test]
fn users_are_online_until_their_last_node_is_not() {
    let mut world = World::settled(3);
    let online = |online| Record::Online(user("7"), online);
    world.call(0, &[Command::Watch(user("7"))]);
    world.call(1, &[Command::Online(user("7"))]);
    world.call(2, &[Command::Online(user("7"))]);
    world.call(1, &[Command::Offline(user("7"))]);
    assert_eq!(world.read(0), [online(false), online(true)]);
    // The last one dies.
    world.pass_tended(LEASE_S, &[0, 1]);
    world.read(0);
    world.call(1, &[Command::Bury(world.id(2))]);
    assert_eq!(world.read(0), [online(false)]);
}

#[test]
fn subscriptions_of_a_dead_node_do_not_count() {
    let mut world = World::settled(2);
    world.call(0, &[join("news", 3, "c")]);
    world.call(1, &[join("news", 4, "c")]);
    assert!(world.read(0).ends_with(&[Record::Count(channel("news"), 7, false)]));
    assert!(world.read(1).ends_with(&[Record::Count(channel("news"), 7, true)]));
    world.call(1, &[Command::Count(channel("news"), 5)]);
    assert_eq!(world.read(0), [Record::Count(channel("news"), 8, false)]);
    world.pass_tended(LEASE_S, &[0]);
    world.read(0);
    world.call(0, &[Command::Bury(world.id(1))]);
    assert_eq!(world.read(0), [Record::Count(channel("news"), 3, false)].map(own));
}

#[test]
fn a_node_that_leaves_is_told_the_number_of_subscriptions_for_webhooks() {
    let mut world = World::settled(2);
    world.call(0, &[join("news", 3, "c")]);
    world.call(1, &[join("news", 4, "c")]);
    world.read(0);
    world.read(1);
    world.call(1, &[leave("news", "c"), leave("news", "c")]);
    let [left, again] = [false, false].map(|vacated| Record::Left(channel("news"), vacated));
    assert_eq!(world.read(1), [left, Record::Count(channel("news"), 3, true), again]);
    assert_eq!(world.read(0), [Record::Count(channel("news"), 3, false)]);
}

/// The record as the node gets it whose call it was.
fn own(record: Record) -> Record {
    match record {
        Record::Count(channel, total, _) => Record::Count(channel, total, true),
        other => other,
    }
}

#[test]
fn permits_never_exceed_the_total() {
    const TOTAL: u32 = 23;
    let mut world = World::settled(3);
    let mut held = [0_u32; 3];
    let mut refused = 0;
    // A fixed sequence that looks random.
    let mut state = 12_345_u32;
    for _ in 0..300 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (node, count) = ((state >> 8) as usize % 3, (state >> 16) % 7);
        let app = "app".into();
        let command = if state >> 29 < 5 {
            Command::Permits { app, wanted: count, total: TOTAL }
        } else {
            Command::Return { app, count: count.min(held[node]) }
        };
        world.call(node, &[command]);
        let before = held[node];
        for record in world.read(node) {
            if let Record::Permits(_, now) = record {
                held[node] = now;
            }
        }
        assert!(held.iter().sum::<u32>() <= TOTAL, "{held:?}");
        refused += u32::from(held[node] == before && held.iter().sum::<u32>() == TOTAL);
    }
    assert!(refused > 10, "the quota was hardly ever used up: {refused}");
}

#[test]
fn permits_of_a_dead_node_are_free_again() {
    let mut world = World::settled(2);
    let permits = |wanted| Command::Permits { app: "app".into(), wanted, total: 4 };
    world.call(0, &[permits(2), permits(1), permits(1)]);
    world.call(1, &[permits(4)]);
    assert!(world.read(1).contains(&Record::Permits("app".into(), 0)));
    assert!(world.read(0).ends_with(&[Record::Recall("app".into())]));
    world.pass_tended(LEASE_S, &[1]);
    world.call(1, &[Command::Bury(world.id(0)), permits(4)]);
    assert!(world.read(1).ends_with(&[Record::Permits("app".into(), 2)]));
    // A registration claims what the node holds.
    world.register(1, &[permits(3)]);
    assert_eq!(world.read(1), [Record::Permits("app".into(), 3)]);
}

#[test]
fn no_permits_are_lent_before_all_nodes_have_claimed_theirs() {
    let mut world = World::settled(2);
    let permits = |wanted| Command::Permits { app: "app".into(), wanted, total: 4 };
    let held = |count| Record::Permits("app".into(), count);
    world.call(1, &[permits(3)]);
    assert_eq!(world.read(1), [held(2)]);
    world.empty();
    world.enter(0);
    world.call(0, &[Command::Ready, permits(4)]);
    assert_eq!(world.read(0), [held(0)]);
    world.enter(1);
    world.register(1, &[permits(2)]);
    // Nobody is asked to give up some, either.
    world.call(0, &[permits(4)]);
    assert_eq!(world.read(1), [held(2)]);
    world.call(1, &[Command::Ready]);
    world.call(0, &[permits(4)]);
    assert!(world.read(0).ends_with(&[held(1)]));
}

#[test]
fn a_node_with_another_number_of_partitions_is_refused() {
    let mut world = World::settled(1);
    let entrance = Entrance {
        partitions: 16,
        epoch: "another".into(),
        run: "another".into(),
        version: "1".into(),
        address: "a".into(),
        base: 0,
        lease_ms: LEASE_MS,
        known: Vec::new(),
    };
    let id = world.id(0);
    assert_eq!(world.model.enter(world.now_ms, id, &entrance), Err(1));
    if let Some(server) = &mut world.server {
        assert_eq!(server.enter(id, &entrance), Err(1));
        assert_eq!(server.state(), world.model.state());
    }
}

#[test]
fn inboxes_expire_when_the_cluster_has_stopped() {
    let mut world = World::settled(2);
    world.call(0, &[join("news", 1, "")]);
    world.call(1, &[publish("news", "a")]);
    let keys = [0, 1].map(|node| format!("{}in:{}", super::server::TAG, world.id(node)));
    let Some(server) = &mut world.server else { return };
    for key in keys {
        let left_ms: u64 = server.admin(&["PTTL", &key]);
        let hour_ms = 3_600_000;
        assert!((hour_ms..=hour_ms + LEASE_MS + RETENTION_MS).contains(&left_ms), "{left_ms}");
    }
}

#[test]
fn flags_are_letters() {
    assert_eq!(&flags("pcta").letters()[..], b"pcta");
}
