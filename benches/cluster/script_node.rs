//! A node as Redis sees it: the calls that the gateway's cluster thread makes, without a gateway
//! behind them. So any number of nodes costs this host little, and calls are as full as the bench
//! wants them.

use redis::{Cmd, Connection, Script};
use ringwave::testing::cluster::scripts::{CALL, ENTER};

use crate::redis_server::{DEADLINE, Redis, TAG};

/// The defaults of `cluster.lease`, `cluster.retention` and `cluster.inbox`.
const LEASE_MS: u64 = 5_000;
const RETENTION_MS: u64 = 60_000;
const INBOX_BYTES: u64 = 64 << 20;

/// The bytes of an entry before its records: version, origin, kind and number of the call.
const ENTRY_HEAD: usize = 1 + 32 + 1 + 8;

/// The entries that a node reads at once.
const ENTRIES_MAX: usize = 100;

/// The hashes of the scripts, which a server knows.
pub(crate) struct Scripts {
    enter: String,
    call: String,
}

/// A node.
pub(crate) struct ScriptNode {
    id: String,
    epoch: String,
    /// The number of the last batch.
    batch: u64,
    /// The number of the last call that may be executed twice.
    chore: u64,
}

/// The arguments of one command or several.
pub(crate) type Args = Vec<Vec<u8>>;

impl Scripts {
    /// Teaches the server the scripts.
    pub(crate) fn load(redis: &Redis) -> Self {
        let load = |script: &str| {
            let _hash: String = redis.ask(&["SCRIPT", "LOAD", script]);
            Script::new(script).get_hash().to_owned()
        };
        Self { enter: load(ENTER), call: load(CALL) }
    }

    fn run(hash: &str) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(hash).arg(1).arg(format!("{TAG}nodes"));
        cmd
    }
}

impl ScriptNode {
    /// Enters the cluster, with nothing registered.
    pub(crate) fn enter(scripts: &Scripts, connection: &mut Connection, number: usize) -> Self {
        let id = format!("{number:032x}");
        let mut cmd = Scripts::run(&scripts.enter);
        cmd.arg(TAG).arg(&id).arg(1).arg("epoch").arg("").arg("bench").arg("bench");
        cmd.arg(0).arg(LEASE_MS);
        let (epoch, ..): (String, u64, String, u64) =
            cmd.query(connection).expect("the script of an entrance runs");
        let mut node = Self { id, epoch, batch: 0, chore: 0 };
        node.do_chore(scripts, connection, &args(["ready"]));
        node
    }

    /// The key of the inbox.
    pub(crate) fn inbox(&self) -> String {
        format!("{TAG}in:{}", self.id)
    }

    /// Executes the next batch.
    pub(crate) fn execute(
        &mut self,
        scripts: &Scripts,
        connection: &mut Connection,
        commands: &Args,
    ) {
        self.batch += 1;
        self.call(scripts, connection, ("b", self.batch), commands);
    }

    /// Executes what has no place among the batches.
    pub(crate) fn do_chore(
        &mut self,
        scripts: &Scripts,
        connection: &mut Connection,
        commands: &Args,
    ) {
        self.chore += 1;
        self.call(scripts, connection, ("r", self.chore), commands);
    }

    fn call(
        &self,
        scripts: &Scripts,
        connection: &mut Connection,
        (kind, number): (&str, u64),
        commands: &Args,
    ) {
        let mut cmd = Scripts::run(&scripts.call);
        cmd.arg(TAG).arg(&self.id).arg(&self.epoch).arg(kind).arg(number);
        cmd.arg(LEASE_MS).arg(RETENTION_MS).arg(INBOX_BYTES).arg(commands);
        let answer: String = cmd.query(connection).expect("the script of a call runs");
        assert_eq!(answer, "done", "the node has to enter again");
    }
}

/// Arguments that are texts.
pub(crate) fn args<const N: usize>(texts: [&str; N]) -> Args {
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// The record of a message.
pub(crate) fn message(channel: &str, frame: &[u8]) -> Vec<u8> {
    let fields = [channel.as_bytes(), b"", b"0", b"", frame];
    let body: Vec<u8> =
        fields.into_iter().flat_map(|field| [&length(field), field].concat()).collect();
    [b"M", &length(&body)[..], &body].concat()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("a message is short").to_be_bytes()
}

/// The inbox of a node, as far as it was read.
pub(crate) struct Inbox {
    key: String,
    /// The id of the last entry that was read.
    pub(crate) id: String,
    /// The bytes of all entries so far.
    pub(crate) bytes: u64,
}

impl Inbox {
    pub(crate) fn new(key: String) -> Self {
        Self { key, id: "0".to_owned(), bytes: 0 }
    }

    /// Waits for entries and reads them. Returns the number of messages in them.
    pub(crate) fn read(&mut self, connection: &mut Connection) -> u64 {
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(ENTRIES_MAX).arg("BLOCK").arg(DEADLINE.as_millis() as u64);
        cmd.arg("STREAMS").arg(&self.key).arg(&self.id);
        // Streams with their entries, each with its id and its parts.
        type Entries = Vec<(String, Vec<Vec<u8>>)>;
        let reply: Option<Vec<(String, Entries)>> =
            cmd.query(connection).expect("an inbox is readable");
        let mut messages = 0;
        for (id, parts) in reply.into_iter().flatten().flat_map(|(_key, entries)| entries) {
            let entry = parts.concat();
            self.id = id;
            self.bytes += entry.len() as u64;
            messages += count_messages(&entry[ENTRY_HEAD..]);
        }
        messages
    }
}

fn count_messages(mut records: &[u8]) -> u64 {
    let mut count = 0;
    while let [letter, a, b, c, d, rest @ ..] = records {
        count += u64::from(*letter == b'M');
        records = &rest[u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
    }
    count
}
