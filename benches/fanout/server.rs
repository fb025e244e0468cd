//! Servers under load, each in a process of its own on core 0: the gateway and the floors.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::floor;

/// A kind of server: the gateway, or a floor to compare it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The real executable with its development app and this number of shards.
    Gateway(usize),
    /// The floor that sends each message by itself.
    Floor,
    /// The floor that sends all messages of a turn together.
    Coalesced,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Gateway(1) => "gateway".to_owned(),
            Self::Gateway(shards) => format!("gateway, {shards} shards"),
            Self::Floor => "floor".to_owned(),
            Self::Coalesced => "floor, coalesced".to_owned(),
        }
    }

    pub(crate) fn start(self) -> Server {
        match self {
            Self::Gateway(shards) => gateway(shards),
            Self::Floor => bare("message"),
            Self::Coalesced => bare("turn"),
        }
    }
}

/// A server's process, which ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
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

fn gateway(shards: usize) -> Server {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let mut command = pinned("0", env!("CARGO_BIN_EXE_ringwave"));
    command.args(["start", "--port", &port.to_string(), "--shards", &shards.to_string()]);
    let child = command.stdout(Stdio::null()).spawn().expect("taskset (util-linux) starts it");
    let server = Server { child, address: format!("127.0.0.1:{port}") };
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = TcpStream::connect(&server.address) {
        assert!(Instant::now() < deadline, "the gateway does not answer: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

fn bare(per: &str) -> Server {
    let own = std::env::current_exe().expect("the path of this bench");
    let mut command = pinned("0", own);
    command.args(["--floor", per]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("taskset (util-linux) starts it");
    let mut address = String::new();
    let output = child.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut address).expect("it tells its address");
    Server { child, address: address.trim().to_owned() }
}

/// A command for a program on these cores, in an environment without configuration.
pub(crate) fn pinned(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(std::env::temp_dir());
    command
}
