use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::bystander::{Flood, for_a_while};
use crate::client::Client;
use crate::gateway::{Gateway, Setup};
use crate::http::publish;
use crate::raw::{Raw, text};
use crate::sign::channel_auth;

/// The bytes by which the process may grow, whatever one connection asks for.
const GROWTH_MAX: usize = 20 << 20;

/// Bytes that the attacker sends.
const SENT: usize = 1 << 20;

/// The largest memory that the process has had in use, in bytes.
fn peak(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Sends the message many times at once, from a client that reads nothing until the gateway has had
/// time to answer: until others were served for a while, or the gateway ends the connection.
fn grows_little(gateway: &Gateway, mut raw: Raw, message: &str) {
    let before = peak(gateway);
    let burst = text(message).repeat(SENT / message.len());
    raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Bytes that it does not take in time wait in the sockets.
    let _slowed = raw.stream.write_all(&burst);
    let others = for_a_while(gateway, Duration::from_millis(500));
    assert_eq!(others.refused, 0);
    let growth = peak(gateway).saturating_sub(before);
    eprintln!("{}: {} kB for {} kB", &message[..40], growth / 1024, SENT / 1024);
    assert!(growth < GROWTH_MAX, "{} MB for {message}", growth >> 20);
}

#[test]
fn repeated_subscribes_to_a_cache_channel_share_its_event() {
    let _alone = crate::alone();
    for shards in [1, 2] {
        let gateway = Setup::new(shards).start();
        publish(&gateway, "cache-news", "update", &"x".repeat(90_000));
        let mut raw = Raw::connect(&gateway);
        let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"cache-news"}}"#;
        raw.send(&text(subscribe));
        grows_little(&gateway, raw, subscribe);
    }
}

#[test]
fn a_reader_gets_every_answer_of_its_repeated_subscribes() {
    let _alone = crate::alone();
    let gateway = Setup::new(2).start();
    let event = "x".repeat(50_000);
    publish(&gateway, "cache-news", "update", &event);
    let before = peak(&gateway);
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"cache-news"}}"#;
    let mut raw = Raw::connect(&gateway);
    let repeats = 2000;
    let mut writer = raw.stream.try_clone().unwrap();
    let burst = text(subscribe).repeat(repeats);
    let sending = std::thread::spawn(move || writer.write_all(&burst).unwrap());
    for _ in 0..repeats {
        assert!(raw.message().contains("subscription_succeeded"));
        assert!(raw.message().contains(&event));
    }
    sending.join().unwrap();
    raw.expect_alive();
    assert!(peak(&gateway) - before < GROWTH_MAX);
}

#[test]
fn repeated_subscribes_to_a_presence_channel_share_its_list() {
    let _alone = crate::alone();
    const ROOM: &str = "presence-room";
    let gateway = Setup::new(2).start();
    let member = |n: usize| json!({ "user_id": n, "user_info": { "name": "x".repeat(900) } });
    let members: Vec<_> = (0..60)
        .map(|n| {
            let mut client = Client::connect(&gateway);
            client.ask_as(ROOM, &member(n));
            client
        })
        .collect();
    let mut raw = Raw::open(&gateway, crate::raw::handshake().as_bytes());
    let established = raw.established();
    let (_, rest) = established.split_once(r#"\"socket_id\":\""#).unwrap();
    let (socket_id, _) = rest.split_once('\\').unwrap();
    let me = member(1000).to_string();
    let auth = channel_auth(socket_id, ROOM, Some(&me));
    let data = json!({ "channel": ROOM, "auth": auth, "channel_data": me });
    let join = json!({ "event": "pusher:subscribe", "data": data }).to_string();
    raw.send(&text(&join));
    grows_little(&gateway, raw, &join);
    drop(members);
}

#[test]
fn everybody_else_is_served_while_somebody_asks_for_large_answers_for_ever() {
    let _alone = crate::alone();
    let gateway = Setup::new(2).start();
    publish(&gateway, "cache-news", "update", &"x".repeat(90_000));
    let calm = for_a_while(&gateway, Duration::from_secs(1));
    let subscribe = text(r#"{"event":"pusher:subscribe","data":{"channel":"cache-news"}}"#);
    let flood = Flood::of(Raw::connect(&gateway).stream, subscribe.repeat(500));
    let attacked = for_a_while(&gateway, Duration::from_secs(1));
    let (sent, read) = flood.end();
    let (before, after) = (calm.percentile(50), attacked.percentile(50));
    eprintln!("{before:?} -> {after:?}, {sent} bytes sent, {read} read");
    assert_eq!(attacked.refused, 0);
    assert!(after <= 2 * before + Duration::from_millis(15), "{before:?} -> {after:?}");
}

#[test]
fn many_who_ask_and_never_read_hold_up_nobody() {
    let _alone = crate::alone();
    let gateway = Setup::new(2).start();
    publish(&gateway, "cache-news", "update", &"x".repeat(90_000));
    let before = peak(&gateway);
    let burst =
        text(r#"{"event":"pusher:subscribe","data":{"channel":"cache-news"}}"#).repeat(2000);
    let floods: Vec<_> = (0..60)
        .map(|_| {
            let mut raw = Raw::connect(&gateway);
            raw.stream.set_nonblocking(true).unwrap();
            // This writes as much as the sockets take.
            let _rest = raw.stream.write(&burst).unwrap();
            raw
        })
        .collect();
    let others = for_a_while(&gateway, Duration::from_secs(1));
    let growth = peak(&gateway).saturating_sub(before);
    eprintln!("p50 {:?}, {} kB beside 60 of them", others.percentile(50), growth / 1024);
    assert_eq!(others.refused, 0);
    assert!(others.latencies.len() > 20, "{} events in a second", others.latencies.len());
    assert!(growth < 2 * GROWTH_MAX, "{} MB", growth >> 20);
    drop(floods);
}
