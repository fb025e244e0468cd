use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{DEADLINE, Gateway, SHARD_COUNTS, Setup, eventually, served_with};
use crate::http::{Call, Http, Response};
use crate::raw;
use crate::reload::{self, reloaded};

// ---- the requests of an app ---------------------------------------------------------------------

/// Sends the request on several connections in turn, which different shards may have accepted.
fn sent_by_turns(gateway: &Gateway, call: &Call, times: usize) -> Vec<Response> {
    let mut connections: Vec<_> = (0..8).map(|_| Http::over(gateway.tcp())).collect();
    let ways = connections.len();
    let bytes = call.bytes();
    let send = |at| {
        let http: &mut Http<TcpStream> = &mut connections[at % ways];
        http.send(&bytes);
        http.response()
    };
    (0..times).map(send).collect()
}

fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

#[test]
fn an_app_sends_as_many_requests_as_it_may_over_all_shards_and_hears_when_to_come_back() {
    let setting = ("RINGWAVE_APP_MAX_REQUESTS_PER_SECOND", "20");
    served_with(
        |setup| setup.env(setting.0, setting.1),
        |gateway| {
            let started = Instant::now();
            let responses = sent_by_turns(gateway, &Call::get("channels"), 200);
            let (ok, over) = (count(&responses, 200), count(&responses, 429));
            let came = 20.0 * started.elapsed().as_secs_f64();
            assert_eq!(ok + over, 200);
            assert!(ok >= 20 && ok as f64 <= 20.0 + came + 1.0, "{ok} in {came}");
            for refused in responses.iter().filter(|response| response.status == 429) {
                assert_eq!(refused.header("retry-after"), Some("1"));
                let text = "The app may send 20 requests per second, and has sent more.";
                assert_eq!(refused.text(), text);
            }
            eventually("the app may again", || {
                (Call::get("channels").send(gateway).status == 200).then_some(())
            });
        },
    );
}

#[test]
fn requests_that_the_app_did_not_sign_use_up_none_of_its_own() {
    served_with(
        |setup| setup.env("RINGWAVE_APP_MAX_REQUESTS_PER_SECOND", "1"),
        |gateway| {
            let forged = Call { secret: "another".to_owned(), ..Call::get("channels") };
            assert_eq!(count(&sent_by_turns(gateway, &forged, 50), 401), 50);
            let mut stale = Call::get("channels");
            stale.timestamp -= 3600;
            assert_eq!(count(&sent_by_turns(gateway, &stale, 50), 401), 50);
            Call::get("channels").ok(gateway);
        },
    );
}

#[test]
fn a_reload_changes_the_rate_and_gives_nothing_back() {
    served_with(
        |setup| setup.toml("[app]\nmax_requests_per_second = 1\n"),
        |gateway| {
            let used_up = || Call::get("channels").send(gateway).status == 429;
            eventually("it is used up", || used_up().then_some(()));
            let reloaded = |toml: &str| {
                std::fs::write(gateway.path("ringwave.toml"), toml).unwrap();
                assert!(reload::reload(gateway).status.success());
            };
            reloaded("");
            let event = json!({ "name": "e", "channel": "c", "data": "1" });
            let responses = sent_by_turns(gateway, &Call::post("events", &event), 50);
            assert_eq!(count(&responses, 200), 50, "there is no limit any more");
        },
    );
}

// ---- the connections and requests of one address ------------------------------------------------

const PER_ADDRESS: &str = "RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS";
const REQUESTS: &str = "RINGWAVE_MAX_REQUESTS_PER_ADDRESS";
const TRUSTED: &str = "RINGWAVE_TRUSTED_PROXIES";

const TOO_MANY: &str = "Too many connections from your address. Please reconnect later.";
const TOO_FAST: &str = "Too many requests from your address. Please reconnect later.";

/// The address from which tests connect unless they say otherwise.
const PROXY: &str = "127.0.0.1";

const fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 0, number)
}

fn forwarded(address: &str) -> String {
    format!("X-Forwarded-For: {address}")
}

/// A WebSocket over a proxy that tells this address.
fn behind_proxy(gateway: &Gateway, address: &str) -> Client {
    Client::open(gateway, &target(), &[("X-Forwarded-For", address)])
}

fn from_host(gateway: &Gateway, number: u8) -> Client {
    Client::over(gateway.tcp_from(host(number)), gateway, &target(), &[])
}

fn limited(setup: Setup) -> Setup {
    setup.env(PER_ADDRESS, "3").env(TRUSTED, PROXY)
}

#[test]
fn a_trusted_proxy_is_believed_about_its_clients_and_a_client_about_nobody() {
    served_with(limited, |gateway| {
        let mut held: Vec<_> = (0..3)
            .map(|number| {
                // The address that the client itself sent is to the left of the proxy's.
                let mut client = behind_proxy(gateway, &format!("192.0.2.{number}, 203.0.113.1"));
                client.established();
                client
            })
            .collect();
        behind_proxy(gateway, "203.0.113.1").expect_refusal(4100, TOO_MANY);
        behind_proxy(gateway, "198.51.100.1, 203.0.113.1").expect_refusal(4100, TOO_MANY);
        behind_proxy(gateway, "203.0.113.2").established();
        held.pop();
        eventually("a place is free", || {
            let mut client = behind_proxy(gateway, "203.0.113.1");
            (client.next()["event"] == "pusher:connection_established").then_some(())
        });
        let forged = |number: u8| {
            let address = format!("203.0.113.{number}");
            let stream = gateway.tcp_from(host(1));
            Client::over(stream, gateway, &target(), &[("X-Forwarded-For", &address)])
        };
        let mut own: Vec<_> = (10..13).map(forged).collect();
        own.iter_mut().for_each(|client| drop(client.established()));
        forged(13).expect_refusal(4100, TOO_MANY);
    });
}

#[test]
fn an_ipv6_host_is_one_client_with_all_of_its_addresses() {
    served_with(limited, |gateway| {
        let mut held: Vec<_> = (1..4)
            .map(|number| behind_proxy(gateway, &format!("2001:db8:1:2:{number}::{number}")))
            .collect();
        held.iter_mut().for_each(|client| drop(client.established()));
        behind_proxy(gateway, "[2001:db8:1:2::ffff]:4711").expect_refusal(4100, TOO_MANY);
        behind_proxy(gateway, "2001:db8:1:3::1").established();
    });
}

/// Connects forty clients of one address at once. Returns those that were let in.
fn forty_at_once(gateway: &Gateway) -> Vec<Client> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..40).map(|_| scope.spawn(|| let_in(gateway))).collect();
        all.into_iter().filter_map(|one| one.join().unwrap()).collect()
    })
}

/// A client, unless its address has too many.
fn let_in(gateway: &Gateway) -> Option<Client> {
    let mut client = from_host(gateway, 1);
    if client.next()["event"] == "pusher:connection_established" {
        return Some(client);
    }
    assert_eq!(client.expect_close(), (4100, TOO_MANY.to_owned()));
    None
}

#[test]
fn an_address_has_exactly_as_many_connections_as_it_may_over_all_shards() {
    served_with(limited, |gateway| {
        for _ in 0..3 {
            // The connections of the last round are counted until the gateway has seen them end.
            let _opened = eventually("three are let in", || {
                let opened = forty_at_once(gateway);
                assert!(opened.len() <= 3, "{} are let in", opened.len());
                (opened.len() == 3).then_some(opened)
            });
            from_host(gateway, 2).established();
        }
    });
}

#[test]
fn requests_of_an_address_with_too_many_connections_are_answered_429_and_up_is_not() {
    served_with(limited, |gateway| {
        let text = "Too many connections from this address, try again later.";
        let mut held: Vec<_> = (0..3).map(|_| from_host(gateway, 1)).collect();
        held.extend((0..3).map(|_| behind_proxy(gateway, "203.0.113.1")));
        held.iter_mut().for_each(|client| drop(client.established()));
        let direct = || Http::over(gateway.tcp_from(host(1)));

        let mut http = direct();
        http.send(&Call::get("channels").bytes());
        let refused = http.response();
        assert_eq!((refused.status, refused.text().as_str()), (429, text));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(http.response().status, 0, "it closes: another may have its place");
        let mut http = direct();
        http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(http.response().status, 200);

        // A proxy's connection goes on: the next request is another client's.
        let mut http = Http::over(gateway.tcp());
        http.send(&Call::get("channels").header(&forwarded("203.0.113.1")).bytes());
        assert_eq!(http.response().status, 429);
        http.send(&Call::get("channels").header(&forwarded("203.0.113.2")).bytes());
        assert_eq!(http.response().status, 200);

        let mut waiting = direct();
        drop(held);
        eventually("whoever waited is let in when there is a place", || {
            waiting.send(&Call::get("channels").bytes());
            if waiting.response().status == 200 {
                return Some(());
            }
            waiting = direct();
            None
        });
    });
}

#[test]
fn handshakes_and_requests_of_an_address_are_held_to_its_rate_and_up_is_not() {
    served_with(
        |setup| setup.env(REQUESTS, "2").env(TRUSTED, PROXY),
        |gateway| {
            let from = |address: &str| Call::get("channels").header(&forwarded(address));
            let started = Instant::now();
            let responses = sent_by_turns(gateway, &from("203.0.113.1"), 60);
            let (ok, over) = (count(&responses, 200), count(&responses, 429));
            let came = 2.0 * started.elapsed().as_secs_f64();
            assert_eq!(ok + over, 60);
            assert!(ok >= 10 && ok as f64 <= 10.0 + came + 1.0, "{ok} in {came}");
            let refused = responses.iter().find(|response| response.status == 429).unwrap();
            let text = "Too many requests from this address, try again later.";
            assert_eq!(refused.text(), text);
            assert_eq!(refused.header("retry-after"), Some("1"));

            eventually("a handshake is too much as well", || {
                let mut client = behind_proxy(gateway, "203.0.113.1");
                if client.next()["event"] == "pusher:connection_established" {
                    return None;
                }
                assert_eq!(client.expect_close(), (4100, TOO_FAST.to_owned()));
                Some(())
            });
            behind_proxy(gateway, "203.0.113.2").established();
            let up =
                format!("GET /up HTTP/1.1\r\nHost: it\r\n{}\r\n\r\n", forwarded("203.0.113.1"));
            for _ in 0..30 {
                let mut http = Http::over(gateway.tcp());
                http.send(up.as_bytes());
                assert_eq!(http.response().status, 200);
            }
            eventually("it may again", || {
                (from("203.0.113.1").send(gateway).status == 200).then_some(())
            });
        },
    );
}

#[test]
fn one_host_that_says_nothing_does_not_keep_others_from_the_api() {
    let few = |setup| limited(setup).env("RINGWAVE_MAX_HTTP_CONNECTIONS", "100");
    served_with(few, |gateway| {
        // Without a limit these connections would hold every place until their heads are due.
        let silent: Vec<_> = (0..600).map(|_| gateway.tcp_from(host(1))).collect();
        let closed = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        eventually("most are closed unheard", || {
            let left = silent.iter().filter(|stream| !closed(stream)).count();
            (left <= 3 + 64).then_some(())
        });
        Call::get("channels").ok(gateway);
        from_host(gateway, 2).established();
    });
}

#[test]
fn the_log_of_a_connection_names_its_client() {
    served_with(
        |setup| limited(setup).flag("--debug"),
        |gateway| {
            behind_proxy(gateway, "203.0.113.77").established();
            gateway.logged(&["connection established", "client=203.0.113.77"]);
            from_host(gateway, 3).established();
            gateway.logged(&["connection established", "client=127.9.0.3"]);
        },
    );
}

#[test]
fn over_a_unix_socket_the_proxy_is_believed_unless_it_is_not_to_be() {
    for (trusted, refused) in [("unix", true), ("none", false)] {
        for shards in SHARD_COUNTS {
            let setup = Setup::new(shards).env(PER_ADDRESS, "1").env(TRUSTED, trusted);
            let path = setup.path("gateway.sock");
            let listen =
                [format!("tcp://{}", setup.address()), format!("unix://{}", path.display())];
            let setup = listen.iter().fold(setup, |s, place| s.flag(&format!("--listen={place}")));
            let gateway = setup.start();
            let mut held = Vec::new();
            for expected in [false, refused] {
                let stream = UnixStream::connect(&path).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let head = raw::handshake();
                let head = head.replacen("\r\n\r\n", "\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n", 1);
                let mut http = Http::over(stream);
                http.send(head.as_bytes());
                assert_eq!(http.response().status, 101);
                let (mut stream, mut received) = http.into_parts();
                while received.len() < 60 {
                    let mut buffer = [0; 1024];
                    let count = stream.read(&mut buffer).unwrap();
                    received.extend(&buffer[..count]);
                }
                // The code alone does not tell it, because a socket id may have the same digits.
                let told = String::from_utf8_lossy(&received).contains("pusher:error");
                assert_eq!(told, expected, "{trusted}");
                held.push(stream);
            }
            drop(gateway);
        }
    }
}

#[test]
fn limits_that_a_proxy_would_share_among_its_clients_are_spoken_of() {
    let check = |variables: &[(&str, &str)]| {
        let setup = Setup::new(1).env(PER_ADDRESS, "10");
        let setup = variables.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        String::from_utf8(setup.output("check").stdout).unwrap()
    };
    let note = "Note: The limits per address:";
    assert!(check(&[]).contains(note), "nginx on this host would be one client");
    assert!(!check(&[(TRUSTED, PROXY)]).contains(note));
    assert!(check(&[(TRUSTED, "\"10.0.0.0/8, unix, ::1\"")]).contains("10.0.0.0/8, unix, ::1"));
}

// ---- memory -------------------------------------------------------------------------------------

const OVER_CAPACITY: &str = "Server is over capacity. Please reconnect later.";

#[test]
fn without_memory_nobody_is_let_in_and_nothing_is_published_but_questions_are_answered() {
    for shards in SHARD_COUNTS {
        let gateway = &Setup::new(shards).start();
        let mut number = 0;
        // Each stays in its cache channel.
        let mut publish = || {
            number += 1;
            let channel = format!("cache-{number}");
            let event = json!({ "name": "e", "channel": channel, "data": " ".repeat(90_000) });
            Call::post("events", &event).send(gateway)
        };
        assert_eq!(publish().status, 200);
        // The limit bounds the memory that clients make the process hold, so only a lowered limit
        // gets spent.
        reloaded(gateway, "[server]\nmemory_limit = 1048576\n");
        gateway.logged(&["ERROR", "memory is nearly spent"]);
        let mut refused =
            || eventually("it is spent", || Some(publish()).filter(|r| r.status == 503));
        refused();
        eventually("every shard has heard of it", || {
            let mut clients: Vec<_> =
                (0..60).map(|_| Client::open(gateway, &target(), &[])).collect();
            let refused = |client: &mut Client| client.next()["event"] == "pusher:error";
            clients.iter_mut().all(refused).then_some(())
        });
        for _ in 0..20 {
            Client::open(gateway, &target(), &[]).expect_refusal(4100, OVER_CAPACITY);
            assert_eq!(refused().header("retry-after"), Some("1"));
            Call::get("channels").ok(gateway);
        }
    }
}

#[test]
fn when_memory_is_short_the_slowest_go_and_all_others_stay_and_are_served() {
    const EVENT_BYTES: usize = 90_000;
    for shards in SHARD_COUNTS {
        let generous = |setup: Setup| {
            let setup = setup.env("RINGWAVE_BACKLOG_PER_CONNECTION", "1073741824");
            setup.env("RINGWAVE_BACKLOG_PER_SHARD", "200000000")
        };
        let gateway = &generous(Setup::new(shards)).start();
        let idle = gateway.rss();
        let mut reader = Client::subscribed(gateway, "room");
        let slow = Client::subscribed(gateway, "room");

        let data = " ".repeat(EVENT_BYTES);
        let event = json!({ "name": "e", "channel": "room", "data": data });
        let publish = || Call::post("events", &event).send(gateway).status;
        // Memory grows by the events that the slow client does not read.
        eventually("memory grows", || {
            assert_eq!(publish(), 200);
            reader.expect_event("room", "e", &data);
            (gateway.rss() > idle + (60 << 20)).then_some(())
        });
        // Less than the reserve is left of this limit, and more than two fifths of it.
        let limit = gateway.rss() + (6 << 20);
        reloaded(gateway, &format!("[server]\nmemory_limit = {limit}\n"));
        gateway.logged(&["memory is"]);
        eventually("a new connection is refused, or it is over again", || {
            // The memory of the slow client may be given back before this test has its turn.
            if gateway.log().contains("there is enough memory again") {
                return Some(());
            }
            let mut client = Client::open(gateway, &target(), &[]);
            if client.next()["event"] == "pusher:connection_established" {
                return None;
            }
            assert_eq!(client.expect_close(), (4100, OVER_CAPACITY.to_owned()));
            Some(())
        });
        eventually("publishing goes on", || (publish() == 200).then_some(()));
        reader.expect_event("room", "e", &data);
        gateway.logged(&["WARN", "the client reads too slowly"]);
        gateway.logged(&["INFO", "there is enough memory again"]);
        eventually("everybody is let in", || {
            let mut client = Client::open(gateway, &target(), &[]);
            (client.next()["event"] == "pusher:connection_established").then_some(())
        });
        reader.expect_nothing();
        drop(slow);
    }
}
