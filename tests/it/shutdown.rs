use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{DEADLINE, Gateway, SHARD_COUNTS, Setup, eventually};
use crate::http::{Call, Http};
use crate::raw::{self, Raw};
use crate::reload::reload;
use crate::status::status;

/// The Close of a server in whose place no process listens.
const RESTARTING: (u16, &str) = (4102, "Server is restarting. Please reconnect in a second.");
/// The Close of a server whose clients a successor takes.
const SHUTTING_DOWN: (u16, &str) = (4200, "Server is shutting down. Please reconnect.");

/// Runs a test with a gateway of each number of shards and with this window. The test ends the
/// gateway.
fn ended_with(window_s: u32, test: impl Fn(Gateway)) {
    for shards in SHARD_COUNTS {
        let window = window_s.to_string();
        test(Setup::new(shards).env("RINGWAVE_SHUTDOWN_WINDOW", &window).start());
    }
}

/// Takes everything until the Close frame, and answers it.
fn closed(client: &mut Client) -> Instant {
    closed_with(client, RESTARTING)
}

fn closed_with(client: &mut Client, (code, text): (u16, &str)) -> Instant {
    client.expect_error(code, text);
    let at = Instant::now();
    assert_eq!(client.expect_close(), (code, text.to_owned()));
    at
}

#[test]
fn without_a_successor_clients_are_closed_with_4102_spread_over_the_window() {
    ended_with(2, |mut gateway| {
        let mut clients: Vec<_> = (0..40).map(|_| Client::connect(&gateway)).collect();
        clients[0].subscribe("room");
        let started = Instant::now();
        gateway.signal(Signal::TERM);
        let times: Vec<_> = std::thread::scope(|scope| {
            let closing: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| closed(client))).collect();
            closing.into_iter().map(|client| client.join().unwrap() - started).collect()
        });
        assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
        let early = times.iter().filter(|&&time| time < Duration::from_millis(500)).count();
        let late = times.iter().filter(|&&time| time > Duration::from_millis(1000)).count();
        assert!(early < 20, "{early} of 40 in the first quarter: {times:?}");
        assert!(late > 10, "{late} of 40 in the second half: {times:?}");
        gateway.logged(&["INFO", "Gracefully terminating connections."]);
    });
}

#[test]
fn sigint_drains_as_sigterm_does_and_without_clients_it_ends_at_once() {
    ended_with(60, |mut gateway| {
        let started = Instant::now();
        gateway.signal(Signal::INT);
        assert_eq!(gateway.ended().code(), Some(0));
        assert!(started.elapsed() < DEADLINE);
    });
}

#[test]
fn a_window_of_zero_closes_all_at_once() {
    ended_with(0, |mut gateway| {
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&gateway)).collect();
        gateway.signal(Signal::TERM);
        clients.iter_mut().for_each(|client| _ = closed(client));
        assert_eq!(gateway.ended().code(), Some(0));
    });
}

#[test]
fn clients_that_never_answer_do_not_hold_it_up() {
    ended_with(1, |mut gateway| {
        let mute: Vec<_> = (0..10).map(|_| Raw::connect(&gateway)).collect();
        let mut idle = gateway.tcp();
        let mut half = Http::over(gateway.tcp());
        half.send(b"GET /up HTTP/1.1\r\nHost");
        let started = Instant::now();
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        drop((mute, half));
        let _end = std::io::copy(&mut idle, &mut std::io::sink());
    });
}

#[test]
fn requests_in_flight_are_answered_and_their_events_arrive() {
    ended_with(20, |mut gateway| {
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("room"));
        let mut idle = Http::over(gateway.tcp());
        idle.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(idle.response().status, 200);
        let call = Call::post("events", &json!({ "name": "e", "channel": "room", "data": "1" }));
        let bytes = call.bytes();
        let mut http = Http::over(gateway.tcp());
        let (first, rest) = bytes.split_at(bytes.len() - 5);
        // The gateway has read the head when it asks for the body.
        let head = String::from_utf8(first.to_vec()).unwrap();
        http.send(head.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1).as_bytes());
        assert_eq!(http.response().status, 100);
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        // Kept connections serve one more request.
        idle.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        let response = idle.response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        assert_eq!(idle.response().status, 0);
        http.send(rest);
        let response = http.response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(http.response().status, 0);
        let arrived = clients.iter_mut().filter_map(|client| {
            let first = client.next();
            (first["event"] == "e").then_some(())
        });
        assert!(arrived.count() > 0, "the window has just begun");
        drop(clients);
        assert_eq!(gateway.ended().code(), Some(0));
    });
}

#[test]
fn until_the_last_client_is_closed_publishes_are_answered_and_new_clients_wait_for_the_end() {
    ended_with(4, |mut gateway| {
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("room"));
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        let mut new = Client::open(&gateway, &target(), &[]);
        let call = Call::post("events", &json!({ "name": "e", "channel": "room", "data": "1" }));
        let response = call.send(&gateway);
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        let still_there = clients.iter_mut().filter_map(|client| {
            let first = client.next();
            (first["event"] == "e").then_some(())
        });
        assert!(still_there.count() > 0, "it has four seconds");
        assert_eq!(status(&gateway).0["state"], "stopping");
        // The client gets no connection_established: it is told to come back, and nothing else.
        closed(&mut new);
        drop(clients);
        assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
        assert!(TcpStream::connect(gateway.address()).is_err());
    });
}

#[test]
fn in_a_longer_drain_new_clients_are_refused_until_the_end_is_near() {
    ended_with(60, |mut gateway| {
        let held = Client::connect(&gateway);
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        Client::open(&gateway, &target(), &[]).expect_refusal(RESTARTING.0, RESTARTING.1);
        drop(held);
        assert_eq!(gateway.ended().code(), Some(0));
    });
}

#[test]
fn ctrl_c_with_one_client_takes_less_than_300_ms() {
    let mut took = Vec::new();
    // Once in ten times is enough, because the machine may be busy.
    while took.len() < 10 && took.iter().all(|took| *took >= Duration::from_millis(300)) {
        let mut gateway = Setup::new(2).start();
        let mut client = Client::subscribed(&gateway, "room");
        // This connection is like those that browsers open in advance.
        let _idle = gateway.tcp();
        let started = Instant::now();
        gateway.signal(Signal::INT);
        closed(&mut client);
        assert_eq!(gateway.ended().code(), Some(0));
        took.push(started.elapsed());
    }
    assert!(took.last() < Some(&Duration::from_millis(300)), "{took:?}");
}

#[test]
fn with_inherited_sockets_clients_are_closed_with_4200_and_new_ones_wait_for_the_successor() {
    let setup = Setup::new(2).env("RINGWAVE_SHUTDOWN_WINDOW", "2");
    let listener = TcpListener::bind(setup.address()).unwrap();
    let start = || {
        let serving = setup.command("start");
        let mut inheriting = Command::new("sh");
        let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        inheriting.args(["-c", shell]).arg(serving.get_program()).args(serving.get_args());
        inheriting.current_dir(setup.path(""));
        inheriting.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        setup.clone().start_as(&mut inheriting)
    };
    let mut first = start();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&first)).collect();
    let started = Instant::now();
    first.signal(Signal::TERM);
    let times: Vec<_> = std::thread::scope(|scope| {
        let close = |client| closed_with(client, SHUTTING_DOWN);
        let closing: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || close(client))).collect();
        closing.into_iter().map(|client| client.join().unwrap() - started).collect()
    });
    let late = times.iter().filter(|&&time| time > Duration::from_millis(1000)).count();
    assert!(late > 5, "{late} of 20 in the second half: {times:?}");
    let waiting = first.tcp();
    assert_eq!(first.ended().code(), Some(0), "{}", first.log());
    let second = start();
    let handshake = raw::handshake();
    Raw::over(waiting, handshake.as_bytes()).established();
    drop(second);
}

#[test]
fn signals_of_log_rotation_are_logged_and_change_nothing() {
    let mut gateway = Setup::new(1).start();
    let mut client = Client::connect(&gateway);
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        gateway.signal(signal);
        gateway.logged(&["INFO", name, "was ignored"]);
        client.expect_nothing();
    }
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::USR1);
    closed(&mut client);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        ended_with(60, |mut gateway| {
            let _clients: Vec<_> = (0..5).map(|_| Client::connect(&gateway)).collect();
            gateway.signal(Signal::TERM);
            gateway.logged(&["Gracefully terminating"]);
            gateway.signal(signal);
            assert_eq!(gateway.ended().code(), Some(code));
        });
    }
}

#[test]
fn under_nohup_a_hangup_is_ignored_and_the_log_says_so() {
    for shards in SHARD_COUNTS {
        let setup = Setup::new(shards);
        let serving = setup.command("start");
        let mut nohup = Command::new("nohup");
        nohup.arg(serving.get_program()).args(serving.get_args());
        nohup.current_dir(setup.path("")).stdin(std::process::Stdio::null());
        let mut gateway = setup.start_as(&mut nohup);
        let mut client = Client::connect(&gateway);
        for times in 1..=2 {
            gateway.signal(Signal::HUP);
            eventually("the log says so", || {
                (gateway.log().matches("SIGHUP was ignored").count() == times).then_some(())
            });
        }
        client.expect_nothing();
        assert!(!gateway.log().contains("configuration reloaded"));
        assert!(reload(&gateway).status.success(), "by its command it reloads");
        client.expect_nothing();
        gateway.signal(Signal::TERM);
        closed(&mut client);
        assert_eq!(gateway.ended().code(), Some(0));
    }
}

#[test]
fn when_its_terminal_closes_it_drains_and_before_that_a_hangup_does_not_end_it() {
    for shards in SHARD_COUNTS {
        let setup = Setup::new(shards).env("RINGWAVE_SHUTDOWN_WINDOW", "0");
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let inside = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let serving = setup.command("start");
        let mut in_terminal = Command::new("setsid");
        in_terminal.arg("--ctty").arg(serving.get_program()).args(serving.get_args());
        in_terminal.current_dir(setup.path("")).stdin(inside);
        let mut gateway = setup.start_as(&mut in_terminal);
        drop(in_terminal);
        let mut client = Client::connect(&gateway);
        gateway.signal(Signal::HUP);
        gateway.logged(&["configuration reloaded"]);
        client.expect_nothing();
        drop(terminal);
        closed(&mut client);
        assert_eq!(gateway.ended().code(), Some(0));
    }
}

#[test]
fn a_hangup_does_not_hurry_a_drain() {
    ended_with(2, |mut gateway| {
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&gateway)).collect();
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        gateway.signal(Signal::HUP);
        clients.iter_mut().for_each(|client| _ = closed(client));
        assert_eq!(gateway.ended().code(), Some(0));
    });
}

#[test]
fn the_file_of_a_unix_socket_goes_with_it() {
    for (shards, second) in SHARD_COUNTS.into_iter().zip([None, Some(Signal::TERM), None]) {
        let setup = Setup::new(shards).env("RINGWAVE_SHUTDOWN_WINDOW", "60");
        let socket = setup.path("gateway.sock");
        let tcp = format!("--listen=tcp://{}", setup.address());
        let unix = format!("--listen=unix://{}", socket.display());
        let mut gateway = setup.flag(&tcp).flag(&unix).start();
        let held = UnixStream::connect(&socket).unwrap();
        let client = second.map(|_| Client::connect(&gateway));
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        if let Some(second) = second {
            gateway.signal(second);
        }
        gateway.ended();
        assert!(!socket.exists());
        drop((held, client));
    }
}

#[test]
fn the_next_one_starts_on_the_same_port_at_once_and_clients_come_back() {
    ended_with(0, |gateway| {
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(&gateway)).collect();
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(http.response().status, 200);
        let address = gateway.address();
        let returning = std::thread::spawn(move || {
            clients.iter_mut().for_each(|client| _ = closed(client));
            eventually("the next one listens", || TcpStream::connect(address).ok())
        });
        let gateway = gateway.restart();
        returning.join().unwrap();
        Client::open(&gateway, &target(), &[]).established();
    });
}

#[test]
fn after_a_kill_the_next_one_starts_at_once() {
    for shards in SHARD_COUNTS {
        let mut gateway = Setup::new(shards).start();
        for _ in 0..3 {
            let clients: Vec<_> = (0..10).map(|_| Client::connect(&gateway)).collect();
            gateway = gateway.restart_after(Signal::KILL);
            drop(clients);
        }
        Client::connect(&gateway).expect_nothing();
    }
}
