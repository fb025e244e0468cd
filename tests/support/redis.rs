//! A Redis of a test's own: the real server, started in a directory of its own on a loopback
//! address of its own. It is killed when dropped. Where there is no `redis-server`, a test asks
//! [`is_installed`] and is left out.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, FromRedisValue, IntoConnectionInfo, RedisResult};
use rustix::process::{Pid, Signal, kill_process};

use super::left_out::runs;
use super::place::Place;

/// The longest time, on a busy machine, for anything that a server does at once.
const DEADLINE: Duration = Duration::from_secs(30);

const PORT: u16 = 6379;
const TLS_PORT: u16 = 6380;

/// The name under which sentinels know their master.
pub const MASTER: &str = "ringwave-master";

/// Whether there is a Redis here. If not, the test that asks is left out.
pub fn is_installed() -> bool {
    runs("redis-server", &["--version"])
}

/// The configuration that a server is started with.
pub struct RedisSetup {
    place: Place,
    /// The lines of `redis.conf`.
    conf: String,
    port: u16,
    password: Option<String>,
    sentinel: bool,
}

impl RedisSetup {
    /// A server that keeps nothing on disk and takes `DEBUG`.
    pub fn new() -> Self {
        let place = Place::new();
        let (address, directory) = (place.address, place.directory.display());
        let conf = format!(
            "bind {address}\nport {PORT}\ndir {directory}\nsave \"\"\nenable-debug-command yes\n\
             replica-announce-ip {address}\nrepl-diskless-sync-delay 0\n"
        );
        Self { place, conf, port: PORT, password: None, sentinel: false }
    }

    /// Adds a line to `redis.conf`.
    pub fn line(mut self, line: &str) -> Self {
        self.conf.push_str(line);
        self.conf.push('\n');
        self
    }

    /// Keeps every write on disk before it is answered.
    pub fn durable(self) -> Self {
        self.line("appendonly yes").line("appendfsync always")
    }

    /// Asks everybody for this password, which has neither quotation marks nor line ends.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(&format!("requirepass '{password}'"))
    }

    /// Listens on this address too, whose port replaces the own one.
    pub fn beside(mut self, address: SocketAddr) -> Self {
        let place = self.place.address;
        self.port = address.port();
        self.line(&format!("bind {place} {}\nport {}", address.ip(), address.port()))
    }

    /// The path of a file in the server's directory.
    pub fn path(&self, name: &str) -> String {
        self.place.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Takes TLS too, on [`Redis::tls_address`], from clients with a certificate of the same
    /// authority. `ca.pem`, `client.pem` and `client.key` are in its directory.
    pub fn tls(self) -> Self {
        let address = self.place.address;
        let subject = format!("subjectAltName=IP:{address}");
        let at = |name: &str| self.path(name);
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
             -subj /CN=authority -keyout {} -out {}",
            at("ca.key"),
            at("ca.pem")
        ));
        for name in ["server", "client"] {
            openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
                 -subj /CN={name} -addext {subject} -addext basicConstraints=critical,CA:FALSE \
                 -CA {} -CAkey {} -keyout {} -out {}",
                at("ca.pem"),
                at("ca.key"),
                at(&format!("{name}.key")),
                at(&format!("{name}.pem"))
            ));
        }
        let files = [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")];
        let lines = files.map(|(kind, name)| format!("tls-{kind}-file {}", at(name)));
        let setup = lines.iter().fold(self, |setup, line| setup.line(line));
        setup.line(&format!("tls-port {TLS_PORT}")).line("tls-auth-clients yes")
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Redis {
        let child = self.spawn();
        let redis = Redis { setup: self, child };
        redis.until_up();
        redis
    }

    fn spawn(&self) -> Child {
        let conf = self.place.directory.join("redis.conf");
        // A sentinel writes what it learns into its configuration, and goes on with that.
        if !self.sentinel || !conf.exists() {
            fs::write(&conf, &self.conf).unwrap();
        }
        let log = fs::File::options().append(true).create(true).open(self.path("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(conf).args(self.sentinel.then_some("--sentinel"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }
}

fn openssl(arguments: &str) {
    let made = Command::new("openssl").args(arguments.split_whitespace()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A running server.
pub struct Redis {
    setup: RedisSetup,
    child: Child,
}

impl Redis {
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> Self {
        RedisSetup::new().start()
    }

    /// Starts a replica of this server, which has all of its data.
    pub fn replica(&self) -> Self {
        let master = format!("replicaof {} {PORT}", self.setup.place.address);
        let replica = RedisSetup::new().line(&master).start();
        replica.until("it has the data of its master", || {
            let told: String = replica.ask("INFO replication");
            told.contains("master_link_status:up")
        });
        replica
    }

    pub fn address(&self) -> SocketAddr {
        (self.setup.place.address, self.setup.port).into()
    }

    /// The address for TLS, after [`RedisSetup::tls`].
    pub fn tls_address(&self) -> SocketAddr {
        (self.setup.place.address, TLS_PORT).into()
    }

    /// The path of a file in the server's directory.
    pub fn path(&self, name: &str) -> String {
        self.setup.path(name)
    }

    /// The answer to a command, whose words are separated by blanks.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = cmd.arg(word));
        self.query(&cmd)
    }

    /// The answer to a command.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let answer = self.connection().and_then(|mut connection| command.query(&mut connection));
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.log()))
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> RedisResult<Connection> {
        let mut info = format!("redis://{}", self.address()).into_connection_info()?;
        if let Some(password) = &self.setup.password {
            let login = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(login);
        }
        let client = redis::Client::open(info)?;
        let connection = client.get_connection_with_timeout(DEADLINE)?;
        connection.set_read_timeout(Some(DEADLINE))?;
        Ok(connection)
    }

    /// Closes all connections but the test's own.
    pub fn disconnect_all(&self) {
        let _closed: u32 = self.ask("CLIENT KILL TYPE normal SKIPME yes");
    }

    /// Stands still for so long, as behind a slow command, and returns then.
    pub fn stall(&self, time: Duration) {
        let _done: String = self.ask(&format!("DEBUG SLEEP {}", time.as_secs_f32()));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once, as a crash does. [`Redis::go_on`] starts it again.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with what is on disk, and waits until it answers.
    pub fn go_on(&mut self) {
        self.child = self.setup.spawn();
        self.until_up();
    }

    /// Starts it again without its data, and waits until it answers.
    pub fn go_on_empty(&mut self) {
        for left in ["dump.rdb", "appendonlydir"] {
            // Either of them is there only if it was written.
            let path = self.setup.place.directory.join(left);
            let _none: io::Result<()> =
                fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        self.go_on();
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[track_caller]
    fn until_up(&self) {
        self.until("it answers", || {
            let ping = |mut connection| redis::cmd("PING").query::<String>(&mut connection);
            self.connection().and_then(ping).is_ok()
        });
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            let log = self.log();
            assert!(
                started.elapsed() < DEADLINE,
                "in {DEADLINE:?} it did not happen: {what}:\n{log}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A server that the test has ended is gone already.
        let _gone: io::Result<()> = self.child.kill();
        let _reaped = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("--- Redis {}; end of its log:\n{}\n---", self.address(), tail.join("\n"));
            return;
        }
        // A directory that cannot be removed is left over in the target directory.
        let _left: io::Result<()> = fs::remove_dir_all(&self.setup.place.directory);
    }
}

/// A master with a replica, and three sentinels that watch them.
pub struct Sentinels {
    pub servers: [Redis; 2],
    pub sentinels: [Redis; 3],
}

impl Sentinels {
    /// Starts them and waits until all sentinels know each other and the replica.
    pub fn start() -> Self {
        let master = Redis::start();
        let servers = [master.replica(), master];
        let sentinels = [(); 3].map(|()| Self::sentinel(servers[1].address()));
        for sentinel in &sentinels {
            sentinel.until("the sentinels know each other", || {
                let told: String = sentinel.ask("INFO sentinel");
                told.contains("slaves=1,sentinels=3")
            });
        }
        Self { servers, sentinels }
    }

    fn sentinel(master: SocketAddr) -> Redis {
        let place = Place::new();
        let conf = format!(
            "bind {address}\nport {PORT}\ndir {directory}\nsentinel announce-ip {address}\n\
             sentinel monitor {MASTER} {ip} {port} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            address = place.address,
            directory = place.directory.display(),
            ip = master.ip(),
            port = master.port(),
        );
        RedisSetup { place, conf, port: PORT, password: None, sentinel: true }.start()
    }

    /// The address of the master, as a sentinel tells it.
    pub fn master(&self) -> SocketAddr {
        let told = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}");
        let (ip, port): (String, u16) = self.sentinels[0].ask(&told);
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    /// Kills the master and waits until the sentinels name the other server.
    pub fn fail_over(&mut self) {
        let old = self.master();
        let master = self.servers.iter_mut().find(|server| server.address() == old).unwrap();
        master.crash();
        self.sentinels[0].until("the sentinels name another master", || self.master() != old);
    }
}

/// Starts a Redis Cluster of three masters, and waits until all of them serve.
pub fn three_masters() -> [Redis; 3] {
    let servers = [(); 3].map(|()| {
        let setup = RedisSetup::new().line("cluster-enabled yes").line("cluster-node-timeout 2000");
        let announced = format!("cluster-announce-ip {}", setup.place.address);
        setup.line(&announced).start()
    });
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]);
    create.args(servers.each_ref().map(|server| server.address().to_string()));
    let created = create.arg("--cluster-yes").output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    for server in &servers {
        server.until("the cluster serves", || {
            server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok")
        });
    }
    servers
}
