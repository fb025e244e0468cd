//! The way in for the operator on this host: a socket on which a running server is asked to do
//! something, and answers what came of it.
//!
//! Its name is in the abstract namespace (unix(7)), so it needs no directory that can be written,
//! and nothing is left of it behind a crash. The name is made of the directory that the server was
//! started in and of the files that it was told to read: a command that is given there, with the
//! same files, finds it. Such names have no permissions; the server answers its own user and root.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener as Listener, UnixStream as Stream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::config::Origin;

/// The one thing that can be asked for yet.
const RELOAD: &[u8] = b"reload\n";

/// What an answer starts with.
const DONE: &str = "done ";
const REFUSED: &str = "refused ";

/// How long somebody who connects may take to say what he wants, and to take the answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the operator waits for an answer: longer than the server waits for its shards.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// After an accept that failed, as when no descriptor is left.
const RETRY: Duration = Duration::from_millis(100);

/// What came of a request, in words for the operator.
pub(super) type Verdict = Result<String, String>;

/// Somebody asks for a reload and waits for the verdict.
#[derive(Debug)]
pub(super) struct Request(UnixStream);

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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        if is_trusted(&stream) && asks_for_reload(&stream).await {
            let _closed = requests.send(Request(stream)).await;
        }
    }
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn asks_for_reload(stream: &UnixStream) -> bool {
    let mut text = [0; RELOAD.len()];
    let mut length = 0;
    let whole = async {
        while length < text.len() && stream.readable().await.is_ok() {
            match stream.try_read(&mut text[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    timeout(PEER_TIMEOUT, whole).await.is_ok() && text == RELOAD
}

impl Request {
    /// Tells what came of it. Whoever asked may have gone.
    pub(super) async fn answer(self, verdict: &Verdict) {
        let text = match verdict {
            Ok(text) => format!("{DONE}{text}"),
            Err(text) => format!("{REFUSED}{text}"),
        };
        let mut rest = text.as_bytes();
        let told = async {
            while !rest.is_empty() && self.0.writable().await.is_ok() {
                match self.0.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        let _gone = timeout(PEER_TIMEOUT, told).await;
    }
}

/// Asks the server that was started from the same place to read its configuration anew. Returns
/// what it says of that.
///
/// # Errors
/// See [`AskError`].
pub fn ask_to_reload(origin: &Origin) -> Result<String, AskError> {
    let mut stream = connect(origin).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::NoServer,
        _ => AskError::Lost(error),
    })?;
    let mut answer = String::new();
    let told = stream.write_all(RELOAD).and_then(|()| stream.read_to_string(&mut answer));
    told.map_err(AskError::Lost)?;
    if let Some(text) = answer.strip_prefix(DONE) {
        return Ok(text.to_owned());
    }
    let refused = answer.strip_prefix(REFUSED).map(str::to_owned);
    Err(refused
        .map_or_else(|| AskError::Lost(io::ErrorKind::UnexpectedEof.into()), AskError::Refused))
}

fn connect(origin: &Origin) -> io::Result<Stream> {
    let stream = Stream::connect_addr(&address(origin)?)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Why there is no success to tell.
#[derive(Debug)]
pub enum AskError {
    /// No server was started from there.
    NoServer,
    /// The server answers that nothing has changed, and why.
    Refused(String),
    /// The server did not answer, as when it stops or belongs to another user.
    Lost(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str(
                "no server was started from this directory with these files. Go to the directory \
                 where it was started, and give the --env and --config that it was given; or send \
                 SIGHUP to its process",
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

    #[tokio::test]
    async fn a_request_gets_its_verdict_and_anything_else_gets_none() {
        let origin = origin("ringwave-admin-c", None);
        assert!(matches!(ask_to_reload(&origin), Err(AskError::NoServer)));
        let mut requests = listen(&origin);
        for verdict in [Ok("3 apps".to_owned()), Err("no such setting".to_owned())] {
            let mut other = connect(&origin).unwrap();
            other.write_all(b"restart").unwrap();
            let asking = origin.clone();
            let asked = tokio::task::spawn_blocking(move || ask_to_reload(&asking));
            requests.recv().await.unwrap().answer(&verdict).await;
            match (asked.await.unwrap(), verdict) {
                (Ok(text), Ok(sent)) | (Err(AskError::Refused(text)), Err(sent)) => {
                    assert_eq!(text, sent);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(other.read(&mut [0; 8]).unwrap(), 0);
        }
        // A server that stops answers nothing, and is gone then.
        let asking = origin.clone();
        let asked = tokio::task::spawn_blocking(move || ask_to_reload(&asking));
        drop(requests.recv().await.unwrap());
        assert!(matches!(asked.await.unwrap(), Err(AskError::Lost(_))));
        drop(requests);
        while connect(&origin).is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(ask_to_reload(&origin), Err(AskError::NoServer)));
    }
}
