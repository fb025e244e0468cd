//! A Redis of the bench's own, in a process of its own.

use std::cell::RefCell;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, RedisResult};

use crate::nodes::free_port;

/// The longest wait for anything that has to happen. A measurement behind it means nothing.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The part of the keys that comes first, with the default name and one partition.
pub(crate) const TAG: &str = "{ringwave:reverb:0}:";

/// A running server, which ends when this is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
    /// The connection for questions.
    questions: RefCell<Connection>,
}

impl Redis {
    /// Starts a server that keeps nothing on disk, never drops a slow subscriber, and logs all
    /// calls that take longer than half a millisecond.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
        command.args(["--slowlog-log-slower-than", "500", "--slowlog-max-len", "100000"]);
        command.current_dir(std::env::temp_dir()).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server is installed");
        until("Redis answers", || open(port).is_ok());
        let questions = RefCell::new(open(port).expect("Redis accepts connections"));
        Self { child, port, questions }
    }

    /// The version, as the server tells it.
    pub(crate) fn version() -> String {
        let told = Command::new("redis-server").arg("--version").output();
        let told = told.expect("redis-server is installed").stdout;
        let text = String::from_utf8_lossy(&told);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        format!("Redis {}", version.unwrap_or("of an unknown version"))
    }

    pub(crate) fn connection(&self) -> Connection {
        let connection = open(self.port).expect("Redis accepts connections");
        connection.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        connection
    }

    /// The answer to a command.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut *self.questions.borrow_mut()).expect("Redis answers")
    }

    /// A number of `INFO`.
    pub(crate) fn info(&self, field: &str) -> f64 {
        let text: String = self.ask(&["INFO", "everything"]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.and_then(|value| value.parse().ok()).expect("INFO has the field")
    }

    /// The CPU seconds of the process so far.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.info("used_cpu_user") + self.info("used_cpu_sys")
    }

    /// The bytes of the keys, without the buffers of connections.
    pub(crate) fn key_bytes(&self) -> f64 {
        self.info("used_memory") - self.info("mem_clients_normal")
    }

    /// The time of the longest command since the log was reset, in milliseconds.
    pub(crate) fn longest_call_ms(&self) -> f64 {
        // Arguments may be any bytes.
        type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        let entries: Vec<Entry> = self.ask(&["SLOWLOG", "GET", "-1"]);
        let longest = entries.iter().map(|entry| entry.2).max().unwrap_or_default();
        longest as f64 / 1000.0
    }
}

fn open(port: u16) -> RedisResult<Connection> {
    redis::Client::open(format!("redis://127.0.0.1:{port}/"))?.get_connection()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().expect("the server is ours");
        self.child.wait().expect("the server ends");
    }
}

/// Waits for a condition; returns the seconds that it took.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) -> f64 {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "it did not happen: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed().as_secs_f64()
}
