//! Servers under load, each in a process of its own: the gateway and those it is compared with.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringwave::testing::server::limits;

use crate::{floor, uwebsockets};

/// A kind of server: the gateway, or a server to compare it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The real executable with its development app.
    Gateway {
        shards: usize,
        /// The cores that the shards share, from the first one on.
        cores: usize,
    },
    /// The floor that sends each message by itself.
    Floor,
    /// The floor that sends all messages of a turn together.
    Coalesced,
    /// A server on uWebSockets, which sends all messages of a turn together.
    UWebSockets,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Gateway { shards: 1, cores: 1 } => "gateway".to_owned(),
            Self::Gateway { shards, cores: 1 } => format!("gateway, {shards} shards"),
            Self::Gateway { shards, cores } => format!("gateway, {shards} on {cores} cores"),
            Self::Floor => "floor".to_owned(),
            Self::Coalesced => "floor, coalesced".to_owned(),
            Self::UWebSockets => "uWebSockets".to_owned(),
        }
    }

    /// The number of cores that it runs on, from the first one on.
    pub(crate) const fn cores(self) -> usize {
        match self {
            Self::Gateway { cores, .. } => cores,
            Self::Floor | Self::Coalesced | Self::UWebSockets => 1,
        }
    }

    pub(crate) fn start(self) -> Server {
        match self {
            Self::Gateway { shards, cores } => gateway(shards, cores),
            Self::Floor => floor("message"),
            Self::Coalesced => floor("turn"),
            Self::UWebSockets => {
                // The server inherits the limit of open files, because it does not raise its own.
                limits::raise_nofile();
                telling(pinned("0", uwebsockets::executable()))
            }
        }
    }
}

/// A server's process, which ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
    /// The number of its cores.
    pub(crate) cores: usize,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server is ours");
        self.child.wait().expect("the server ends");
    }
}

/// Serves the floor that the argument of `--floor` asks for.
pub(crate) fn serve_floor(per: &str) -> ! {
    floor::serve(per == "turn")
}

fn gateway(shards: usize, cores: usize) -> Server {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let mut command = pinned(&format!("0-{}", cores - 1), env!("CARGO_BIN_EXE_ringwave"));
    command.args(["start", "--port", &port.to_string(), "--shards", &shards.to_string()]);
    let child = command.stdout(Stdio::null()).spawn().expect("taskset (util-linux) starts it");
    let server = Server { child, address: format!("127.0.0.1:{port}"), cores };
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = TcpStream::connect(&server.address) {
        assert!(Instant::now() < deadline, "the gateway does not answer: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

fn floor(per: &str) -> Server {
    let own = std::env::current_exe().expect("the path of this bench");
    let mut command = pinned("0", own);
    command.args(["--floor", per]);
    telling(command)
}

/// Starts a server that prints its address.
fn telling(mut command: Command) -> Server {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("taskset (util-linux) starts it");
    let mut address = String::new();
    let output = child.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut address).expect("it tells its address");
    Server { child, address: address.trim().to_owned(), cores: 1 }
}

/// A command for a program on these cores, in an environment without configuration.
pub(crate) fn pinned(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(std::env::temp_dir());
    command
}
