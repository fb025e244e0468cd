//! The reasons for which a request has no answer that a node can use.

use std::fmt;

use ::redis::ErrorKind;

use crate::text::Quoted;

/// The reason for which a request has no answer that a node can use. `Display` tells the operator
/// the cause and what to do. The connection has to be made anew in any case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// There was no answer within the [deadline](super::link::SILENCE_MAX).
    #[error("Redis gives no answer within 5 s: it stands still, or the network loses its packets")]
    Silent,
    /// The text of the cause.
    #[error("the connection to Redis broke ({0}): Redis stopped, or the network failed")]
    Lost(Box<str>),
    /// The bytes are no protocol of Redis.
    #[error("what listens there is no Redis: correct the port of cluster.redis (REDIS_PORT)")]
    NotRedis,
    /// The cluster has this number of partitions, and the node another one.
    #[error("the cluster has another number of partitions: {0}")]
    Partitions(u16),
    #[error("Redis does not accept the user or the password ({0})")]
    Login(Reply),
    #[error(
        "the user of Redis has too few rights ({0}): grant them with the line for ACL SETUSER in \
         the chapter of the manual on clusters"
    )]
    NotPermitted(Reply),
    /// The server follows another one by now.
    #[error("Redis is a replica now: its master has moved, and the node looks for it")]
    Demoted,
    #[error("Redis is loading its data: it answers when it is done")]
    Loading,
    /// The server that has the slot by now, as `HOST:PORT`.
    #[error(
        "the partition has moved to the server at {0} of a Redis Cluster: set cluster.mode to \
         `cluster` if it is `standalone`"
    )]
    Moved(Box<str>),
    #[error("the slot of the partition is being moved between servers of the Redis Cluster")]
    Moving,
    #[error(
        "the Redis Cluster does not serve all slots ({0}): start the servers that have them, or \
         let their replicas take over"
    )]
    ClusterDown(Reply),
    #[error(
        "Redis does not let scripts use keys that they do not declare ({0}): use Redis or Valkey; \
         Dragonfly is not supported"
    )]
    UndeclaredKeys(Reply),
    #[error("Redis is full ({0}): raise its maxmemory")]
    Full(Reply),
    #[error("Redis refuses writes ({0}): see its log")]
    NotWritable(Reply),
    #[error("Redis is busy with a script of another client ({0})")]
    Busy(Reply),
    #[error("Redis has as many clients as it may have ({0}): raise its maxclients")]
    Crowded(Reply),
    /// The script is not known there. Writers teach it and ask again.
    #[error("Redis has forgotten a script that it was taught just now")]
    ScriptUnknown,
    #[error("Redis refuses the request ({0})")]
    Refused(Reply),
    /// The request whose answer has another form than it should have.
    #[error("the answer of Redis to {0} is not what it should be: use Redis or Valkey from 6.2 on")]
    Unreadable(&'static str),
}

/// The text of an error that a server answered. It holds no secret, because servers repeat no
/// password, and is shown in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(Box<str>);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Quoted(&self.0), f)
    }
}

impl CallError {
    /// The error that a server answers, by its code and the text behind it.
    pub(super) fn of_reply(code: &str, details: Option<&str>) -> Self {
        let details = details.unwrap_or_default();
        let reply = || Reply(format!("{code} {details}").trim_end().into());
        let last_word = || details.rsplit(' ').next().unwrap_or_default();
        match inner_code(code, details) {
            "PARTITIONS" => {
                last_word().parse().map_or_else(|_| Self::Refused(reply()), Self::Partitions)
            }
            "WRONGPASS" | "NOAUTH" => Self::Login(reply()),
            "NOPERM" => Self::NotPermitted(reply()),
            "READONLY" | "UNBLOCKED" => Self::Demoted,
            "LOADING" | "MASTERDOWN" => Self::Loading,
            "MOVED" => Self::Moved(last_word().into()),
            "ASK" | "TRYAGAIN" => Self::Moving,
            "CLUSTERDOWN" => Self::ClusterDown(reply()),
            "CROSSSLOT" => Self::UndeclaredKeys(reply()),
            "OOM" => Self::Full(reply()),
            "MISCONF" | "NOREPLICAS" => Self::NotWritable(reply()),
            "BUSY" => Self::Busy(reply()),
            "NOSCRIPT" => Self::ScriptUnknown,
            _ if details.contains(DENIED_IN_SCRIPT) => Self::NotPermitted(reply()),
            // It comes in the place of the first answer.
            _ if details.contains("max number of clients") => Self::Crowded(reply()),
            _ if details.contains("undeclared key") => Self::UndeclaredKeys(reply()),
            // A script met a key that has left for another server already.
            _ if details.contains("non local key") => Self::Moving,
            _ => Self::Refused(reply()),
        }
    }

    /// Whether it remains until somebody changes the settings or the rights of the user. A reply
    /// that this version does not know may pass.
    pub(super) const fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::NotRedis
                | Self::Partitions(_)
                | Self::Login(_)
                | Self::NotPermitted(_)
                | Self::UndeclaredKeys(_)
        )
    }
}

/// The code of an error. Where a command fails in a script, 6.2 answers with the code `ERR` and has
/// that of the command within the text: `ERR Error running script …: @user_script: 1: -NOPERM …`.
fn inner_code<'t>(code: &'t str, details: &'t str) -> &'t str {
    if code != "ERR" || !details.contains("user_script") {
        return code;
    }
    let words = details.split(' ').map(|word| word.trim_start_matches('-'));
    let mut codes = words.filter(|word| IN_SCRIPTS.contains(word));
    codes.next().unwrap_or(code)
}

/// The codes that a command answers within a script.
const IN_SCRIPTS: [&str; 7] =
    ["NOPERM", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "CROSSSLOT", "CLUSTERDOWN"];

/// The text with which 7.0 and later tell that a command or a key is denied within a script.
const DENIED_IN_SCRIPT: &str = "user executing the script can't";

impl From<::redis::RedisError> for CallError {
    fn from(error: ::redis::RedisError) -> Self {
        if error.kind() == ErrorKind::Parse {
            return Self::NotRedis;
        }
        Self::Lost(plain(&error.to_string()).into())
    }
}

/// The text of an error of the system that the library has put into one of its own, without its
/// number, and for the middle of a sentence.
fn plain(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or(text);
    let mut chars = text.chars();
    chars.next().into_iter().flat_map(char::to_lowercase).chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str, details: &str) -> CallError {
        CallError::of_reply(code, Some(details))
    }

    #[test]
    fn errors_of_servers_are_known_by_their_codes() {
        assert_eq!(of("PARTITIONS", "16"), CallError::Partitions(16));
        assert_eq!(of("READONLY", "You can't write"), CallError::Demoted);
        assert_eq!(of("MOVED", "3999 127.0.0.1:6381"), CallError::Moved("127.0.0.1:6381".into()));
        assert_eq!(of("ASK", "3999 127.0.0.1:6381"), CallError::Moving);
        assert!(matches!(of("PARTITIONS", "many"), CallError::Refused(_)));
        assert!(matches!(of("ERR", "max number of clients reached"), CallError::Crowded(_)));
        assert!(matches!(of("WEIRD", ""), CallError::Refused(_)));
        let moving = "Script attempted to access a non local key in a cluster node";
        assert_eq!(of("ERR", moving), CallError::Moving);
    }

    #[test]
    fn an_error_within_a_script_is_known_by_the_code_of_the_command() {
        let text = "Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM \
                    command not allowed when used memory > 'maxmemory'.";
        assert!(matches!(of("ERR", text), CallError::Full(_)));
        // A text that only mentions a code is not taken for it.
        assert!(matches!(of("ERR", "unknown command 'OOM'"), CallError::Refused(_)));
    }

    #[test]
    fn a_server_that_hands_out_undeclared_keys_to_nobody_is_named() {
        let error = of("ERR", "script tried accessing undeclared key: {x}y");
        assert!(error.to_string().contains("Dragonfly is not supported"), "{error}");
    }

    #[test]
    fn only_what_somebody_has_to_change_is_permanent() {
        for (code, details) in [("WRONGPASS", ""), ("NOPERM", "xadd"), ("PARTITIONS", "4")] {
            assert!(of(code, details).is_permanent(), "{code}");
        }
        for code in ["LOADING", "READONLY", "CLUSTERDOWN", "OOM", "MISCONF", "BUSY", "UNKNOWN"] {
            assert!(!of(code, "").is_permanent(), "{code}");
        }
    }

    #[test]
    fn replies_are_quoted() {
        let error = of("ERR", "a\nb\u{1b}[2J");
        assert_eq!(error.to_string(), r#"Redis refuses the request ("ERR a\nb\u001b[2J")"#);
    }
}
