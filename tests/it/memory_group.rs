use std::process::Command;

use serde_json::Value;

use crate::client::{Client, target};
use crate::gateway::{APP_ID, KEY, SECRET, Setup, eventually};
use crate::http::Call;
use crate::left_out::left_out;
use crate::memory_limit_group::MemoryGroup;

/// A limit with room for about half of the connections that come.
const LIMIT: u64 = 32 << 20;

const CONNECTIONS: &str = "19000";

/// Connections per second: so many that the last of the memory would be gone in a quarter of a
/// second, because the watch over it may have to wait for its turn on a busy machine.
const RAMP: &str = "2500";

/// The slots that a shard's table needs for them.
const SLOTS: u64 = 19_500;

#[test]
fn a_storm_that_would_take_more_than_its_group_has_ends_nobody() {
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if nofile.is_some_and(|most| most < SLOTS) {
        return left_out(&format!("this needs tables of {SLOTS} connections (ulimit -Hn)"));
    }
    let Some(group) = MemoryGroup::new(LIMIT) else { return };
    let gateway = group.start(Setup::new(1));

    let url = format!("ws://{}", gateway.address());
    let mut storm = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    storm.args(["storm", "connect", "--json", "-d", "0.5", "-n", CONNECTIONS, "--ramp", RAMP]);
    storm.args(["--url", &url, "--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    let outcome: Value = serde_json::from_slice(&storm.output().unwrap().stdout).unwrap();

    let connections = &outcome["connections"];
    gateway.logged(&["WARN", "memory is short", "limit=\"32 MiB\""]);
    assert_eq!(connections["cut"], 0, "{connections}");
    assert!(connections["held"].as_u64().unwrap() > 1000, "{connections}");
    let refused = outcome["problems"].to_string();
    assert!(refused.contains("4100 Server is over capacity"), "{refused}");
    Call::get("channels").ok(&gateway);
    eventually("everybody is let in again", || {
        let mut client = Client::open(&gateway, &target(), &[]);
        (client.next()["event"] == "pusher:connection_established").then_some(())
    });
    drop(gateway);
}
