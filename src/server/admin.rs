//! The control socket: the operator's commands on this host ask a running server something, and
//! the server answers.
//!
//! Its name is in the abstract namespace (unix(7)), so it needs no writable directory, and nothing
//! is left of it after a crash. The name is derived from the directory that the server was started
//! in and from its --env and --config, so that a command finds it in the same directory with the
//! same files.
//!
//! Such names have no permissions: any user of the host may connect to one, or take one first.
//! Therefore both ends check the user at the other end. The server answers its own user and root; a
//! command believes its own user and root, and root also believes the owner of the directory.
//!
//! A request is a line with its [`AdminCommand`]: a word, and behind a space what belongs to it.
//! The answer is everything up to the end of the stream: `done` or `refused`, a space, and text.
//! Later versions may add words.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener as Listener, UnixStream as Stream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::config::{ConfigInputs, LogDirective};
use crate::version;

/// The first word of an answer after success.
const DONE: &str = "done ";
/// The first word of an answer after a failure.
const REFUSED: &str = "refused ";

/// The time that a peer may take to send its request, and to take the answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest request in bytes: the words are short.
const REQUEST_BYTES_MAX: usize = 4096;

/// Peers that are served at a time. Each is a command of an operator, so a few are enough.
const PEERS_MAX: usize = 16;

/// The time that a command waits for its answer: longer than the server waits for its shards.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after an accept that failed, for example because no descriptor is left.
const RETRY: Duration = Duration::from_millis(100);

/// The outcome of a request, as text for the operator who asked.
pub(super) type AdminAnswer = Result<String, String>;

/// The commands that a running server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminCommand {
    /// Read the configuration again. The answer says what has changed.
    Reload,
    /// Report the status. The answer is a [`ServerStatus`](super::status::ServerStatus) as JSON.
    Status,
    /// Change the filter of the log, if there is a change. The answer is the filter in force.
    Log(Option<LogDirective>),
}

impl AdminCommand {
    fn parse(line: &str) -> Result<Self, String> {
        let unknown = |what: &str| {
            let version = version::NUMBER;
            format!("the server, which is version {version}, does not know {what:?}")
        };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("reload", "") => Ok(Self::Reload),
            ("status", "") => Ok(Self::Status),
            ("log", "") => Ok(Self::Log(None)),
            ("log", change) => match LogDirective::parse(change) {
                Some(change) => Ok(Self::Log(Some(change))),
                None => Err(unknown(line)),
            },
            _ => Err(unknown(word)),
        }
    }
}

impl fmt::Display for AdminCommand {
    /// The request, without the end of its line. Its word is also the name of the subcommand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::Status => f.write_str("status"),
            Self::Log(None) => f.write_str("log"),
            Self::Log(Some(change)) => write!(f, "log {change}"),
        }
    }
}

/// A command, with the connection of the peer that waits for its answer.
#[derive(Debug)]
pub(super) struct AdminRequest {
    command: AdminCommand,
    stream: UnixStream,
}

/// Takes requests from now on, until the receiver is dropped. If the name is taken, for example by
/// another server in the same directory, a warning is logged and the server goes on, because
/// signals still work.
pub(super) fn listen(inputs: &ConfigInputs) -> mpsc::Receiver<AdminRequest> {
    let (requests, taken) = mpsc::channel(1);
    match bind(inputs) {
        Ok(listener) => drop(tokio::spawn(accept(listener, requests))),
        Err(error) => tracing::warn!(
            %error,
            "cannot open the control socket: `ringwave reload` will not find this server, so send \
             SIGHUP to process {} instead",
            std::process::id()
        ),
    }
    taken
}

fn bind(inputs: &ConfigInputs) -> io::Result<UnixListener> {
    let listener = Listener::bind_addr(&address(inputs)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<AdminRequest>) {
    let peers = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&peers).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        // Other users get no answer.
        let own = geteuid().as_raw();
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            let requests = requests.clone();
            tokio::spawn(async move {
                take_request(stream, requests).await;
                drop(permit);
            });
        }
    }
}

/// Reads a request and hands it on. A peer that sends no whole line is closed without an answer.
async fn take_request(stream: UnixStream, requests: mpsc::Sender<AdminRequest>) {
    let Ok(Some(line)) = timeout(PEER_TIMEOUT, read_line(&stream)).await else { return };
    match AdminCommand::parse(&line) {
        Ok(command) => drop(requests.send(AdminRequest { command, stream }).await),
        Err(unknown) => send_answer(stream, &Err(unknown)).await,
    }
}

/// Reads a line, without its end. `None`: it is too long, not UTF-8, or the stream ended within it.
async fn read_line(stream: &UnixStream) -> Option<String> {
    let mut line = Vec::new();
    loop {
        stream.readable().await.ok()?;
        let mut bytes = [0; 256];
        match stream.try_read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => line.extend_from_slice(bytes.get(..count)?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        if let Some(line) = line.strip_suffix(b"\n") {
            return String::from_utf8(line.to_vec()).ok();
        }
        if line.len() > REQUEST_BYTES_MAX {
            return None;
        }
    }
}

impl AdminRequest {
    /// The command.
    pub(super) const fn command(&self) -> AdminCommand {
        self.command
    }

    /// Sends the outcome to the peer, which may be gone.
    pub(super) async fn answer(self, answer: &AdminAnswer) {
        send_answer(self.stream, answer).await;
    }

    /// Sends the outcome to the peer, without making the caller wait.
    pub(super) fn answer_later(self, answer: AdminAnswer) {
        tokio::spawn(async move { self.answer(&answer).await });
    }

    /// Answers that the command is refused, without making the caller wait.
    pub(super) fn refuse(self, reason: &str) {
        self.answer_later(Err(reason.to_owned()));
    }
}

/// Sends an answer, for as long as the peer takes it in time.
async fn send_answer(stream: UnixStream, answer: &AdminAnswer) {
    let text = match answer {
        Ok(text) => format!("{DONE}{text}"),
        Err(text) => format!("{REFUSED}{text}"),
    };
    let mut rest = text.as_bytes();
    let sent = async {
        while !rest.is_empty() && stream.writable().await.is_ok() {
            match stream.try_write(rest) {
                Ok(written) => {
                    debug_assert!(written <= rest.len(), "more was written than was given");
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _gone = timeout(PEER_TIMEOUT, sent).await;
}

/// Asks the server that was started in the same directory with the same files. Returns the text of
/// its answer.
///
/// # Errors
/// No server answers, or it refuses.
pub(crate) fn ask(inputs: &ConfigInputs, command: AdminCommand) -> Result<String, AskError> {
    let mut stream = connect(inputs)?;
    let mut answer = String::new();
    let request = format!("{command}\n");
    let exchanged =
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    exchanged.map_err(AskError::NoAnswer)?;
    if let Some(text) = answer.strip_prefix(DONE) {
        return Ok(text.to_owned());
    }
    let refused = answer.strip_prefix(REFUSED).map(str::to_owned);
    Err(refused
        .map_or_else(|| AskError::NoAnswer(io::ErrorKind::UnexpectedEof.into()), AskError::Refused))
}

/// Connects to the server, and checks its user.
fn connect(inputs: &ConfigInputs) -> Result<Stream, AskError> {
    let stream = address(inputs).and_then(|address| Stream::connect_addr(&address));
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::NoServer,
        _ => AskError::NoAnswer(error),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(AskError::NoAnswer)?;
    let server = socket_peercred(&stream).map_err(|error| AskError::NoAnswer(error.into()))?;
    let owner = std::fs::metadata(&inputs.directory).map_err(AskError::NoAnswer)?.uid();
    let (uid, pid) = (server.uid.as_raw(), server.pid.as_raw_nonzero().get());
    match is_believed(uid, geteuid().as_raw(), owner) {
        true => Ok(stream),
        false => Err(AskError::OtherUser { uid, pid }),
    }
}

/// Whether a command of the user `own` believes a server of the user `server`. The owner of the
/// directory could change what a server reads there anyway, so root may believe that user too.
const fn is_believed(server: u32, own: u32, owner: u32) -> bool {
    server == own || server == 0 || own == 0 && server == owner
}

/// The reason for which a running server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No server has this name.
    #[error(
        "no server was started from this directory with these files. Go to the directory where it \
         was started, and give the --env and --config that it was given"
    )]
    NoServer,
    /// A process of another user has this name.
    #[error(
        "the control socket of this directory belongs to process {pid} of user {uid}, which is \
         neither your user nor root, so it is not asked. If it is your server, run this command as \
         its user: sudo -u '#{uid}' ringwave ..."
    )]
    OtherUser {
        /// The user id of the process.
        uid: u32,
        /// The process id.
        pid: i32,
    },
    /// The server refused, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The server did not answer.
    #[error("the server did not answer; it may be stopping, or belong to another user")]
    NoAnswer(#[source] io::Error),
}

/// The name of the control socket of a server of this inputs.
fn address(inputs: &ConfigInputs) -> io::Result<SocketAddr> {
    let directory = std::fs::canonicalize(&inputs.directory)?;
    let mut hash = Sha256::new();
    hash.update(directory.as_os_str().as_bytes());
    for file in [&inputs.flags.env, &inputs.flags.config] {
        hash.update([0]);
        hash.update(
            file.as_deref()
                .map_or_else(PathBuf::new, |file| absolute(&directory, file))
                .as_os_str()
                .as_bytes(),
        );
    }
    let name = hex::encode(&hash.finalize()[..NAME_BYTES]);
    SocketAddr::from_abstract_name(format!("ringwave-{name}"))
}

/// The absolute path of a file. Links are not followed, so that the name stays the same when a link
/// is changed.
fn absolute(directory: &Path, file: &Path) -> PathBuf {
    std::path::absolute(directory.join(file)).unwrap_or_else(|_| file.to_owned())
}

/// Bytes of the hash that are in a name: 128 bits have no collisions, and fit into an address.
const NAME_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};

    fn inputs(name: &str, config: Option<&str>) -> ConfigInputs {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let flags = Flags { config: config.map(PathBuf::from), ..Flags::default() };
        ConfigInputs { flags, environment: Environment::new(), directory }
    }

    fn same(one: &ConfigInputs, other: &ConfigInputs) -> bool {
        let name = |inputs| address(inputs).unwrap().as_abstract_name().map(<[u8]>::to_vec);
        name(one).unwrap() == name(other).unwrap()
    }

    #[test]
    fn a_server_is_told_from_others_by_its_directory_and_its_files() {
        let plain = inputs("ringwave-admin-a", None);
        assert!(same(&plain, &inputs("ringwave-admin-a", None)));
        assert!(!same(&plain, &inputs("ringwave-admin-b", None)));
        let named = inputs("ringwave-admin-a", Some("r.toml"));
        assert!(!same(&plain, &named));
        assert!(same(&named, &inputs("ringwave-admin-a", Some("./r.toml"))));
        let mut as_env = plain.clone();
        as_env.flags.env = Some("r.toml".into());
        assert!(!same(&named, &as_env));
    }

    #[test]
    fn a_command_believes_its_own_user_and_root_and_root_the_owner_of_the_directory() {
        let (root, alice, mallory) = (0, 1000, 1001);
        for (server, own, owner, believed) in [
            (alice, alice, root, true),
            (root, alice, mallory, true),
            (mallory, alice, alice, false),
            (mallory, alice, mallory, false),
            (alice, root, alice, true),
            (mallory, root, alice, false),
            (mallory, root, root, false),
        ] {
            let case = format!("server of {server}, command of {own}, directory of {owner}");
            assert_eq!(is_believed(server, own, owner), believed, "{case}");
        }
    }

    #[tokio::test]
    async fn a_request_gets_its_answer_and_an_unknown_command_is_refused() {
        let inputs = inputs("ringwave-admin-c", None);
        assert!(matches!(ask(&inputs, AdminCommand::Reload), Err(AskError::NoServer)));
        let mut requests = listen(&inputs);
        for answer in [Ok("3 apps".to_owned()), Err("no such setting".to_owned())] {
            let change = |text| AdminCommand::Log(LogDirective::parse(text));
            for command in [
                AdminCommand::Reload,
                AdminCommand::Status,
                AdminCommand::Log(None),
                change("debug"),
                change("front=off"),
            ] {
                // A silent peer delays no other peer.
                let _mute = connect(&inputs).unwrap();
                let asking = inputs.clone();
                let asked = tokio::task::spawn_blocking(move || ask(&asking, command));
                let request = requests.recv().await.unwrap();
                assert_eq!(request.command(), command);
                request.answer(&answer).await;
                match (asked.await.unwrap(), answer.clone()) {
                    (Ok(text), Ok(sent)) | (Err(AskError::Refused(text)), Err(sent)) => {
                        assert_eq!(text, sent);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        for (request, unknown) in [("restart 5", "restart"), ("log fornt=off", "log fornt=off")] {
            let mut other = connect(&inputs).unwrap();
            let answer = tokio::task::spawn_blocking(move || {
                let mut answer = String::new();
                other.write_all(format!("{request}\n").as_bytes()).unwrap();
                other.read_to_string(&mut answer).unwrap();
                answer
            });
            let answer = answer.await.unwrap();
            assert!(answer.starts_with("refused the server, which is version "), "{answer}");
            assert!(answer.ends_with(&format!("does not know {unknown:?}")), "{answer}");
        }
        // A server that stops answers nothing, and is gone then.
        let asking = inputs.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&asking, AdminCommand::Reload));
        drop(requests.recv().await.unwrap());
        assert!(matches!(asked.await.unwrap(), Err(AskError::NoAnswer(_))));
        drop(requests);
        while connect(&inputs).is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(ask(&inputs, AdminCommand::Reload), Err(AskError::NoServer)));
    }
}
