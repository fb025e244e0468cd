use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{APP_ID, DEADLINE, Gateway, Setup, eventually, served, served_with};
use crate::http::{Call, Http, connections, until_connected};
use crate::reload::reloaded;
use crate::slow::{self, EVENT_BYTES, SOCKET_BYTES, narrow, publisher};

const OVER_CAPACITY: &str = "Server is over capacity. Please reconnect later.";
const TOO_MANY: &str = "Too many connections from your address. Please reconnect later.";

/// Reloads the gateway with these lines of `[server]`.
#[track_caller]
fn set(gateway: &Gateway, lines: &str) {
    let told = reloaded(gateway, &format!("[server]\n{lines}\n"));
    assert!(!told.contains("restart"), "{told}");
}

fn from_host(gateway: &Gateway, number: u8) -> Client {
    Client::over(gateway.tcp_from(Ipv4Addr::new(127, 8, 0, number)), gateway, &target(), &[])
}

fn behind_proxy(gateway: &Gateway, address: &str) -> Client {
    Client::open(gateway, &target(), &[("X-Forwarded-For", address)])
}

fn is_admitted(mut client: Client) -> Option<Client> {
    (client.next()["event"] == "pusher:connection_established").then_some(client)
}

#[test]
fn debug_lines_come_and_go() {
    served(|gateway| {
        let debug_lines = || gateway.log().matches(" DEBUG ").count();
        Client::connect(gateway).expect_nothing();
        assert_eq!(debug_lines(), 0);
        set(gateway, "debug = true");
        let mut client = Client::subscribed(gateway, "room");
        gateway.logged(&[" DEBUG "]);
        set(gateway, "debug = false");
        // No other line of a connection comes behind this one.
        gateway.logged(&["INFO", "server.debug: true -> false"]);
        client.subscribe("another-room");
        Client::connect(gateway).expect_nothing();
        set(gateway, "");
        assert!(!gateway.log().contains("another-room"));
    });
}

/// Whether the gateway closes this connection, on which half a head is sent, within its time.
fn closes(mut stream: TcpStream) -> bool {
    stream.write_all(b"GET /up HTTP/1.1\r\nHo").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).is_ok() && answer.is_empty()
}

#[test]
fn the_time_for_a_head_changes_for_new_connections_and_for_those_that_are_kept() {
    served_with(
        |setup| setup.env("RINGWAVE_HEADER_TIMEOUT", "300"),
        |gateway| {
            // The environment hides the file.
            let told = reloaded(gateway, "[server]\nheader_timeout = 1\n");
            assert!(told.contains("nothing changed"), "{told}");
            let dotenv = std::fs::read_to_string(gateway.path(".env")).unwrap();
            let dotenv = dotenv.replace("RINGWAVE_HEADER_TIMEOUT=300", "");
            let mut kept = Http::over(gateway.tcp());
            let mut up = || {
                kept.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
                assert_eq!(kept.response().status, 200);
            };
            up();
            std::fs::write(gateway.path(".env"), dotenv).unwrap();
            let told = reloaded(gateway, "[server]\nheader_timeout = 1\n");
            assert!(told.contains("server.header_timeout: 300 -> 1"), "{told}");
            up();
            assert!(closes(kept.into_parts().0), "the next head on a kept connection");
            assert!(closes(gateway.tcp()), "the first head");
        },
    );
}

#[test]
fn the_limit_of_connections_per_address_begins_changes_and_ends() {
    served(|gateway| {
        // Connections were not counted when these came.
        let mut before: Vec<_> = (0..3).map(|_| from_host(gateway, 1)).collect();
        before.iter_mut().for_each(|client| drop(client.established()));
        let mut kept = Http::over(gateway.tcp_from(Ipv4Addr::new(127, 8, 0, 2)));
        kept.send(&Call::get("channels").bytes());
        assert_eq!(kept.response().status, 200);

        set(gateway, "max_connections_per_address = 2");
        let mut held: Vec<_> = (0..2).map(|_| from_host(gateway, 1)).collect();
        held.iter_mut().for_each(|client| drop(client.established()));
        from_host(gateway, 1).expect_refusal(4100, TOO_MANY);
        // A connection for requests from before is counted with its next request.
        kept.send(&Call::get("channels").bytes());
        assert_eq!(kept.response().status, 200);
        let mut other = from_host(gateway, 2);
        other.established();
        from_host(gateway, 2).expect_refusal(4100, TOO_MANY);

        set(gateway, "max_connections_per_address = 3");
        held.push(from_host(gateway, 1));
        held.last_mut().unwrap().established();
        from_host(gateway, 1).expect_refusal(4100, TOO_MANY);
        set(gateway, "");
        for _ in 0..5 {
            held.push(from_host(gateway, 1));
            held.last_mut().unwrap().established();
        }
        before.iter_mut().chain(&mut held).for_each(Client::expect_nothing);
        // Connections that were counted when the limit ended still count when there is one again.
        set(gateway, "max_connections_per_address = 3");
        from_host(gateway, 1).expect_refusal(4100, TOO_MANY);
    });
}

#[test]
fn the_limit_of_requests_per_address_begins_and_ends() {
    served(|gateway| {
        let send = || Call::get("channels").send(gateway).status;
        assert!((0..20).all(|_| send() == 200));
        set(gateway, "max_requests_per_address = 1");
        eventually("there are too many", || (send() == 429).then_some(()));
        set(gateway, "");
        assert!((0..20).all(|_| send() == 200));
    });
}

#[test]
fn a_proxy_is_trusted_and_distrusted_also_on_the_connections_that_it_keeps() {
    let limited = |setup: Setup| setup.toml("[server]\nmax_connections_per_address = 1\n");
    let trusting = "max_connections_per_address = 1\ntrusted_proxies = \"127.0.0.1\"";
    served_with(limited, |gateway| {
        let request = |http: &mut Http<TcpStream>, address: &str| {
            let forwarded = format!("X-Forwarded-For: {address}");
            http.send(&Call::get("channels").header(&forwarded).bytes());
            http.response().status
        };
        let mut kept = eventually("the connection of the start is gone", || {
            let mut http = Http::over(gateway.tcp());
            (request(&mut http, "203.0.113.1") == 200).then_some(http)
        });
        let mut get = |address: &str| request(&mut kept, address);
        behind_proxy(gateway, "203.0.113.1").expect_refusal(4100, TOO_MANY);

        set(gateway, trusting);
        // From its next request on, it is no client of its own any more.
        let mut held: Vec<_> = (1..4)
            .map(|number| {
                let mut client = behind_proxy(gateway, &format!("203.0.113.{number}"));
                client.established();
                client
            })
            .collect();
        assert_eq!(get("203.0.113.9"), 200);
        assert_eq!(get("203.0.113.1"), 429, "that client has its one connection");
        behind_proxy(gateway, "203.0.113.1").expect_refusal(4100, TOO_MANY);

        set(gateway, "max_connections_per_address = 1\ntrusted_proxies = \"none\"");
        assert_eq!(get("203.0.113.1"), 200, "what it tells of its clients counts no more");
        behind_proxy(gateway, "203.0.113.7").expect_refusal(4100, TOO_MANY);
        held.iter_mut().for_each(Client::expect_nothing);
    });
}

#[test]
fn the_limit_of_memory_changes() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let open = || Client::open(gateway, &target(), &[]);
        set(gateway, "memory_limit = 1048576");
        gateway.logged(&["ERROR", "memory is nearly spent"]);
        eventually("all shards know", || {
            (0..8).all(|_| is_admitted(open()).is_none()).then_some(())
        });
        open().expect_refusal(4100, OVER_CAPACITY);
        let event = json!({ "name": "e", "channel": "room", "data": "1" });
        assert_eq!(Call::post("events", &event).send(gateway).status, 503);
        client.expect_nothing();
        for lines in
            ["memory_limit = \"none\"", "memory_limit = 1048576", "memory_limit = 1125899906842624"]
        {
            set(gateway, lines);
            let short = lines.ends_with("1048576");
            eventually(lines, || {
                (0..8).all(|_| is_admitted(open()).is_none() == short).then_some(())
            });
        }
        Call::post("events", &event).ok(gateway);
    });
}

/// A gateway with a reader that has stopped reading and is owed much more than its socket takes,
/// which is allowed.
fn owing(gateway: &Gateway) -> (crate::raw::Raw, Http<TcpStream>) {
    let stopped = narrow(gateway);
    let mut http = publisher(gateway);
    (0..2 * SOCKET_BYTES / EVENT_BYTES).for_each(|number| slow::publish(&mut http, number));
    assert_eq!(connections(gateway), 1);
    (stopped, http)
}

fn generous(setup: Setup) -> Setup {
    setup.toml("[server]\nbacklog_per_connection = 67108864\n")
}

#[test]
fn the_bound_on_what_waits_for_one_reader_changes() {
    served_with(generous, |gateway| {
        let (_stopped, mut http) = owing(gateway);
        set(gateway, "backlog_per_connection = 100000");
        // The bound holds for events that are queued from now on.
        slow::publish(&mut http, 0);
        until_connected(gateway, 0);
        gateway.logged(&["WARN", "reads too slowly", "100000 bytes"]);
    });
}

#[test]
fn the_bound_on_what_waits_on_one_shard_changes() {
    served_with(generous, |gateway| {
        let (_stopped, _http) = owing(gateway);
        set(gateway, "backlog_per_connection = 67108864\nbacklog_per_shard = 100000");
        until_connected(gateway, 0);
    });
}

#[test]
fn the_prefix_of_paths_changes() {
    served(|gateway| {
        let status = |path: &str| {
            let mut http = Http::over(gateway.tcp());
            http.send(format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
            http.response().status
        };
        assert_eq!(status("/ws/up"), 404);
        set(gateway, "path = \"ws\"");
        assert_eq!((status("/ws/up"), status("/up")), (200, 200));
        Client::open(gateway, &format!("/ws{}", target()), &[]).established();
        let path = format!("/ws/apps/{APP_ID}/channels");
        Call { path, ..Call::get("channels") }.ok(gateway);
        set(gateway, "");
        assert_eq!((status("/ws/up"), status("/up")), (404, 200));
    });
}

#[test]
fn the_service_manager_is_told_the_name_that_is_in_force() {
    let setup = Setup::new(2);
    let socket = setup.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = setup.command("start");
    command.env("NOTIFY_SOCKET", &socket);
    let gateway = setup.start_as(&mut command);
    let ready = || loop {
        let mut text = [0; 1000];
        let length = manager.recv(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        if text.starts_with("READY=1") {
            return text;
        }
    };
    assert!(!ready().contains("(ws.test)"));
    set(&gateway, "hostname = \"ws.test\"");
    assert!(ready().ends_with("(ws.test)"));
}

#[test]
fn the_bound_on_webhooks_that_wait_changes() {
    served_with(
        |setup| {
            let url = "http://127.0.0.1:9/";
            setup.toml(&format!(
                "[[apps]]\napp_id = \"{APP_ID}\"\n[[apps.webhooks]]\nurl = \"{url}\"\n"
            ))
        },
        |gateway| {
            let mut client = Client::connect(gateway);
            let started = Instant::now();
            let mut occupy = |from: usize| {
                let names = (from..from + 500).map(|n| format!("{n:0>200}"));
                names.for_each(|name| client.subscribe(&name));
            };
            occupy(0);
            let toml = std::fs::read_to_string(gateway.path("ringwave.toml")).unwrap();
            reloaded(gateway, &format!("[server]\nwebhook_queue = 65536\n{toml}"));
            assert!(!gateway.log().contains("overflowed"), "within {:?}", started.elapsed());
            occupy(500);
            gateway.logged(&["WARN", "webhook events are lost"]);
        },
    );
}
