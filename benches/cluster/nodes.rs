//! Gateways, each in a process of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::redis_server::{Redis, TAG, until};

/// `cluster.retention` in seconds: short, because the bench waits for its end.
pub(crate) const RETENTION_S: u32 = 5;

/// A gateway, which ends when this is dropped.
pub(crate) struct Node {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl Node {
    /// Starts the real executable with its development app and one shard; with a Redis, it is a
    /// node of a cluster.
    pub(crate) fn start(redis: Option<&Redis>) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
        command.args(["start", "--shards", "1", "--port", &port.to_string()]);
        command.env_clear().current_dir(std::env::temp_dir()).stdout(Stdio::null());
        if let Some(redis) = redis {
            command.env("REVERB_SCALING_ENABLED", "true").env("REDIS_PORT", redis.port.to_string());
            command.env("RINGWAVE_CLUSTER_RETENTION", RETENTION_S.to_string());
        }
        let child = command.spawn().expect("the executable starts");
        let node = Self { child, address: format!("127.0.0.1:{port}") };
        until("the gateway answers", || TcpStream::connect(&node.address).is_ok());
        node
    }

    /// The CPU seconds of the process so far (proc_pid_stat(5), fields 14 and 15).
    pub(crate) fn cpu_s(&self) -> f64 {
        const TICKS_PER_S: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the process runs");
        // The name of the executable, in parentheses, may have spaces.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<f64>().expect("ticks are a number");
        (ticks(11) + ticks(12)) / TICKS_PER_S
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the gateway is ours");
        self.child.wait().expect("the gateway ends");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Redis with three gateways, all of which have joined.
pub(crate) fn cluster() -> ([Node; 3], Redis) {
    let redis = Redis::start();
    let nodes = [(); 3].map(|()| Node::start(Some(&redis)));
    until("the nodes have joined", || is_settled(&redis, nodes.len()));
    (nodes, redis)
}

/// Whether so many nodes are in the cluster, and Redis knows everything that they have.
pub(crate) fn is_settled(redis: &Redis, nodes: usize) -> bool {
    let known: usize = redis.ask(&["ZCARD", &format!("{TAG}nodes")]);
    let stale: usize = redis.ask(&["SCARD", &format!("{TAG}stale")]);
    known == nodes && stale == 0
}

pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("a free port").port()
}
