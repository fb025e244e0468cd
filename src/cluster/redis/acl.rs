//! The rights that the user of a node needs.

/// The command that makes a user with the least rights, for a cluster of the default name. The
/// password is a placeholder; `reverb` is `cluster.name`.
pub(super) const ACL_LINE: &str = "ACL SETUSER ringwave reset on >PASSWORD ~{ringwave:reverb:* \
     +info +client|setname +select +script|load +evalsha +xread \
     +get +set +exists +del +unlink +time +pexpire +pttl \
     +hget +hset +hmget +hgetall +hkeys +hvals +hlen +hexists +hdel +hincrby \
     +sadd +srem +smembers +scard +spop \
     +zadd +zrem +zscore +zrange +zrangebyscore \
     +xadd +xtrim";

/// Requests that prove the rights for the commands of the scripts, in an order in which none fails:
/// a command, the name of a key that nobody else uses, and arguments.
pub(super) const PROOFS: [&[&str]; 31] = [
    &["time"],
    &["set", "text", "1"],
    &["pexpire", "text", "60000"],
    &["get", "text"],
    &["exists", "text"],
    &["pttl", "text"],
    &["hset", "hash", "field", "1"],
    &["hget", "hash", "field"],
    &["hmget", "hash", "field"],
    &["hgetall", "hash"],
    &["hkeys", "hash"],
    &["hvals", "hash"],
    &["hlen", "hash"],
    &["hexists", "hash", "field"],
    &["hincrby", "hash", "field", "1"],
    &["hdel", "hash", "field"],
    &["sadd", "set", "member"],
    &["smembers", "set"],
    &["scard", "set"],
    &["srem", "set", "member"],
    &["spop", "set"],
    &["zadd", "sorted", "1", "member"],
    &["zscore", "sorted", "member"],
    &["zrange", "sorted", "0", "-1"],
    &["zrangebyscore", "sorted", "-inf", "+inf"],
    &["zrem", "sorted", "member"],
    &["xadd", "stream", "*", "r", "1"],
    &["xtrim", "stream", "MINID", "0"],
    &["xread", "STREAMS", "stream", "0"],
    &["unlink", "stream"],
    &["del", "text", "hash", "set", "sorted", "stream"],
];

/// The names of keys in [`PROOFS`]; all other words stand for themselves.
pub(super) const PROOF_KEYS: [&str; 5] = ["text", "hash", "set", "sorted", "stream"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The commands that the connection itself runs beside those of the scripts.
    const OF_CONNECTIONS: [&str; 5] =
        ["client|setname", "evalsha", "info", "script|load", "select"];

    fn granted() -> BTreeSet<&'static str> {
        ACL_LINE.split(' ').filter_map(|word| word.strip_prefix('+')).collect()
    }

    #[test]
    fn the_manual_shows_the_line() {
        let chapter = include_str!("../../manual/cluster.md");
        assert!(chapter.lines().any(|line| line == ACL_LINE), "{ACL_LINE}");
    }

    #[test]
    fn the_line_grants_what_is_proven_and_nothing_else() {
        let proven = PROOFS.iter().map(|proof| proof[0]).chain(OF_CONNECTIONS);
        assert_eq!(granted(), proven.collect());
    }

    #[test]
    fn the_line_grants_every_command_of_the_scripts_and_no_other() {
        let mut used: BTreeSet<String> = OF_CONNECTIONS.map(Into::into).into();
        // The connection asks for the number of partitions, and reads.
        used.extend(["get", "xread"].map(Into::into));
        for source in scripts() {
            used.extend(commands_of(&source));
        }
        let granted: BTreeSet<String> = granted().into_iter().map(Into::into).collect();
        assert_eq!(granted, used, "only granted, or only used");
    }

    fn scripts() -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/scripts");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|name| name == "lua"));
        files.map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// The commands that are called by `redis.call('NAME'` and `redis.pcall('NAME'`.
    fn commands_of(source: &str) -> impl Iterator<Item = String> + '_ {
        source.split("call(").skip(1).filter_map(|rest| {
            let rest = rest.trim_start().strip_prefix(['\'', '"'])?;
            rest.split(['\'', '"']).next().map(str::to_lowercase)
        })
    }
}
