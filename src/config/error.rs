//! Floor 7. The reasons why a configuration cannot be served.
//!
//! Each is one sentence for the operator, which names the setting or the file, the source of the
//! value, what is expected, and a remedy where that is not plain. The sentence is complete: it
//! includes the text of its [`source`](Error::source), which is there for code. No error holds a
//! secret.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::dotenv::DotEnvError;
use super::secret_text::SecretFault;
use super::text_file::Unreadable;
use super::units::mebibytes;
use super::value_source::ValueSource;
use super::values::{ListenAddr, ListenerConfig};

/// A configuration cannot be served.
#[derive(Debug)]
pub enum ConfigError {
    /// A source gave a value that its setting does not take.
    Rejected(Box<RejectedSetting>),
    /// A setting without a default has no value in `ringwave.toml`.
    Missing {
        /// `apps[0].secret`
        key: String,
        /// The values that the setting takes, in words.
        expected: String,
    },
    /// A file cannot be read, or is not what it has to be.
    File(Box<FileError>),
    /// A secret is given both as a value and as a file.
    SecretTwice {
        /// The source of the value.
        value: ValueSource,
        /// The source of the path of the file.
        file: ValueSource,
    },
    /// The apps do not go together.
    Apps(Box<AppsError>),
    /// The settings of the cluster do not go together.
    Cluster(ClusterError),
    /// `server.listen` names this address twice.
    DuplicateListener(ListenAddr),
    /// The development app would be served on this address, which others than this host reach.
    DevelopmentAppExposed(ListenerConfig),
    /// Others than this host reach this address of the listener for operators, which has no token.
    AdminExposed(SocketAddr),
    /// The limit of memory refuses every connection.
    TooLittleMemory(TooLittleMemory),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(error) => error.fmt(f),
            Self::Missing { key, expected } => {
                write!(f, "{key} is missing in ringwave.toml: it takes {expected}")
            }
            Self::File(error) => error.fmt(f),
            Self::SecretTwice { value, file } => {
                write!(f, "{value} and {file} are both set: keep the file, and remove the value")
            }
            Self::Apps(error) => error.fmt(f),
            Self::Cluster(error) => error.fmt(f),
            Self::DuplicateListener(address) => {
                write!(f, "server.listen names {address} twice: list each address once")
            }
            Self::DevelopmentAppExposed(listener) => write!(
                f,
                "the development app, whose secret is public, is not served on {listener}: set \
                 REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET (in the environment, in .env, \
                 or as `[[apps]]` of ringwave.toml), or listen on 127.0.0.1, or add --dev"
            ),
            Self::AdminExposed(address) => write!(
                f,
                "admin.listen cannot be {address} without a token, because others than this host \
                 reach it: set admin.token (RINGWAVE_ADMIN_TOKEN) to a long random text, or listen \
                 on 127.0.0.1"
            ),
            Self::TooLittleMemory(error) => error.fmt(f),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File(error) => error.source(),
            Self::Rejected(_)
            | Self::Missing { .. }
            | Self::SecretTwice { .. }
            | Self::Apps(_)
            | Self::Cluster(_)
            | Self::DuplicateListener(_)
            | Self::DevelopmentAppExposed(_)
            | Self::AdminExposed(_)
            | Self::TooLittleMemory(_) => None,
        }
    }
}

/// A value that its setting does not take.
#[derive(Debug)]
pub struct RejectedSetting {
    /// `server.port`, `apps[0].secret`
    pub(crate) key: String,
    /// The part of the value that is not taken, in quotes; withheld for a secret.
    pub(crate) value: String,
    /// The source that gave it.
    pub(crate) source: ValueSource,
    /// The values that the setting takes, in words.
    pub(crate) expected: String,
    /// The value has a `${NAME}` in it that nothing replaced.
    pub(crate) has_reference: bool,
}

impl fmt::Display for RejectedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, source, expected, has_reference } = self;
        write!(f, "{key} cannot be {value} ({source}): it takes {expected}")?;
        if *has_reference {
            f.write_str(
                "; `${NAME}` of an unknown variable, and `${NAME:-default}` of any, are literal \
                 text in Laravel's .env: write the value itself",
            )?;
        }
        Ok(())
    }
}

/// A file of the configuration cannot be served.
#[derive(Debug)]
pub struct FileError {
    /// The path, as the operator knows it.
    pub(crate) path: PathBuf,
    /// The flag, the setting or the variable that names the file, if one does.
    pub(crate) named_by: Option<String>,
    /// The reason.
    pub(crate) fault: FileFault,
}

impl FileError {
    /// An error of a file that was found.
    pub(super) fn new(path: impl Into<PathBuf>, fault: FileFault) -> Self {
        Self { path: path.into(), named_by: None, fault }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(named_by) = &self.named_by {
            write!(f, " (from {named_by})")?;
        }
        self.fault.fmt(f)
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            FileFault::Unreadable(cause) => Some(cause),
            FileFault::DotEnv(cause) => Some(cause),
            FileFault::Secret(SecretFault::Unreadable(cause)) => Some(cause),
            FileFault::Wide(_)
            | FileFault::NotUtf8 { .. }
            | FileFault::NotToml { .. }
            | FileFault::NotATable(_)
            | FileFault::NotTables(_)
            | FileFault::UnknownSetting { .. }
            | FileFault::Secret(_)
            | FileFault::CredentialForAll(_) => None,
        }
    }
}

impl From<FileError> for ConfigError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

/// The reason why a file of the configuration cannot be served.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// It cannot be read.
    Unreadable(Unreadable),
    /// It has this encoding, whose characters are wider than a byte.
    Wide(&'static str),
    /// A line is not UTF-8.
    NotUtf8 {
        /// From 1.
        line: usize,
    },
    /// Laravel would not read this `.env` either.
    DotEnv(DotEnvError),
    /// A line is not TOML.
    NotToml {
        /// From 1.
        line: usize,
        /// The message of the parser, without the text of the line, which may be a secret.
        message: String,
    },
    /// This key has to be a table.
    NotATable(String),
    /// This key has to be a list of tables.
    NotTables(&'static str),
    /// There is no setting of this key.
    UnknownSetting {
        /// The key as it is written.
        key: String,
        /// The key that is most like it.
        nearest: Option<String>,
    },
    /// It gives no secret.
    Secret(SecretFault),
    /// `[app]` has this key, which belongs to one app.
    CredentialForAll(&'static str),
}

impl fmt::Display for FileFault {
    /// Continues a sentence that begins with the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(cause) => write!(f, " {cause}"),
            Self::Wide(encoding) => {
                write!(f, " is in {encoding}, as PowerShell and Notepad write it: save it as UTF-8")
            }
            Self::NotUtf8 { line } => write!(f, " line {line} is not UTF-8, as TOML has to be"),
            Self::DotEnv(cause) => write!(f, " line {}: {cause}", cause.line),
            Self::NotToml { line, message } => write!(f, " line {line} is not TOML: {message}"),
            Self::NotATable(key) => write!(f, ": {key} has to be a table"),
            Self::NotTables(key) => write!(f, ": {key} has to be a list of `[[{key}]]`"),
            Self::UnknownSetting { key, nearest } => {
                write!(f, ": there is no setting {key:?}")?;
                nearest.iter().try_for_each(|known| write!(f, "; the nearest is `{known}`"))
            }
            Self::Secret(fault) => fault.fmt(f),
            Self::CredentialForAll(key) => write!(
                f,
                ": app.{key} belongs to one app: put it into `[[apps]]`; `[app]` is for what all \
                 apps have in common"
            ),
        }
    }
}

/// The apps of a configuration do not go together.
#[derive(Debug)]
pub enum AppsError {
    /// Only some of the three variables that make an app are set.
    Incomplete {
        /// The variables of the id, the key and the secret.
        variables: [&'static str; 3],
        /// One that is set.
        set: ValueSource,
        /// Those that are missing.
        missing: Vec<&'static str>,
    },
    /// There are this many apps.
    TooMany(usize),
    /// An app has a key twice.
    Twice {
        /// The position of the app.
        app: usize,
        /// The setting: `key`.
        setting: &'static str,
        /// Its value.
        name: String,
    },
    /// Two apps have an id or a key in common.
    Shared {
        /// The positions of the apps.
        apps: [usize; 2],
        /// The setting: `app_id`, `key`.
        setting: &'static str,
        /// Its value.
        name: String,
    },
}

impl fmt::Display for AppsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { variables: [id, key, secret], set, missing } => write!(
                f,
                "an app needs {id}, {key} and {secret}, but with {set} set {} {} missing",
                missing.join(" and "),
                if missing.len() == 1 { "is" } else { "are" },
            ),
            Self::TooMany(count) => write!(f, "there are {count} apps; the most is 65536"),
            Self::Twice { app, setting, name } => {
                write!(f, "apps[{app}] has the {setting} {name:?} twice: list it once")
            }
            Self::Shared { apps: [first, second], setting, name } => write!(
                f,
                "apps[{first}] and apps[{second}] have the same {setting} {name:?}: each app needs \
                 its own"
            ),
        }
    }
}

impl From<AppsError> for ConfigError {
    fn from(error: AppsError) -> Self {
        Self::Apps(Box::new(error))
    }
}

/// The settings of a cluster do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// There are this many servers of Redis, and no Redis Cluster.
    SeveralServers(usize),
    /// There are sentinels that nobody asks.
    IdleSentinels,
    /// There are no sentinels to ask for the master.
    NoSentinels,
    /// The master of the sentinels has no name.
    NoMaster,
    /// A Redis Cluster has no database of this number.
    DatabaseOfCluster(u32),
    /// This setting names a unix socket in a list of servers.
    UnixSocket(&'static str),
    /// This setting names servers with TLS and servers without.
    SomeTls(&'static str),
    /// There are files for TLS, and no server with it.
    TlsFilesWithoutTls,
    /// There is a certificate without its key, or a key alone.
    HalfCertificate,
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeveralServers(count) => write!(
                f,
                "cluster.redis names {count} servers, but cluster.mode is standalone: name one, or \
                 set cluster.mode to cluster (RINGWAVE_CLUSTER_MODE=cluster) for a Redis Cluster"
            ),
            Self::IdleSentinels => f.write_str(
                "cluster.sentinels is set, but cluster.mode is not sentinel: set it to sentinel \
                 (RINGWAVE_CLUSTER_MODE=sentinel), or remove the sentinels",
            ),
            Self::NoSentinels => f.write_str(
                "cluster.mode is sentinel, but there are no sentinels: list them in \
                 cluster.sentinels (RINGWAVE_CLUSTER_SENTINELS=HOST:PORT,HOST:PORT)",
            ),
            Self::NoMaster => f.write_str(
                "cluster.mode is sentinel, but the master has no name: set cluster.sentinel_master \
                 (RINGWAVE_CLUSTER_SENTINEL_MASTER) to the name that `sentinel monitor` has",
            ),
            Self::DatabaseOfCluster(database) => write!(
                f,
                "cluster.database is {database}, but a Redis Cluster has database 0 alone: remove \
                 the other number from RINGWAVE_CLUSTER_DATABASE, REDIS_DB or the URL of Redis"
            ),
            Self::UnixSocket(key) => write!(
                f,
                "{key} names a unix socket, but sentinels and the servers of a Redis Cluster are \
                 reached over TCP: write HOST:PORT"
            ),
            Self::SomeTls(key) => write!(
                f,
                "{key} names servers with TLS and servers without, but the servers that they name \
                 in turn are all reached alike: write rediss:// for all of them, or for none"
            ),
            Self::TlsFilesWithoutTls => f.write_str(
                "cluster.tls_ca, cluster.tls_certificate and cluster.tls_key need a Redis with \
                 TLS: write its address as rediss://HOST:PORT (or REDIS_SCHEME=tls), or remove \
                 them",
            ),
            Self::HalfCertificate => f.write_str(
                "cluster.tls_certificate and cluster.tls_key belong together: set both, or none",
            ),
        }
    }
}

impl From<ClusterError> for ConfigError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

/// A limit of memory that refuses every connection. All sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// The limit.
    pub(crate) limit: u64,
    /// The number of shards.
    pub(crate) shards: usize,
    /// The memory that these take before the first connection.
    pub(crate) needed: u64,
    /// The smallest limit that lets a connection in.
    pub(crate) smallest: u64,
}

impl fmt::Display for TooLittleMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.shards == 1 { "" } else { "s" };
        write!(
            f,
            "server.memory_limit is {}, but {} shard{s} take {} before the first connection: set it \
             to {} or more, as much more as connections and messages are to have, or to `auto`",
            mebibytes(self.limit),
            self.shards,
            mebibytes(self.needed),
            mebibytes(self.smallest),
        )
    }
}
