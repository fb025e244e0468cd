use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::gateway::DEADLINE;
use crate::proxy::{Flow, Proxy};
use crate::redis_server::{Redis, RedisSetup, Sentinels, is_installed, three_masters};

/// Too short for anything that would come to arrive by chance, and short enough to wait for.
const SHORTLY: Duration = Duration::from_millis(200);

fn set(redis: &Redis, value: &str) {
    let _done: String = redis.ask(&format!("SET key {value}"));
}

fn value(redis: &Redis) -> Option<String> {
    redis.ask("GET key")
}

#[test]
fn a_redis_keeps_its_data_over_a_crash_only_if_it_is_durable() {
    if !is_installed() {
        return;
    }
    let mut redis = RedisSetup::new().durable().password("pass word#:@/").start();
    set(&redis, "1");
    redis.crash();
    redis.go_on();
    assert_eq!(value(&redis).as_deref(), Some("1"));
    redis.crash();
    redis.go_on_empty();
    assert_eq!(value(&redis), None);

    let mut forgetful = Redis::start();
    set(&forgetful, "1");
    forgetful.crash();
    forgetful.go_on();
    assert_eq!(value(&forgetful), None);
}

#[test]
fn sentinels_name_the_replica_after_a_failover() {
    if !is_installed() {
        return;
    }
    let mut sentinels = Sentinels::start();
    set(&sentinels.servers[1], "1");
    let replica = sentinels.servers[0].address();
    assert_ne!(sentinels.master(), replica);
    sentinels.fail_over();
    assert_eq!(sentinels.master(), replica);
    assert_eq!(value(&sentinels.servers[0]).as_deref(), Some("1"));
}

#[test]
fn three_masters_share_the_slots() {
    if is_installed() {
        let masters = three_masters();
        let slots: Vec<redis::Value> = masters[0].ask("CLUSTER SLOTS");
        assert_eq!(slots.len(), 3);
    }
}

/// A connection through a proxy that has said `PING` and got its answer.
fn pinged(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    ping(&mut stream);
    assert!(is_answered(&mut stream, DEADLINE));
    stream
}

fn ping(stream: &mut TcpStream) {
    stream.write_all(b"PING\r\n").unwrap();
}

/// Whether a `PONG` comes in this time.
fn is_answered(stream: &mut TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).is_ok_and(|()| answer == *b"+PONG\r\n")
}

/// Whether the proxy has broken the connection.
fn is_broken(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn a_proxy_breaks_connections_in_every_way() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address());
    let calls = || -> usize {
        let told: String = redis.ask("INFO commandstats");
        let calls = told.split_once("cmdstat_ping:calls=").map_or("0,", |(_, calls)| calls);
        calls.split_once(',').unwrap().0.parse().unwrap()
    };

    let mut cut = pinged(&proxy);
    proxy.cut();
    assert!(is_broken(&mut cut));

    let mut stalled = pinged(&proxy);
    proxy.set(Flow::Stalled);
    ping(&mut stalled);
    assert!(!is_answered(&mut stalled, SHORTLY));
    proxy.set(Flow::Open);
    assert!(is_answered(&mut stalled, DEADLINE), "what waited arrives");

    for (flow, arriving) in [(Flow::Swallowed, 0), (Flow::Unanswered, 1)] {
        let mut torn = pinged(&proxy);
        let before = calls();
        proxy.set(flow);
        ping(&mut torn);
        assert!(!is_answered(&mut torn, SHORTLY));
        assert_eq!(calls(), before + arriving, "{flow:?}");
        proxy.set(Flow::Open);
        assert!(is_broken(&mut torn), "{flow:?}");
    }

    let mut refused = pinged(&proxy);
    proxy.set(Flow::Refused);
    assert!(is_broken(&mut refused));
    assert!(is_broken(&mut TcpStream::connect(proxy.address()).unwrap()));

    proxy.set(Flow::Throttled(100));
    let started = Instant::now();
    pinged(&proxy);
    assert!(started.elapsed() > Duration::from_millis(100), "13 bytes at 100 in a second");

    let other = Redis::start();
    set(&other, "other");
    proxy.set(Flow::Open);
    proxy.turn_to(other.address());
    let client = redis::Client::open(format!("redis://{}", proxy.address())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let value: String = redis::cmd("GET").arg("key").query(&mut connection).unwrap();
    assert_eq!(value, "other");
}
