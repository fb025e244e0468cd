//! Processes of Redis.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::redis::{Cmd, FromRedisValue, cmd};

use super::left_out;

/// A server with a folder of its own. Both end with the value.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    /// Is removed with the value.
    _folder: Folder,
}

/// A folder of a test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwave-redis-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Server {
    /// A server without persistence, with these arguments; `None`, and the test is left out, where
    /// there is no Redis.
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string()];
        all.extend(arguments.iter().map(ToString::to_string));
        let server = Self::run(port, Folder::new(), &[], &all)?;
        server.wait_for_answers();
        Some(server)
    }

    /// A server of a Redis Cluster.
    pub(super) fn start_in_cluster() -> Option<(Self, u16)> {
        let bus = free_port();
        let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()];
        Some((Self::start(&arguments)?, bus))
    }

    /// A sentinel of the master at this port.
    pub(super) fn start_sentinel(master: u16) -> Option<Self> {
        let (port, folder) = (free_port(), Folder::new());
        let file = folder.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        );
        fs::write(&file, lines).unwrap();
        let server = Self::run(port, folder, &[file.to_str().unwrap(), "--sentinel"], &[])?;
        server.wait_for_answers();
        Some(server)
    }

    /// A server that is reached by other means than its port.
    pub(super) fn start_elsewhere(folder: Folder, arguments: &[String]) -> Option<Self> {
        Self::run(0, folder, &[], arguments)
    }

    fn run(port: u16, folder: Folder, first: &[&str], arguments: &[String]) -> Option<Self> {
        if !left_out::runs("redis-server", &["--version"]) {
            return None;
        }
        let mut command = Command::new("redis-server");
        command.args(first).args(arguments).current_dir(folder.path());
        command.args(["--save", "", "--appendonly", "no"]);
        command
            .args(["--enable-debug-command", "yes"].iter().take(2 * usize::from(first.is_empty())));
        command
            .args(["--bind", "127.0.0.1", "-::1"].iter().take(3 * usize::from(first.is_empty())));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Some(Self { process, port, _folder: folder })
    }

    fn wait_for_answers(&self) {
        wait_until("the server answers", || {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
            let mut answer = [0; 1];
            stream.write_all(b"PING\r\n").is_ok()
                && stream.read_exact(&mut answer).is_ok()
                && matches!(answer[0], b'+' | b'-')
        });
    }

    /// Runs a command as an administrator would.
    pub(super) fn run_command<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let client = ::redis::Client::open(("127.0.0.1", self.port)).unwrap();
        command.query(&mut client.get_connection().unwrap()).unwrap()
    }

    /// The same, for a command of words whose answer does not matter.
    pub(super) fn command(&self, words: &str) {
        let mut words = words.split(' ');
        let mut command = cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        let _: ::redis::Value = self.run_command(&command);
    }

    /// The number of connections with the name of nodes.
    pub(super) fn connected(&self) -> usize {
        let list: String = self.run_command(cmd("CLIENT").arg("LIST"));
        list.matches("name=ringwave").count()
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for a condition.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
