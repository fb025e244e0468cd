//! The control socket: the operator's commands on this host ask a running server something, and
//! the server answers.
//!
//! Its name is in the abstract namespace (unix(7)), so it needs no directory that can be written,
//! and nothing is left of it behind a crash. The name is made of the directory that the server was
//! started in and of the files that it was told to read: a command that is given there, with the
//! same files, finds it.
//!
//! Such names have no permissions: any user of the host may connect to one, or take one first. So
//! both ends look who is at the other one. The server answers its own user and root; a command
//! believes its own user and root, and root also believes the owner of the directory.
//!
//! A request is a line, the word of its [`Question`]. The answer is everything up to the end of the
//! stream: `done` or `refused`, a space, and text. More words may come, and text behind them.

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

use crate::config::Origin;
use crate::version;

/// The first word of an answer.
const DONE: &str = "done ";
const REFUSED: &str = "refused ";

/// How long a peer may take to send its request, and to take the answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest request in bytes: the words are short.
const REQUEST_BYTES_MAX: usize = 4096;

/// Peers that are served at a time. Each is a command that an operator runs.
const PEERS_MAX: usize = 16;

/// How long the operator waits for an answer: longer than the server waits for its shards.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// After an accept that failed, as when no descriptor is left.
const RETRY: Duration = Duration::from_millis(100);

/// The outcome of a request, in words for the operator who asked.
pub(super) type Verdict = Result<String, String>;

/// The questions that a running server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// To read its configuration anew. Answered with what has changed.
    Reload,
    /// How it is. Answered with a [`ServerStatus`](super::overview::ServerStatus) as JSON.
    Status,
}

impl Question {
    const ALL: [Self; 2] = [Self::Reload, Self::Status];

    /// The word of the request, which is also the name of the command.
    const fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Status => "status",
        }
    }

    fn parse(line: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|question| question.word() == line);
        found.ok_or_else(|| {
            let word = line.split(' ').next().unwrap_or_default();
            let version = version::NUMBER;
            format!("the server, which is version {version}, does not know {word:?}")
        })
    }
}

/// A question, and the connection of the peer that waits for the answer.
#[derive(Debug)]
pub(super) struct Request {
    question: Question,
    stream: UnixStream,
}

/// Takes requests from now on, until the receiver is dropped. A name that is taken, as by a second
/// server in the same directory, is told and otherwise ignored: signals are still there.
pub(super) fn listen(origin: &Origin) -> mpsc::Receiver<Request> {
    let (requests, taken) = mpsc::channel(1);
    match bind(origin) {
        Ok(listener) => drop(tokio::spawn(accept(listener, requests))),
        Err(error) => tracing::warn!(
            %error,
            "`ringwave reload` will not find this server; SIGHUP to process {} does the same",
            std::process::id()
        ),
    }
    taken
}

fn bind(origin: &Origin) -> io::Result<UnixListener> {
    let listener = Listener::bind_addr(&address(origin)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let peers = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&peers).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        // Others are not even listened to.
        let own = geteuid().as_raw();
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            let requests = requests.clone();
            tokio::spawn(async move {
                take_request(stream, requests).await;
                drop(place);
            });
        }
    }
}

/// Reads a request and hands it on. A peer that sends no whole line is closed without an answer.
async fn take_request(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let Ok(Some(line)) = timeout(PEER_TIMEOUT, read_line(&stream)).await else { return };
    match Question::parse(&line) {
        Ok(question) => drop(requests.send(Request { question, stream }).await),
        Err(unknown) => tell(stream, &Err(unknown)).await,
    }
}

/// A line without its end. `None`: it is too long, no text, or the stream ended within it.
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

impl Request {
    /// The question of this request.
    pub(super) const fn question(&self) -> Question {
        self.question
    }

    /// Tells the peer the outcome. The peer may have gone.
    pub(super) async fn answer(self, verdict: &Verdict) {
        tell(self.stream, verdict).await;
    }

    /// Tells that nothing will come of it, without keeping the caller waiting.
    pub(super) fn refuse(self, reason: &str) {
        let verdict = Err(reason.to_owned());
        tokio::spawn(async move { self.answer(&verdict).await });
    }
}

async fn tell(stream: UnixStream, verdict: &Verdict) {
    let text = match verdict {
        Ok(text) => format!("{DONE}{text}"),
        Err(text) => format!("{REFUSED}{text}"),
    };
    let mut rest = text.as_bytes();
    let told = async {
        while !rest.is_empty() && stream.writable().await.is_ok() {
            match stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _gone = timeout(PEER_TIMEOUT, told).await;
}

/// Asks the server that was started from the same place. Returns what it answers.
///
/// # Errors
/// See [`AskError`].
pub(crate) fn ask(origin: &Origin, question: Question) -> Result<String, AskError> {
    let mut stream = connect(origin)?;
    let mut answer = String::new();
    let request = format!("{}\n", question.word());
    let told =
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    told.map_err(AskError::Lost)?;
    if let Some(text) = answer.strip_prefix(DONE) {
        return Ok(text.to_owned());
    }
    let refused = answer.strip_prefix(REFUSED).map(str::to_owned);
    Err(refused
        .map_or_else(|| AskError::Lost(io::ErrorKind::UnexpectedEof.into()), AskError::Refused))
}

/// Connects to the server, if it is one to be believed.
fn connect(origin: &Origin) -> Result<Stream, AskError> {
    let stream = address(origin).and_then(|address| Stream::connect_addr(&address));
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::NoServer,
        _ => AskError::Lost(error),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(AskError::Lost)?;
    let server = socket_peercred(&stream).map_err(|error| AskError::Lost(error.into()))?;
    let owner = std::fs::metadata(&origin.directory).map_err(AskError::Lost)?.uid();
    let (uid, pid) = (server.uid.as_raw(), server.pid.as_raw_nonzero().get());
    match is_believed(uid, geteuid().as_raw(), owner) {
        true => Ok(stream),
        false => Err(AskError::Stranger { uid, pid }),
    }
}

/// Whether a command of the user `own` believes a server of the user `server`. The owner of the
/// directory could change what a server reads there anyway, so root may believe that user too.
const fn is_believed(server: u32, own: u32, owner: u32) -> bool {
    server == own || server == 0 || own == 0 && server == owner
}

/// Why there is no success to tell.
#[derive(Debug)]
pub(crate) enum AskError {
    /// No server was started from there.
    NoServer,
    /// A process of another user has the name of the server.
    Stranger {
        /// The user id of the process.
        uid: u32,
        /// The process.
        pid: i32,
    },
    /// The server answers that nothing came of it, and why.
    Refused(String),
    /// The server did not answer, as when it stops or belongs to another user.
    Lost(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str(
                "no server was started from this directory with these files. Go to the directory \
                 where it was started, and give the --env and --config that it was given",
            ),
            Self::Stranger { uid, pid } => write!(
                f,
                "the control socket of this directory belongs to process {pid} of user {uid}, who \
                 is neither you nor root, and is not asked. If that is your server, run this as \
                 its user: sudo -u '#{uid}' ringwave ..."
            ),
            Self::Refused(reason) => f.write_str(reason),
            Self::Lost(error) => write!(
                f,
                "the server did not answer ({error}). It may be about to stop, or belong to \
                 another user"
            ),
        }
    }
}

impl std::error::Error for AskError {}

fn address(origin: &Origin) -> io::Result<SocketAddr> {
    let directory = std::fs::canonicalize(&origin.directory)?;
    let mut hash = Sha256::new();
    hash.update(directory.as_os_str().as_bytes());
    for file in [&origin.flags.env, &origin.flags.config] {
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

/// Links are not followed: which file is meant must not change with where a link leads to.
fn absolute(directory: &Path, file: &Path) -> PathBuf {
    std::path::absolute(directory.join(file)).unwrap_or_else(|_| file.to_owned())
}

/// Bytes of the hash that are in a name.
const NAME_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};

    fn origin(name: &str, config: Option<&str>) -> Origin {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let flags = Flags { config: config.map(PathBuf::from), ..Flags::default() };
        Origin { flags, environment: Environment::new(), directory }
    }

    fn same(one: &Origin, other: &Origin) -> bool {
        let name = |origin| address(origin).unwrap().as_abstract_name().map(<[u8]>::to_vec);
        name(one).unwrap() == name(other).unwrap()
    }

    #[test]
    fn a_server_is_told_from_others_by_its_directory_and_its_files() {
        let plain = origin("ringwave-admin-a", None);
        assert!(same(&plain, &origin("ringwave-admin-a", None)));
        assert!(!same(&plain, &origin("ringwave-admin-b", None)));
        let named = origin("ringwave-admin-a", Some("r.toml"));
        assert!(!same(&plain, &named));
        assert!(same(&named, &origin("ringwave-admin-a", Some("./r.toml"))));
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
    async fn a_request_gets_its_verdict_and_what_is_none_is_told_so() {
        let origin = origin("ringwave-admin-c", None);
        assert!(matches!(ask(&origin, Question::Reload), Err(AskError::NoServer)));
        let mut requests = listen(&origin);
        for verdict in [Ok("3 apps".to_owned()), Err("no such setting".to_owned())] {
            for question in Question::ALL {
                // A peer that says nothing delays no other peer.
                let _mute = connect(&origin).unwrap();
                let asking = origin.clone();
                let asked = tokio::task::spawn_blocking(move || ask(&asking, question));
                let request = requests.recv().await.unwrap();
                assert_eq!(request.question(), question);
                request.answer(&verdict).await;
                match (asked.await.unwrap(), verdict.clone()) {
                    (Ok(text), Ok(sent)) | (Err(AskError::Refused(text)), Err(sent)) => {
                        assert_eq!(text, sent);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut other = connect(&origin).unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            other.write_all(b"restart 5\n").unwrap();
            other.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("refused the server, which is version "), "{answer}");
        assert!(answer.ends_with("does not know \"restart\""), "{answer}");
        // A server that stops answers nothing, and is gone then.
        let asking = origin.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&asking, Question::Reload));
        drop(requests.recv().await.unwrap());
        assert!(matches!(asked.await.unwrap(), Err(AskError::Lost(_))));
        drop(requests);
        while connect(&origin).is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(ask(&origin, Question::Reload), Err(AskError::NoServer)));
    }
}
