use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::gateway::{DEADLINE, Gateway, Setup, eventually, served, served_with};
use crate::http::{Call, Http, connections, until_connected};
use crate::raw::{self, PING, Raw};

const CHANNEL: &str = "room";

/// The data of an event: below a request's limit, and so large that few events fill any socket.
pub const EVENT_BYTES: usize = 90_000;

/// More bytes than the kernel may hold for a connection whose window is small (tcp_wmem).
pub const SOCKET_BYTES: usize = 6 << 20;

/// A subscriber that takes next to nothing unless it reads.
pub fn narrow(gateway: &Gateway) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut raw = Raw::over(stream, raw::handshake().as_bytes());
    raw.established();
    raw.send(&raw::text(r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#));
    assert!(raw.message().contains("subscription_succeeded"));
    raw
}

pub fn publisher(gateway: &Gateway) -> Http<TcpStream> {
    Http::over(gateway.tcp())
}

pub fn publish(http: &mut Http<TcpStream>, number: usize) {
    let data = format!("{number}{}", " ".repeat(EVENT_BYTES));
    let body = json!({ "name": "e", "channel": CHANNEL, "data": data });
    http.send(&Call::post("events", &body).bytes());
    let response = http.response();
    assert_eq!(response.status, 200, "{}", response.text());
}

/// The number that an event carries.
fn number(message: &str) -> usize {
    let (_, data) = message.split_once(r#""data":""#).unwrap();
    data.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn a_reader_that_stops_is_closed_and_the_others_miss_nothing() {
    served(|gateway| {
        let mut stopped = narrow(gateway);
        let mut readers: Vec<_> = (0..3).map(|_| Client::connect(gateway)).collect();
        readers.iter_mut().for_each(|client| client.subscribe(CHANNEL));
        let mut http = publisher(gateway);
        let mut published = 0;
        while connections(gateway) == 4 {
            assert!(published * EVENT_BYTES < 4 * SOCKET_BYTES, "it is never closed");
            publish(&mut http, published);
            for client in &mut readers {
                assert_eq!(number(&client.next_text()), published);
            }
            published += 1;
        }
        publish(&mut http, published);
        readers.iter_mut().for_each(|client| assert_eq!(number(&client.next_text()), published));
        // Now the client reads: whole frames in order, then the reason of its Close.
        let mut seen = 0;
        let error = loop {
            let message = stopped.message();
            if message.contains("pusher:error") {
                break message;
            }
            assert_eq!(number(&message), seen);
            seen += 1;
        };
        assert!(error.contains(r#"\"code\":4101,"#), "{error}");
        assert_eq!(stopped.expect_close(4101), "The client reads too slowly.");
        assert!(seen < published);
        gateway.logged(&["WARN", "the client reads too slowly"]);
    });
}

#[test]
fn a_reader_that_never_reads_again_is_cut() {
    served(|gateway| {
        let before = gateway.sockets();
        let stopped: Vec<_> = (0..5).map(|_| narrow(gateway)).collect();
        let mut http = publisher(gateway);
        let mut published = 0;
        while connections(gateway) > 0 {
            assert!(published * EVENT_BYTES < 4 * SOCKET_BYTES, "they are never closed");
            publish(&mut http, published);
            published += 1;
        }
        drop(http);
        eventually("no socket is left", || (gateway.sockets() <= before).then_some(()));
        for mut raw in stopped {
            // The gateway does not wait for it for ever: the stream ends, or is reset.
            let _end = std::io::copy(&mut raw.stream, &mut std::io::sink());
        }
    });
}

#[test]
fn a_reader_within_the_bound_gets_everything_late_but_whole() {
    let generous = |setup: Setup| setup.env("RINGWAVE_BACKLOG_PER_CONNECTION", "67108864");
    served_with(generous, |gateway| {
        let mut late = narrow(gateway);
        let mut http = publisher(gateway);
        let count = 2 * SOCKET_BYTES / EVENT_BYTES;
        (0..count).for_each(|number| publish(&mut http, number));
        assert_eq!(connections(gateway), 1);
        (0..count).for_each(|expected| assert_eq!(number(&late.message()), expected));
        late.expect_alive();
    });
}

#[test]
fn the_memory_for_all_slow_readers_together_is_bounded() {
    const SHARD_BYTES: usize = 4 << 20;
    let bounded = |setup: Setup| {
        let setup = setup.env("RINGWAVE_BACKLOG_PER_CONNECTION", "67108864");
        setup.env("RINGWAVE_BACKLOG_PER_SHARD", &SHARD_BYTES.to_string())
    };
    served_with(bounded, |gateway| {
        let stopped: Vec<_> = (0..20).map(|_| narrow(gateway)).collect();
        let mut reader = Client::subscribed(gateway, CHANNEL);
        let mut http = publisher(gateway);
        publish(&mut http, 0);
        assert_eq!(number(&reader.next_text()), 0);
        let before = gateway.rss();
        for number_of in 1..150 {
            publish(&mut http, number_of);
            assert_eq!(number(&reader.next_text()), number_of);
        }
        // The memory of events that waited for a late shard is given back after a while.
        let bound = gateway.shards() * SHARD_BYTES + (24 << 20);
        eventually("20 readers that were owed 13 MB each take no more than the bounds", || {
            (gateway.rss().saturating_sub(before) < bound).then_some(())
        });
        // Only the slowest are closed, as far as the bound demands; a client that reads stays.
        reader.expect_nothing();
        drop(stopped);
    });
}

#[test]
fn a_client_that_asks_and_never_reads_the_answers_is_bounded_too() {
    let impatient = |setup: Setup| {
        setup.env("REVERB_APP_PING_INTERVAL", "1").env("RINGWAVE_APP_PONG_TIMEOUT", "1")
    };
    served_with(impatient, |gateway| {
        let mut raw = narrow(gateway);
        let before = gateway.rss();
        let flood = raw::frame(0x80 | PING, &[b'x'; 125]).repeat(500);
        let started = Instant::now();
        let mut at = 0;
        while started.elapsed() < DEADLINE {
            match raw.stream.write(&flood[at..]) {
                Ok(count) => at = (at + count) % flood.len(),
                // The bytes are not taken for the moment, because the shard has not run for long.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if connections(gateway) == 0 {
                        break;
                    }
                }
                Err(_closed) => break,
            }
            let grown = gateway.rss().saturating_sub(before);
            // The receive buffers become resident, and the answers to the client's share of a turn:
            // anything else that it sends waits in its socket.
            assert!(grown < 16 << 20, "{grown} bytes");
        }
        // The client has answered no ping, because it has read none.
        until_connected(gateway, 0);
    });
}

#[test]
fn a_slow_reader_of_one_channel_is_no_trouble_for_another() {
    served(|gateway| {
        let _stopped: Vec<_> = (0..3).map(|_| narrow(gateway)).collect();
        let mut other = Client::subscribed(gateway, "private-other");
        let mut http = publisher(gateway);
        for round in 0..100 {
            publish(&mut http, round);
            crate::http::publish(gateway, "private-other", "e", &round.to_string());
            other.expect_event("private-other", "e", &round.to_string());
        }
    });
}
