//! The identity of a server, as it tells it.

use ::redis::{Value, cmd};

use super::call_error::CallError;
use super::link::Link;

/// The facts about a server, from its answer to `INFO`: those for the operator, and those that a
/// node needs before it uses the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The id of the process; empty if it does not tell.
    pub(super) run_id: Box<str>,
    /// The version of Redis that it is compatible with.
    version: Box<str>,
    /// Another product than Redis, with its version: `Valkey 8.1.0`.
    product: Option<Box<str>>,
    /// Whether it follows another server.
    pub(super) replica: bool,
    /// Whether it is a sentinel.
    pub(super) sentinel: bool,
    /// Whether it is reading its data and refuses to be asked.
    loading: bool,
    /// The bytes that it may use, as a number; `0` is any number.
    maxmemory: Box<str>,
    /// The rule by which it chooses keys to evict when it has used them.
    maxmemory_policy: Box<str>,
}

impl Identity {
    /// Asks the server.
    ///
    /// # Errors
    /// Returns those of the link; the server may be loading its data.
    pub(super) async fn ask(link: &mut Link) -> Result<Self, CallError> {
        // Without sections: 6.2 takes only one by request.
        let Value::BulkString(text) = link.request(&cmd("INFO")).await? else {
            return Err(CallError::Unreadable("INFO"));
        };
        let identity = Self::of(&String::from_utf8_lossy(&text));
        if identity.loading { Err(CallError::Loading) } else { Ok(identity) }
    }

    fn of(text: &str) -> Self {
        let mut identity = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            match key {
                "run_id" => identity.run_id = value.into(),
                "redis_version" => identity.version = value.into(),
                "valkey_version" => identity.product = Some(format!("Valkey {value}").into()),
                "dragonfly_version" => {
                    identity.product = Some(format!("Dragonfly {value}").into());
                }
                "role" => identity.replica = value == "slave",
                "redis_mode" => identity.sentinel = value == "sentinel",
                "loading" => identity.loading = value == "1",
                "maxmemory" => identity.maxmemory = value.into(),
                "maxmemory_policy" => identity.maxmemory_policy = value.into(),
                _ => {}
            }
        }
        identity
    }

    /// Whether it is at least Redis 6.2, or something that says so.
    pub(super) fn is_recent(&self) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().ok());
        let version = (numbers.next().flatten(), numbers.next().flatten());
        matches!(version, (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN)
    }

    /// The rule by which it may evict keys of the cluster; `None` if it evicts none. Rules for keys
    /// that expire evict too: an inbox expires, so that those of dead nodes end.
    pub(super) fn evicting_policy(&self) -> Option<&str> {
        let bounded = !matches!(&*self.maxmemory, "" | "0");
        let policy = &*self.maxmemory_policy;
        let evicts = policy.starts_with("allkeys") || policy.starts_with("volatile");
        (bounded && evicts).then_some(policy)
    }

    /// The product and its version: `Redis 7.0.15`.
    pub(super) fn product(&self) -> Box<str> {
        let redis = || format!("Redis {}", self.version).into();
        self.product.clone().unwrap_or_else(redis)
    }
}

/// The first version with all that the scripts use: `XTRIM MINID`, and streams whose entries are
/// trimmed by it.
const VERSION_MIN: (u32, u32) = (6, 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_6_2_are_recent() {
        for (version, recent) in [
            ("6.2.0", true),
            ("7.0.15", true),
            ("255.255.255", true),
            ("10.0", true),
            ("6.0.16", false),
            ("5.0.14", false),
            ("6", false),
            ("", false),
            ("unstable", false),
        ] {
            let identity = Identity::of(&format!("# Server\r\nredis_version:{version}\r\n"));
            assert_eq!(identity.is_recent(), recent, "{version}");
        }
    }

    #[test]
    fn a_server_evicts_keys_of_the_cluster_only_if_it_has_a_bound_and_a_rule_that_evicts() {
        for (maxmemory, policy, evicting) in [
            ("100", "allkeys-lru", Some("allkeys-lru")),
            ("0", "allkeys-lru", None),
            ("100", "volatile-ttl", Some("volatile-ttl")),
            ("100", "noeviction", None),
        ] {
            let text = format!("maxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n");
            assert_eq!(Identity::of(&text).evicting_policy(), evicting, "{text}");
        }
    }

    #[test]
    fn a_server_is_known_by_its_product_role_and_process() {
        let text = "# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.1.0\r\n\
                    redis_mode:standalone\r\nrun_id:abc\r\n# Persistence\r\nloading:0\r\n\
                    # Replication\r\nrole:slave\r\n";
        let identity = Identity::of(text);
        assert_eq!(&*identity.product(), "Valkey 8.1.0");
        assert_eq!(&*identity.run_id, "abc");
        assert!(identity.is_recent() && identity.replica && !identity.sentinel);
        assert_eq!(Identity::of("junk\r\n:\r\n\r\n"), Identity::default());
    }
}
