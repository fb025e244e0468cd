//! A gateway of a test's own: the real executable, started in a directory of its own on a loopback
//! address of its own, so that no two tests fight for a port. It is killed when dropped.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::http::Http;
use super::place::Place;

pub const APP_ID: &str = "4711";
pub const KEY: &str = "it-key";
/// The secret of the app. It may be in no log of any test, which [`Gateway`] checks when it is
/// dropped.
pub const SECRET: &str = "it-secret-3f1c09";

/// The longest time, on a busy machine, for anything that should happen at once.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PORT: u16 = 8080;

/// Numbers of shards: for one core, for two, and more than there are cores.
pub const SHARD_COUNTS: [usize; 3] = [1, 2, 5];

/// Runs a test against a gateway of each number of shards.
pub fn served(test: impl Fn(&Gateway)) {
    served_with(|setup| setup, test);
}

/// Runs a test as [`served`] does, with settings.
pub fn served_with(settings: impl Fn(Setup) -> Setup, test: impl Fn(&Gateway)) {
    for shards in SHARD_COUNTS {
        test(&settings(Setup::new(shards)).start());
    }
}

/// Waits until `condition` gives a value.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "in {DEADLINE:?} it did not happen: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The executable, started by the command in `RINGWAVE_TEST_LAUNCHER` if there is one. Its words
/// are separated by blanks, and its paths are absolute. `scripts/test` uses it to run tests behind
/// the seccomp filter of the container.
fn launched() -> Command {
    let executable = env!("CARGO_BIN_EXE_ringwave");
    let launcher = std::env::var("RINGWAVE_TEST_LAUNCHER").unwrap_or_default();
    let mut words = launcher.split_whitespace();
    let Some(program) = words.next() else { return Command::new(executable) };
    let mut command = Command::new(program);
    command.args(words).arg(executable);
    command
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// One end of a TCP connection, as the kernel has it.
pub struct TcpEnd {
    /// Whether a process has accepted it and not closed it.
    pub is_owned: bool,
    /// The bytes that were sent and not acknowledged, and those that wait behind.
    pub unsent_bytes: usize,
}

/// The settings that a gateway is started with.
#[derive(Clone)]
pub struct Setup {
    shards: usize,
    address: Ipv4Addr,
    directory: PathBuf,
    dotenv: String,
    toml: String,
    flags: Vec<String>,
}

impl Setup {
    pub fn new(shards: usize) -> Self {
        let Place { address, directory } = Place::new();
        let dotenv = format!(
            "REVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={KEY}\nREVERB_APP_SECRET=\"{SECRET}\"\n"
        );
        let flags = vec![format!("--shards={shards}"), format!("--host={address}")];
        Self { shards, address, directory, dotenv, toml: String::new(), flags }
    }

    /// Leaves out the credentials, so that the development app is served.
    pub fn without_app(self) -> Self {
        self.dotenv("")
    }

    /// Replaces the whole `.env`.
    pub fn dotenv(mut self, text: &str) -> Self {
        text.clone_into(&mut self.dotenv);
        self
    }

    /// Adds a variable to the `.env`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.dotenv.push_str(&format!("{name}={value}\n"));
        self
    }

    /// Adds lines to `ringwave.toml`.
    pub fn toml(mut self, text: &str) -> Self {
        self.toml.push_str(text);
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// The path of a file in the gateway's directory, which is also its working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn address(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    /// Starts it and waits until all of its shards serve.
    pub fn start(self) -> Gateway {
        let mut command = self.command("start");
        self.start_as(&mut command)
    }

    /// Starts it with a command that ends with the one of [`Setup::command`].
    pub fn start_as(self, command: &mut Command) -> Gateway {
        let log = self.path("log");
        let out = fs::File::create(&log).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap();
        let mut gateway = Gateway { setup: self, child, log, watched: true };
        eventually("GET /up", || {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("it ended with {status}:\n{}", gateway.log());
            }
            let mut http = Http::over(TcpStream::connect(gateway.address()).ok()?);
            http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
            (http.response().status != 0).then_some(())
        });
        gateway.logged(&["Starting server on"]);
        gateway
    }

    /// Runs a command that ends by itself.
    pub fn output(&self, name: &str) -> Output {
        self.command(name).output().unwrap()
    }

    /// The command line, and the files that it reads.
    pub fn command(&self, name: &str) -> Command {
        fs::write(self.path(".env"), &self.dotenv).unwrap();
        fs::write(self.path("ringwave.toml"), &self.toml).unwrap();
        let mut command = launched();
        command.arg(name).args(&self.flags).current_dir(&self.directory);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Set by the step of scripts/test that runs the gateway as on an older kernel.
        if let Some(direct) = std::env::var_os(DIRECT_DESCRIPTORS) {
            command.env(DIRECT_DESCRIPTORS, direct);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// The variable of the setting `server.direct_descriptors`.
const DIRECT_DESCRIPTORS: &str = "RINGWAVE_DIRECT_DESCRIPTORS";

/// A running gateway.
pub struct Gateway {
    setup: Setup,
    child: Child,
    log: PathBuf,
    /// Whether the process has to be alive when this is dropped.
    watched: bool,
}

impl Gateway {
    pub fn address(&self) -> SocketAddr {
        self.setup.address()
    }

    pub fn shards(&self) -> usize {
        self.setup.shards
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The path of a file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    pub fn tcp(&self) -> TcpStream {
        patient(TcpStream::connect(self.address()).unwrap())
    }

    /// Connects from this address of the loopback network, as another client.
    pub fn tcp_from(&self, source: Ipv4Addr) -> TcpStream {
        self.tcp_between(source, self.address())
    }

    /// Connects from such an address to `destination`, for example a proxy in front of the gateway.
    pub fn tcp_between(&self, source: Ipv4Addr, destination: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&destination.into()).unwrap();
        patient(socket.into())
    }

    /// Everything that the gateway has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of the log that has all of these texts.
    #[track_caller]
    pub fn logged(&self, texts: &[&str]) -> String {
        eventually(&format!("a line of the log with {texts:?}"), || {
            let log = self.log();
            let mut lines = log.lines();
            let line = lines.find(|line| texts.iter().all(|text| line.contains(text)))?;
            Some(line.to_owned())
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.watched = false;
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    /// The memory that it has in use, in bytes.
    pub fn rss(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib * 1024
    }

    /// Its open descriptors. Sockets need none where its rings have tables of their own.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The number of TCP connections that it has accepted and not closed.
    pub fn sockets(&self) -> usize {
        self.tcp_ends().iter().filter(|end| end.is_owned).count()
    }

    /// The gateway's ends of all TCP connections that the kernel has at its address, in any state.
    pub fn tcp_ends(&self) -> Vec<TcpEnd> {
        const LISTEN: &str = "0A";
        let address = self.address();
        let IpAddr::V4(ip) = address.ip() else { panic!("{address}") };
        let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let end = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, at, _, state, queues, _, _, _, _, inode, ..] = fields[..] else { return None };
            let unsent_bytes = usize::from_str_radix(queues.split(':').next()?, 16).ok()?;
            let end = TcpEnd { is_owned: inode != "0", unsent_bytes };
            (at == local && state != LISTEN).then_some(end)
        };
        table.lines().filter_map(end).collect()
    }

    /// The same settings, to try to start it a second time.
    pub fn twin(&self) -> Setup {
        self.setup.clone()
    }

    /// Ends it gently, and starts another one with the same settings at once.
    pub fn restart(mut self) -> Self {
        self.signal(Signal::TERM);
        assert!(self.ended().success(), "{}", self.log());
        self.twin().start()
    }

    /// Ends it by a signal, and starts another one with the same settings at once.
    pub fn restart_after(mut self, signal: Signal) -> Self {
        self.signal(signal);
        self.ended();
        self.twin().start()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // The code below judges whether the process was gone already.
        let _gone: io::Result<()> = self.child.kill();
        let _reaped = self.child.wait();
        let log = self.log();
        if thread::panicking() {
            let shards = self.setup.shards;
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("--- with {shards} shards; end of its log:\n{}\n---", tail.join("\n"));
            return;
        }
        assert!(!self.watched || matches!(ended, Ok(None)), "it has ended by itself:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains(SECRET), "the secret is in the log:\n{log}");
        if self.watched {
            // A directory that cannot be removed is left over in the target directory.
            let _left: io::Result<()> = fs::remove_dir_all(&self.setup.directory);
        }
    }
}
