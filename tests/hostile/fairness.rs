use std::time::Duration;

use serde_json::json;

use crate::bystander::{Fared, Flood, for_a_while};
use crate::client::Client;
use crate::gateway::{Gateway, Setup};
use crate::raw::{CONTINUATION, Raw, TEXT, frame, text};
use crate::sign::channel_auth;

/// The time for which the bystanders are measured with an attack and without, three times each in
/// turns.
const WHILE: Duration = Duration::from_millis(700);
const ROUNDS: usize = 3;

/// Messages that a flood sends at a time.
const AT_A_TIME: usize = 500;

/// The delay that a busy machine may add to any median, with an attack or without. Before they were
/// held off, these floods delayed all others by 195 ms and more.
const ALLOWED: Duration = Duration::from_millis(15);

/// Checks that no request of the bystanders is refused, and that their usual latency stays as it
/// was in the better half of the rounds, because the machine has neighbours.
#[track_caller]
fn others_do_not_notice(what: &str, attack: impl Fn(&Gateway) -> Vec<Flood>) {
    let _alone = crate::alone();
    for shards in [1, 2] {
        let gateway = Setup::new(shards).start();
        let mut rounds: Vec<(Fared, Fared)> = Vec::new();
        for _ in 0..ROUNDS {
            let calm = for_a_while(&gateway, WHILE);
            let floods = attack(&gateway);
            let attacked = for_a_while(&gateway, WHILE);
            let sent: u64 = floods.into_iter().map(|flood| flood.end().0).sum();
            assert!(sent > 100_000, "{what}: no flood, {sent} bytes");
            rounds.push((calm, attacked));
        }
        let refused: usize = rounds.iter().map(|(_, attacked)| attacked.refused).sum();
        let median = |of: fn(&(Fared, Fared)) -> &Fared| {
            rounds.iter().map(|round| of(round).percentile(50)).min().unwrap()
        };
        let (calm, attacked) = (median(|round| &round.0), median(|round| &round.1));
        let p99 = |of: fn(&(Fared, Fared)) -> &Fared| {
            rounds.iter().map(|round| of(round).percentile(99)).min().unwrap()
        };
        eprintln!(
            "{what}, {shards} shards: p50 {calm:?} -> {attacked:?}, p99 {:?} -> {:?}",
            p99(|round| &round.0),
            p99(|round| &round.1),
        );
        assert_eq!(refused, 0, "{what}: publishes refused, {shards} shards");
        assert!(attacked <= 2 * calm + ALLOWED, "{what}: {calm:?} -> {attacked:?}");
    }
}

fn flood(gateway: &Gateway, bytes: Vec<u8>) -> Flood {
    Flood::of(Raw::connect(gateway).stream, bytes)
}

fn subscribe_and_leave(channel: &str) -> Vec<u8> {
    let data = json!({ "channel": channel });
    let subscribe = json!({ "event": "pusher:subscribe", "data": data });
    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": data });
    [text(&subscribe.to_string()), text(&unsubscribe.to_string())].concat()
}

#[test]
fn of_subscribes_and_unsubscribes_by_one_connection() {
    others_do_not_notice("subscribes of one", |gateway| {
        let bytes = (0..AT_A_TIME).flat_map(|n| subscribe_and_leave(&format!("room-{n}")));
        vec![flood(gateway, bytes.collect())]
    });
}

#[test]
fn of_subscribes_and_unsubscribes_by_eight_connections_to_one_channel() {
    others_do_not_notice("subscribes of eight", |gateway| {
        let bytes = subscribe_and_leave("room").repeat(AT_A_TIME);
        (0..8).map(|_| flood(gateway, bytes.clone())).collect()
    });
}

/// A user who joins and leaves a presence channel again and again.
fn coming_and_going(gateway: &Gateway, user_id: usize) -> Flood {
    let client = Client::connect(gateway);
    let member = json!({ "user_id": user_id, "user_info": { "name": "x".repeat(200) } });
    let member = member.to_string();
    let auth = channel_auth(&client.socket_id, "presence-room", Some(&member));
    let data = json!({ "channel": "presence-room", "auth": auth, "channel_data": member });
    let join = json!({ "event": "pusher:subscribe", "data": data });
    let leave = json!({
        "event": "pusher:unsubscribe",
        "data": { "channel": "presence-room" },
    });
    let round = [text(&join.to_string()), text(&leave.to_string())].concat();
    Flood::of(client.socket.into_inner(), round.repeat(AT_A_TIME))
}

#[test]
fn of_users_who_come_and_go_in_a_presence_channel() {
    others_do_not_notice("presence of four", |gateway| {
        (0..4).map(|n| coming_and_going(gateway, n)).collect()
    });
}

#[test]
fn of_messages_in_fragments_of_a_byte() {
    others_do_not_notice("fragments", |gateway| {
        // The message has as many fragments as one may have, and its text has no meaning in the
        // protocol.
        let first = frame(TEXT, b" ");
        let rest = frame(CONTINUATION, b" ").repeat(900);
        let last = frame(0x80 | CONTINUATION, b" ");
        vec![flood(gateway, [first, rest, last].concat().repeat(10))]
    });
}

#[test]
fn of_pings_of_both_kinds() {
    others_do_not_notice("pings", |gateway| {
        let ping = frame(0x89, &[b'x'; 125]);
        let message = text(r#"{"event":"pusher:ping","data":{}}"#);
        let bytes = [ping, message].concat().repeat(AT_A_TIME);
        (0..2).map(|_| flood(gateway, bytes.clone())).collect()
    });
}
