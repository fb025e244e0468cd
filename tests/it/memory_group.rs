use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, target};
use crate::gateway::{APP_ID, KEY, SECRET, Setup, eventually};
use crate::http::Call;
use crate::left_out::left_out;

/// Room for about half of the connections that come.
const LIMIT: u64 = 32 << 20;

const CONNECTIONS: &str = "19000";

/// So many per second that the last of the memory would be gone in a quarter of a second: who looks
/// after it may have to wait for its turn on a busy machine.
const RAMP: &str = "2500";

/// What a shard's table has to have for them.
const SLOTS: u64 = 19_500;

/// A control group with a limit of memory; gone when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Of version 1 or 2, whichever this host has and lets us have.
    fn new() -> io::Result<Self> {
        let name = format!("ringwave-it-{}", std::process::id());
        let roots =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut failed = io::ErrorKind::NotFound.into();
        for (root, limit) in roots {
            let group = PathBuf::from(root).join(&name);
            match fs::create_dir(&group).map(|()| Self(group)) {
                Ok(group) => match group.limited(limit) {
                    Ok(()) => return Ok(group),
                    Err(error) => failed = error,
                },
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn limited(&self, file: &str) -> io::Result<()> {
        let file = self.0.join(file);
        // Where there is no such file, this would make one, if that is no group at all.
        if !file.exists() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        fs::write(file, LIMIT.to_string())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its last process may still be ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_storm_that_would_take_more_than_its_group_has_ends_nobody() {
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if nofile.is_some_and(|most| most < SLOTS) {
        return left_out(&format!("this needs tables of {SLOTS} connections (ulimit -Hn)"));
    }
    let group = match MemoryGroup::new() {
        Ok(group) => group,
        Err(error) => {
            return left_out(&format!("no control group of memory can be made here ({error})"));
        }
    };
    let setup = Setup::new(1);
    let plain = setup.command("start");
    let mut grouped = Command::new("sh");
    grouped.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&group.0);
    grouped.arg(plain.get_program()).args(plain.get_args());
    grouped.current_dir(plain.get_current_dir().unwrap());
    // It is looked at when it is dropped: the kernel has not ended it.
    let gateway = setup.start_as(&mut grouped);

    let url = format!("ws://{}", gateway.address());
    let mut storm = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    storm.args(["storm", "connect", "--json", "-d", "0.5", "-n", CONNECTIONS, "--ramp", RAMP]);
    storm.args(["--url", &url, "--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    let outcome: Value = serde_json::from_slice(&storm.output().unwrap().stdout).unwrap();

    let connections = &outcome["connections"];
    gateway.logged(&["WARN", "memory is short", "limit=32 MiB"]);
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
