//! A Redis of the test's own, and the scripts in it.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Client, Connection, RedisError, cmd};

use crate::cluster::scripts::{CALL, ENTER};
use crate::cluster::store::{CallHead, Executed};
use crate::cluster::wire::{Entered, Entrance, NodeId};

/// The tag of the keys.
pub(super) const TAG: &str = "{ringwave:test:0}:";

/// The clock of the scripts, which the tests replace.
const CLOCK: &str = include_str!("../../scripts/clock.lua");

/// A clock that a test sets. It begins in the third argument line of both scripts: the tag.
const TEST_CLOCK: &str = "local function clock()
  return tonumber(redis.call('GET', ARGV[1] .. 'clock'))
end
";

/// A Redis process with two connections: that of an administrator, and that of a node, which may do
/// no more than the scripts need.
pub(super) struct Server {
    process: Child,
    directory: PathBuf,
    admin: Connection,
    node: Connection,
    call: String,
    enter: String,
}

impl Server {
    /// Starts a Redis; `None` where there is none, and then the test says so.
    pub(super) fn start() -> Option<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwave-scripts-{}-{number}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(&directory).arg("--unixsocket").arg(&socket);
        let Ok(process) = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn() else {
            left_out("redis-server is not installed");
            fs::remove_dir_all(&directory).unwrap();
            return None;
        };
        let client = Client::open(format!("redis+unix://{}", socket.display())).unwrap();
        let mut admin = connect(&client);
        let mut node = connect(&client);
        let user = ["ACL", "SETUSER", "node", "on", ">secret", "~{ringwave:test:*", "-@all"];
        let rights = commands().into_iter().chain(["evalsha".into(), "script|load".into()]);
        let mut acl = redis::Cmd::new();
        user.iter().for_each(|arg| _ = acl.arg(arg));
        rights.for_each(|name| _ = acl.arg(format!("+{name}")));
        acl.exec(&mut admin).unwrap();
        cmd("AUTH").arg("node").arg("secret").exec(&mut node).unwrap();
        let [call, enter] = [CALL, ENTER].map(|script| {
            let script = script.strip_prefix(CLOCK).unwrap();
            let script = format!("{TEST_CLOCK}{script}");
            cmd("SCRIPT").arg("LOAD").arg(script).query(&mut node).unwrap()
        });
        Some(Self { process, directory, admin, node, call, enter })
    }

    pub(super) fn set_clock(&mut self, now_ms: u64) {
        self.admin::<()>(&["SET", &format!("{TAG}clock"), &now_ms.to_string()]);
    }

    /// Executes a command of the administrator.
    pub(super) fn admin<T: redis::FromRedisValue>(&mut self, args: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        args.iter().for_each(|arg| _ = command.arg(arg));
        command.query(&mut self.admin).unwrap()
    }

    /// Introduces a node.
    pub(super) fn enter(&mut self, node: NodeId, entrance: &Entrance) -> Result<Entered, u16> {
        let mut args = vec![TAG.into(), Bytes::from(node.to_string())];
        entrance.push_args(&mut args);
        let elements: Result<Vec<Vec<u8>>, RedisError> = self.eval(&self.enter.clone(), &args);
        match elements {
            Ok(elements) => {
                let elements: Vec<_> = elements.into_iter().map(Bytes::from).collect();
                Ok(Entered::of(&elements).unwrap())
            }
            Err(error) => {
                assert_eq!(error.code(), Some("PARTITIONS"), "{error}");
                Err(error.detail().unwrap().parse().unwrap())
            }
        }
    }

    /// Executes a call.
    pub(super) fn call(&mut self, head: &CallHead, args: &[Bytes]) -> Executed {
        let kind = char::from(head.kind.letter()).to_string();
        let mut all: Vec<Bytes> = vec![TAG.into(), head.node.to_string().into()];
        all.push(head.epoch.to_string().into());
        all.push(kind.into());
        let numbers = [head.number, head.lease_ms, head.retention_ms, head.inbox_bytes];
        all.extend(numbers.map(|number| Bytes::from(number.to_string())));
        all.extend_from_slice(args);
        let answer: Result<String, RedisError> = self.eval(&self.call.clone(), &all);
        match answer.unwrap().as_str() {
            "done" => Executed::Done,
            "enter" => Executed::Enter,
            other => panic!("the script answers {other}"),
        }
    }

    fn eval<T: redis::FromRedisValue>(
        &mut self,
        sha: &str,
        args: &[Bytes],
    ) -> Result<T, RedisError> {
        let mut command = cmd("EVALSHA");
        command.arg(sha).arg(1).arg(format!("{TAG}nodes"));
        args.iter().for_each(|arg| _ = command.arg(&arg[..]));
        command.query(&mut self.node)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Connects to a server that may still be starting.
fn connect(client: &Client) -> Connection {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match client.get_connection() {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "redis-server: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names of the commands that the scripts execute.
fn commands() -> Vec<String> {
    let calls = [CALL, ENTER].map(|script| script.split("redis.call('").skip(1));
    let names = calls.into_iter().flatten().map(|rest| rest.split('\'').next().unwrap());
    let mut names: Vec<_> = names.map(str::to_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Says that a test was left out, as `tests/support` does.
fn left_out(why: &str) {
    let thread = thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let _closed = io::stderr().write_all(format!("left out: {line}").as_bytes());
    if let Some(path) = env::var_os("RINGWAVE_LEFT_OUT") {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
