use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use rustix::process::Signal;
use serde_json::json;

use super::traffic::Traffic;
use crate::client::{Client, data};
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, publish};
use crate::nodes::{Cluster, TAG, brief, over, over_with};
use crate::proxy::Flow;
use crate::redis_server::{Redis, RedisSetup, is_installed};
use crate::steps::presence::{ROOM, added, members_until, removed, users};

/// The duration of a lease, by [`brief`].
const LEASE: Duration = Duration::from_secs(2);

/// The time within which the members of a node that died leave, behind the end of its lease.
const LEEWAY: Duration = Duration::from_secs(5);

/// Longer than a lease and shorter than the retention behind it, by [`brief`].
const BEYOND_LEASE: Duration = Duration::from_secs(5);

/// The Close of a connection whose node cannot know that it has everything.
const MISSING: (u16, &str) = (4200, "Messages may be missing. Please reconnect.");

fn member(node: &Gateway, id: &str) -> Client {
    Client::joined(node, ROOM, &json!({ "user_id": id }))
}

#[track_caller]
fn expect_added(client: &mut Client, id: &str) {
    assert_eq!(added(client), json!({ "user_id": id }));
}

#[track_caller]
fn expect_removed(client: &mut Client, id: &str) {
    assert_eq!(removed(client), json!({ "user_id": id }));
}

/// Runs a failure under traffic from and to all nodes. Nothing may be lost, doubled or out of
/// order, no member may leave, and every node has to know all members behind it.
fn delays_only(cluster: &mut Cluster<3>, failure: impl FnOnce(&mut Cluster<3>)) {
    let traffic = harmless(cluster, failure);
    traffic.complete_in_one_order();
}

/// Runs a failure as [`delays_only`] does. Only the order of some events may differ between nodes.
fn reorders_at_most(cluster: &mut Cluster<3>, failure: impl FnOnce(&mut Cluster<3>)) {
    let traffic = harmless(cluster, failure);
    traffic.complete();
}

fn harmless(cluster: &mut Cluster<3>, failure: impl FnOnce(&mut Cluster<3>)) -> Traffic {
    let [a, b, c] = &cluster.nodes;
    let (mut witness, _other) = (member(a, "w"), member(b, "o"));
    expect_added(&mut witness, "o");
    let traffic = Traffic::start(&[a, b, c], &[a, b, c]);
    failure(cluster);
    traffic.goes_on();
    let [a, _, c] = &cluster.nodes;
    let _third = member(c, "t");
    expect_added(&mut witness, "t");
    let everybody = ["o", "t", "w"].map(str::to_owned).into();
    assert_eq!(users(a), everybody);
    assert_eq!(users(c), everybody);
    traffic
}

// ---- Redis --------------------------------------------------------------------------------------

#[test]
fn a_restart_of_redis_with_its_data_delays_events() {
    if !is_installed() {
        return;
    }
    let mut cluster = Cluster::on(RedisSetup::new().durable().start(), brief);
    delays_only(&mut cluster, |cluster| {
        cluster.redis.crash();
        cluster.redis.go_on();
    });
}

#[test]
fn a_redis_that_comes_back_empty_delays_events() {
    over_with(brief, |mut cluster: Cluster<3>| {
        reorders_at_most(&mut cluster, |cluster| {
            cluster.redis.crash();
            cluster.redis.go_on_empty();
        });
        cluster.until_joined(3);
    });
}

#[test]
fn a_redis_that_is_emptied_while_it_runs_delays_events() {
    over_with(brief, |mut cluster: Cluster<3>| {
        reorders_at_most(&mut cluster, |cluster| {
            let _done: String = cluster.redis.ask("FLUSHALL");
        });
        cluster.until_joined(3);
    });
}

#[test]
fn a_failover_that_loses_the_last_writes_delays_events() {
    over_with(brief, |mut cluster: Cluster<3>| {
        let replica = cluster.redis.replica();
        reorders_at_most(&mut cluster, |cluster| {
            // The replica leaves its master, which goes on to acknowledge writes.
            let _done: String = replica.ask("REPLICAOF NO ONE");
            thread::sleep(Duration::from_millis(300));
            cluster.redis.crash();
            cluster.nodes.iter().for_each(|node| node.proxy.turn_to(replica.address()));
        });
    });
}

#[test]
fn a_redis_that_stands_still_for_four_seconds_delays_events_and_buries_nobody() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| cluster.redis.stall(Duration::from_secs(4)));
        for node in &cluster.nodes {
            assert!(!node.log().contains("buried"), "{}", node.log());
        }
    });
}

#[test]
fn a_redis_that_stands_still_for_longer_than_a_lease_buries_nobody() {
    over_with(brief, |mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| cluster.redis.stall(Duration::from_millis(2500)));
    });
}

// ---- connections to Redis -----------------------------------------------------------------------

#[test]
fn connections_that_redis_closes_delay_events() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            for _ in 0..5 {
                cluster.redis.disconnect_all();
                thread::sleep(Duration::from_millis(100));
            }
        });
    });
}

#[test]
fn connections_that_break_delay_events() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            for round in 0..9 {
                cluster.nodes[round % 3].proxy.cut();
                thread::sleep(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn calls_whose_answers_are_lost_are_executed_once() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            for node in &cluster.nodes {
                node.proxy.set(Flow::Unanswered);
                thread::sleep(Duration::from_millis(200));
                node.proxy.set(Flow::Open);
            }
        });
    });
}

#[test]
fn calls_that_arrive_after_their_node_has_given_them_up_are_executed_once() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            let proxy = &cluster.nodes[0].proxy;
            proxy.set(Flow::Stalled);
            // The node notices a black hole within five seconds, and its lease ends at that time.
            thread::sleep(Duration::from_millis(3500));
            proxy.set(Flow::Open);
        });
    });
}

#[test]
fn a_slow_network_delays_events() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            cluster.nodes[1].proxy.set(Flow::Throttled(100_000));
            thread::sleep(Duration::from_secs(1));
        });
    });
}

// ---- a node without Redis, for a time -----------------------------------------------------------

/// Keeps a node apart for longer than its lease. Its clients are only delayed, and its members
/// leave and return.
fn apart(away: impl FnOnce(&mut Cluster<3>), back: impl FnOnce(&mut Cluster<3>)) {
    over_with(brief, |mut cluster: Cluster<3>| {
        let [a, b, c] = &cluster.nodes;
        let (mut witness, mut member_there) = (member(a, "w"), member(c, "c"));
        expect_added(&mut witness, "c");
        let traffic = Traffic::start(&[a, b], &[a, b, c]);
        away(&mut cluster);
        thread::sleep(BEYOND_LEASE);
        expect_removed(&mut witness, "c");
        back(&mut cluster);
        expect_added(&mut witness, "c");
        traffic.goes_on();
        traffic.complete_in_one_order();
        // The member itself has not noticed anything.
        member_there.expect_nothing();
        publish(&cluster.nodes[0], ROOM, "e", "1");
        member_there.expect_event(ROOM, "e", "1");
        witness.expect_event(ROOM, "e", "1");
    });
}

fn apart_by(flow: Flow) {
    let set = |flow| move |cluster: &mut Cluster<3>| cluster.nodes[2].proxy.set(flow);
    apart(set(flow), set(Flow::Open));
}

#[test]
fn a_node_cut_off_from_redis_loses_nothing_and_its_members_leave_and_return() {
    apart_by(Flow::Refused);
}

#[test]
fn a_node_in_a_black_hole_loses_nothing_and_its_members_leave_and_return() {
    apart_by(Flow::Swallowed);
}

#[test]
fn a_node_whose_packets_are_late_loses_nothing_and_its_members_leave_and_return() {
    apart_by(Flow::Stalled);
}

#[test]
fn a_node_that_stands_still_loses_nothing_and_its_members_leave_and_return() {
    let signal = |signal| move |cluster: &mut Cluster<3>| cluster.nodes[2].signal(signal);
    apart(signal(Signal::STOP), signal(Signal::CONT));
}

/// Keeps a node apart until its inbox is gone. Those of its clients that subscribe to anything are
/// closed, and return.
fn lost(away: impl FnOnce(&mut Cluster<2>), back: impl FnOnce(&mut Cluster<2>)) {
    let settings = |setup: Setup| {
        let setup = setup.toml("cluster.lease = 2\ncluster.retention = 2\n");
        setup.env("RINGWAVE_SHUTDOWN_WINDOW", "1")
    };
    over_with(settings, |mut cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut witness = member(a, "w");
        let (mut subscriber, mut idle) = (member(b, "b"), Client::connect(b));
        expect_added(&mut witness, "b");
        away(&mut cluster);
        expect_removed(&mut witness, "b");
        eventually("the inbox of the node is gone", || {
            let inboxes: Vec<String> = cluster.redis.ask(&format!("KEYS {TAG}in:*"));
            (inboxes.len() == 1).then_some(())
        });
        publish(&cluster.nodes[0], ROOM, "missed", "1");
        witness.expect_event(ROOM, "missed", "1");
        back(&mut cluster);
        subscriber.expect_refusal(MISSING.0, MISSING.1);
        idle.expect_nothing();
        cluster.until_joined(2);
        let mut returned = member(&cluster.nodes[1], "b");
        publish(&cluster.nodes[0], ROOM, "e", "1");
        returned.expect_event(ROOM, "e", "1");
        // The connection that was closed may have been a member again for a moment.
        let mut present = BTreeSet::new();
        members_until(&mut witness, "e", &mut present);
        assert_eq!(present, BTreeSet::from([json!("b").to_string()]));
    });
}

#[test]
fn a_node_cut_off_for_longer_than_its_inbox_is_kept_closes_its_subscribers_with_4200() {
    let set = |flow| move |cluster: &mut Cluster<2>| cluster.nodes[1].proxy.set(flow);
    lost(set(Flow::Refused), set(Flow::Open));
}

#[test]
fn a_node_that_stands_still_for_longer_than_its_inbox_is_kept_closes_its_subscribers_with_4200() {
    let signal = |signal| move |cluster: &mut Cluster<2>| cluster.nodes[1].signal(signal);
    lost(signal(Signal::STOP), signal(Signal::CONT));
}

#[test]
fn a_node_whose_inbox_is_full_closes_its_subscribers_with_4200_and_costs_others_nothing() {
    let settings =
        |setup: Setup| setup.toml("cluster.inbox = \"1M\"\n").env("RINGWAVE_SHUTDOWN_WINDOW", "0");
    over_with(settings, |cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let (mut reader, mut late) = (Client::subscribed(a, "room"), Client::subscribed(b, "room"));
        let large = "x".repeat(9000);
        b.signal(Signal::STOP);
        for _ in 0..200 {
            publish(a, "room", "e", &large);
            reader.expect_event("room", "e", &large);
        }
        b.signal(Signal::CONT);
        loop {
            let message = late.next();
            if message["event"] == "pusher:error" {
                assert_eq!(data(&message)["code"], MISSING.0);
                break;
            }
        }
        assert_eq!(late.expect_close(), (MISSING.0, MISSING.1.to_owned()));
        cluster.until_joined(2);
        let mut returned = Client::subscribed(b, "room");
        publish(a, "room", "e", "1");
        returned.expect_event("room", "e", "1");
        reader.expect_event("room", "e", "1");
    });
}

#[test]
fn closes_of_a_cut_off_are_spread_over_the_window_of_a_stop() {
    let settings =
        |setup: Setup| setup.toml("cluster.inbox = \"1M\"\n").env("RINGWAVE_SHUTDOWN_WINDOW", "2");
    over_with(settings, |cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let _flooded = Client::subscribed(b, "room");
        let mut quiet: Vec<_> = (0..20).map(|_| Client::subscribed(b, "quiet")).collect();
        b.signal(Signal::STOP);
        (0..200).for_each(|_| publish(a, "room", "e", &"x".repeat(9000)));
        b.signal(Signal::CONT);
        let closed: Vec<_> = quiet
            .iter_mut()
            .map(|client| {
                client.expect_refusal(MISSING.0, MISSING.1);
                Instant::now()
            })
            .collect();
        let lasted = closed[19] - closed[0];
        assert!(lasted >= Duration::from_secs(1), "20 closes within {lasted:?}");
    });
}

// ---- the end of a node --------------------------------------------------------------------------

#[test]
fn a_node_that_is_killed_costs_nobody_else_anything_and_its_members_leave_once() {
    over_with(brief, |cluster: Cluster<3>| {
        let Cluster { nodes: [a, b, mut c], redis } = cluster;
        let mut witnesses = [member(&a, "a"), member(&b, "b")];
        expect_added(&mut witnesses[0], "b");
        let (_one, _tab) = (member(&c, "c"), member(&c, "c"));
        let _other = Client::subscribed(&c, "of-c");
        witnesses.iter_mut().for_each(|witness| expect_added(witness, "c"));
        let traffic = Traffic::start(&[&a, &b], &[&a, &b]);
        let died = Instant::now();
        c.signal(Signal::KILL);
        c.gateway().ended();
        witnesses.iter_mut().for_each(|witness| expect_removed(witness, "c"));
        assert!(died.elapsed() < LEASE + LEEWAY, "{:?}", died.elapsed());
        eventually("its channels are gone", || {
            let own = Call::get("channels").param("filter_by_prefix", "of-");
            let answer = own.send(&a);
            // While its lease runs it may be waited for in vain.
            (answer.status == 200 && answer.json()["channels"] == json!({})).then_some(())
        });
        crate::nodes::until_joined(&redis, 2);
        traffic.complete_in_one_order();
        witnesses.iter_mut().for_each(Client::expect_nothing);
    });
}

#[test]
fn the_registrations_of_a_node_that_died_leave_redis_in_the_end() {
    let settings = |setup: Setup| setup.toml("cluster.lease = 2\ncluster.retention = 2\n");
    over_with(settings, |cluster: Cluster<2>| {
        let Cluster { nodes: [a, mut b], redis } = cluster;
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&b)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            (0..100).for_each(|number| client.ask(&format!("channel-{at}-{number}")));
            (0..100).for_each(|_| drop(client.expect("pusher_internal:subscription_succeeded")));
            client.join("presence-all", &json!({ "user_id": at }));
            client.sign_in(&json!({ "id": at.to_string(), "watchlist": ["w"] }));
        }
        let listed = Call::get("channels").ok(&a)["channels"].as_object().unwrap().len();
        assert_eq!(listed, 2001);
        b.signal(Signal::KILL);
        b.gateway().ended();
        eventually("all of it is gone", || {
            let mut left: Vec<String> = redis.ask(&format!("KEYS {TAG}*"));
            let kinds = ["mem:", "of:", "mo:", "user:", "watch:"];
            left.retain(|key| kinds.iter().any(|kind| key[TAG.len()..].starts_with(kind)));
            // One field of the channels is none of them.
            let fields: usize = redis.ask(&format!("HLEN {TAG}channels"));
            (left.is_empty() && fields == 1).then_some(())
        });
        let inboxes: Vec<String> = redis.ask(&format!("KEYS {TAG}in:*"));
        let nodes: Vec<String> = redis.ask(&format!("KEYS {TAG}node:*"));
        assert!(inboxes.len() <= 1 && nodes.len() == 1, "{inboxes:?} {nodes:?}");
    });
}

#[test]
fn a_node_that_drains_leaves_at_once() {
    let settings = |setup: Setup| setup.env("RINGWAVE_SHUTDOWN_WINDOW", "1");
    over_with(settings, |cluster: Cluster<3>| {
        let Cluster { nodes: [a, b, mut c], redis } = cluster;
        let mut witness = member(&a, "w");
        let mut leaving = member(&c, "c");
        expect_added(&mut witness, "c");
        let traffic = Traffic::start(&[&a, &b], &[&a, &b]);
        c.signal(Signal::TERM);
        let (code, _) = closed(&mut leaving);
        assert!([4102, 4200].contains(&code), "{code}");
        expect_removed(&mut witness, "c");
        assert!(c.gateway().ended().success(), "{}", c.log());
        // It does not wait for the end of a lease.
        let nodes: usize = redis.ask(&format!("ZCARD {TAG}nodes"));
        assert_eq!(nodes, 2);
        traffic.complete_in_one_order();
        witness.expect_nothing();
    });
}

/// Takes the error and the Close of a client that is sent away.
fn closed(client: &mut Client) -> (u16, String) {
    client.expect("pusher:error");
    client.expect_close()
}

#[test]
fn a_node_that_restarts_again_and_again_leaves_nothing_behind() {
    let settings = |setup: Setup| setup.env("RINGWAVE_SHUTDOWN_WINDOW", "0");
    over_with(settings, |cluster: Cluster<2>| {
        let Cluster { nodes: [a, mut b], redis } = cluster;
        let mut witness = member(&a, "w");
        for _ in 0..3 {
            drop(member(&b, "b"));
            expect_added(&mut witness, "b");
            expect_removed(&mut witness, "b");
            b.restart(Signal::TERM);
            crate::nodes::until_joined(&redis, 2);
        }
        publish(&b, ROOM, "e", "1");
        witness.expect_event(ROOM, "e", "1");
        let nodes: Vec<String> = redis.ask(&format!("KEYS {TAG}node:*"));
        assert_eq!(nodes.len(), 2);
    });
}

// ---- junk ---------------------------------------------------------------------------------------

/// Entries that no node could have written.
fn junk() -> Vec<Vec<u8>> {
    let head = |version: u8| {
        let mut head = vec![version];
        head.extend([b'a'; 32]);
        head.push(b'b');
        head.extend(u64::MAX.to_be_bytes());
        head
    };
    let with = |records: &[u8]| [head(1), records.to_vec()].concat();
    let binary = {
        let fields: [&[u8]; 5] =
            [b"4711:private-traffic", b"", b"0", b"", b"\x82\x04\xff\xff\xff\xff"];
        let mut body = Vec::new();
        for field in fields {
            body.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            body.extend(field);
        }
        let mut record = vec![b'M'];
        record.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    };
    vec![
        Vec::new(),
        b"junk".to_vec(),
        vec![0xff; 4096],
        head(2),
        with(b"M\xff\xff\xff\xff"),
        with(b"M\0\0\0\x04\0\0\0\xff"),
        with(b"?\0\0\0\0"),
        with(&[b'J'; 300]),
        with(&binary),
    ]
}

#[test]
fn junk_in_an_inbox_is_passed_over() {
    over(|mut cluster: Cluster<3>| {
        delays_only(&mut cluster, |cluster| {
            let nodes: Vec<String> = cluster.redis.ask(&format!("ZRANGE {TAG}nodes 0 -1"));
            assert_eq!(nodes.len(), 3);
            for node in &nodes {
                for entry in junk() {
                    append(&cluster.redis, node, &entry);
                }
            }
        });
        for node in &cluster.nodes {
            let log = node.log();
            assert!(log.matches("WARN").count() <= 3, "once a minute: {log}");
        }
    });
}

fn append(redis: &Redis, node: &str, entry: &[u8]) {
    let mut append = redis::cmd("XADD");
    let _id: Value = redis.query(append.arg(format!("{TAG}in:{node}")).arg("*").arg("").arg(entry));
}
