use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, Http};
use crate::left_out::left_out;
use crate::reload::reload;

/// A script that stops one thread, tells that it has, and reaps the thread at the end of its
/// process, as the tracer has to (ptrace(2)). Perl is on every Debian, and needs no unsafe code
/// here.
const STOP_ONE_THREAD: &str = r#"
use POSIX; $| = 1;
my ($seize, $interrupt, $wall) = (0x4206, 0x4207, 0x40000000);
my $number = (POSIX::uname())[4] eq "x86_64" ? 101 : 117;
my $thread = $ARGV[0] + 0;
for my $request ($seize, $interrupt) {
    syscall($number, $request, $thread, 0, 0) < 0 and print("refused: $!\n"), exit 1;
}
waitpid($thread, $wall);
print "stopped\n";
waitpid($thread, $wall);
"#;

/// A thread that stands still for as long as this exists.
struct Stopped(Child);

impl Stopped {
    /// Stops a shard of the gateway. Returns `None` if threads cannot be traced here.
    fn shard(gateway: &Gateway, shard: usize) -> Option<Self> {
        let name = format!("shard-{shard}");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
        let mut tasks = tasks.map(|entry| entry.unwrap().path());
        let is_it = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let thread = tasks.find(is_it).unwrap();
        let mut perl = Command::new("perl");
        perl.args(["-e", STOP_ONE_THREAD]).arg(thread.file_name().unwrap());
        let mut perl = match perl.stdout(Stdio::piped()).spawn() {
            Ok(perl) => Self(perl),
            Err(error) => {
                left_out(&format!("there is no perl ({error})"));
                return None;
            }
        };
        let mut line = String::new();
        BufReader::new(perl.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "stopped\n" {
            left_out(&format!("threads cannot be traced here ({})", line.trim()));
            return None;
        }
        Some(perl)
    }
}

impl Drop for Stopped {
    /// Lets the thread run on.
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Opens a connection that a running shard accepts.
fn connect(gateway: &Gateway) -> Http<TcpStream> {
    eventually("a shard answers", || {
        let mut stream = gateway.tcp();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream.write_all(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
        let mut some = [0; 1024];
        let length = stream.read(&mut some).ok()?;
        assert!(some[..length].starts_with(b"HTTP/1.1 200"));
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Some(Http::over(stream))
    })
}

/// A setting with which a few requests fill a mailbox.
const LARGE_BATCHES: &str = "[app]\nmax_batch = 1000\n";

/// Publishes until the mailbox of the shard that stands still is full: then nothing more is taken.
fn fill(gateway: &Gateway) {
    let mut http = connect(gateway);
    let mut channels = 0..;
    eventually("publishes are refused", || {
        let event = |n: u32| json!({ "name": "e", "channel": format!("c{n}"), "data": "1" });
        let batch: Vec<_> = channels.by_ref().take(1000).map(event).collect();
        http.send(&Call::post("batch_events", &json!({ "batch": batch })).bytes());
        // A publish that waits for room in the mailbox is not answered.
        http.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut answer = [0; 4096];
        match http.stream.read(&mut answer) {
            Ok(length) => answer[..length].starts_with(b"HTTP/1.1 503").then_some(()),
            Err(_) => {
                http = connect(gateway);
                None
            }
        }
    });
}

/// Starts a gateway of three shards, one of which stands still with a full mailbox.
fn with_a_full_mailbox() -> Option<(Gateway, Stopped)> {
    let gateway = Setup::new(3).toml(LARGE_BATCHES).start();
    let stopped = Stopped::shard(&gateway, 1)?;
    fill(&gateway);
    Some((gateway, stopped))
}

#[test]
fn a_reload_and_the_watch_of_the_memory_go_on_while_one_shard_stands_still_with_a_full_mailbox() {
    let Some((gateway, stopped)) = with_a_full_mailbox() else { return };
    let toml =
        |limit: &str| format!("{LARGE_BATCHES}[server]\npath = \"ws\"\nmemory_limit = {limit}\n");
    for limit in ["1048576", "\"none\""] {
        std::fs::write(gateway.path("ringwave.toml"), toml(limit)).unwrap();
        let output = reload(&gateway);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(stderr.contains("shard 1 did not take the new configuration"), "{stderr}");
    }
    gateway.logged(&["ERROR", "memory is nearly spent"]);
    gateway.logged(&["INFO", "memory is not limited any more"]);
    gateway.logged(&["ERROR", "shard 1 took no message of the control thread"]);
    // The other shards work by the new configuration.
    let mut http = connect(&gateway);
    http.send(b"GET /ws/up HTTP/1.1\r\nHost: it\r\n\r\n");
    assert_eq!(http.response().status, 200);
    // So does this one as soon as it runs again.
    drop(stopped);
    gateway.logged(&["INFO", "shard 1 takes messages again"]);
    let told = String::from_utf8(reload(&gateway).stdout).unwrap();
    assert!(told.contains("nothing changed"), "{told}");
    for _ in 0..20 {
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /ws/up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(http.response().status, 200);
    }
}

#[test]
fn a_stop_ends_while_one_shard_stands_still_with_a_full_mailbox() {
    let Some((mut gateway, stopped)) = with_a_full_mailbox() else { return };
    gateway.signal(Signal::TERM);
    gateway.logged(&["connections that do not end in time are cut"]);
    gateway.logged(&["ERROR", "shard 1 did not end and is cut off"]);
    assert!(gateway.ended().success());
    drop(stopped);
}

#[test]
fn a_second_signal_ends_at_once_while_one_shard_stands_still_with_a_full_mailbox() {
    let Some((mut gateway, stopped)) = with_a_full_mailbox() else { return };
    gateway.signal(Signal::TERM);
    gateway.logged(&["Gracefully terminating connections."]);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(143));
    drop(stopped);
}
