use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::client::Client;
use crate::gateway::{DEADLINE, Gateway, Setup};
use crate::http::{Call, Http};
use crate::left_out::left_out;

/// The number of connections of the attack: more than the gateway has descriptors.
const IDLE: usize = 1_500;

/// Starts a gateway that may have so many descriptors.
fn limited(setup: Setup, nofile: u32) -> Gateway {
    let serving = setup.command("start");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {nofile}; exec \"$0\" \"$@\"")]);
    limited.arg(serving.get_program()).args(serving.get_args());
    limited.current_dir(setup.path("")).stdin(Stdio::null());
    setup.start_as(&mut limited)
}

/// Whether this process may open the other ends of the connections.
fn connections_can_be_had() -> bool {
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let enough = nofile.is_none_or(|nofile| nofile >= 2_000);
    if !enough {
        left_out("this needs 2,000 descriptors (ulimit -n)");
    }
    enough
}

/// Checks that everything that needs a descriptor works.
#[track_caller]
fn works(gateway: &Gateway) {
    for turn in 0..5 {
        let mut reload = Command::new(env!("CARGO_BIN_EXE_ringwave"));
        let reload = reload.arg("reload").current_dir(gateway.path("")).stdin(Stdio::null());
        let reloaded = reload.output().unwrap();
        let text = String::from_utf8_lossy(&reloaded.stderr).into_owned();
        assert!(reloaded.status.success(), "{turn}: {text}");
        let begun = Instant::now();
        let mut client = Client::connect(gateway);
        client.subscribe("c");
        let body = json!({ "name": "e", "channel": "c", "data": turn.to_string() });
        Call::post("events", &body).ok(gateway);
        client.expect_event("c", "e", &turn.to_string());
        assert!(begun.elapsed() < DEADLINE);
    }
    let (descriptors, sockets) = (gateway.descriptors(), gateway.sockets());
    assert!(descriptors < 1_000, "{descriptors} descriptors are open");
    assert!(sockets < 1_000, "{sockets} sockets are open");
}

#[test]
fn idle_http_connections_leave_descriptors_for_reload_publishes_and_new_websockets() {
    let _alone = crate::alone();
    if !connections_can_be_had() {
        return;
    }
    for shards in [1, 2] {
        let gateway = limited(Setup::new(shards), 1_024);
        // These are connections of health checks and publishers: each that was accepted has had its
        // answer.
        let up = b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n";
        let held: Vec<_> = (0..IDLE)
            .map(|_| {
                let mut http = Http::over(gateway.tcp());
                http.send(up);
                http
            })
            .collect();
        works(&gateway);
        gateway.logged(&["WARN", "idle HTTP connections are closed to make room"]);
        assert!(!gateway.log().contains("connections cannot be accepted"), "{}", gateway.log());
        // The connection that was served last is still open: the longest idle are closed first.
        drop(held);
    }
}

#[test]
fn connections_that_say_nothing_leave_them_as_well() {
    let _alone = crate::alone();
    if !connections_can_be_had() {
        return;
    }
    let gateway = limited(Setup::new(2), 1_024);
    let held: Vec<TcpStream> = (0..IDLE).map(|_| gateway.tcp()).collect();
    works(&gateway);
    drop(held);
}

#[test]
fn requests_in_service_are_not_ended_for_new_connections() {
    let _alone = crate::alone();
    if !connections_can_be_had() {
        return;
    }
    let gateway = limited(Setup::new(1), 1_024);
    let call = Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
    let bytes = call.bytes();
    let (most, rest) = bytes.split_at(bytes.len() - 1);
    let mut slow: Vec<_> = (0..20).map(|_| Http::over(gateway.tcp())).collect();
    slow.iter_mut().for_each(|http| http.send(most));
    let held: Vec<TcpStream> = (0..IDLE).map(|_| gateway.tcp()).collect();
    works(&gateway);
    for http in &mut slow {
        http.send(rest);
        assert_eq!(http.response().status, 200);
    }
    drop(held);
}
