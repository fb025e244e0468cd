//! The proof that a node can work with its Redis, for `ringwave check`.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use ::redis::{FromRedisValue, cmd};

use super::acl::{PROOF_KEYS, PROOFS};
use super::call_error::CallError;
use super::connector::{Connector, Server};
use super::error::RedisError;
use super::identity::Identity;
use super::keys::Keys;
use super::link::Link;
use super::peer::Bare;
use super::writer::Writer;
use crate::cluster::ClusterSettings;
use crate::cluster::store::{CallHead, Writer as _};
use crate::cluster::wire::{CallKind, Entrance, NodeId};
use crate::version;

/// The facts that a probe found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The servers that have partitions, with product and version.
    servers: Vec<Box<str>>,
    /// The name of the cluster.
    name: Box<str>,
    /// The number of partitions that the settings say.
    partitions: u16,
    /// Whether a node has entered the cluster before.
    begun: bool,
    /// The rule by which a server may evict keys of the cluster, if one does.
    evicting: Option<Box<str>>,
    /// The milliseconds by which the clock of Redis is ahead of that of this host.
    ahead_ms: i64,
}

/// Connects as a node does, and proves on keys that no node uses: that servers are recent enough,
/// that the user may run all commands and the scripts, and that the number of partitions is right.
/// Removes its keys afterwards.
///
/// # Errors
/// Returns the reason for which a node could not work.
pub(crate) async fn probe(settings: &ClusterSettings) -> Result<Findings, RedisError> {
    let connector = Connector::new(settings)?;
    let (name, partitions) = (settings.name.as_str().into(), settings.partitions);
    let mut findings = Findings { name, partitions, ..Findings::default() };
    let mut proven = HashSet::new();
    for partition in 0..partitions {
        let keys = Keys::of_partition(&settings.name, partition);
        let mut server = connector.find(&keys).await?;
        findings.begun |= is_begun(&mut server, &keys, partitions).await?;
        let address = Bare(&server.peer.address).to_string();
        if proven.insert(address.clone()) {
            findings.note(&server.identity, &address);
            findings.ahead_ms = prove(&connector, server, &keys, settings).await?;
        }
    }
    Ok(findings)
}

impl Findings {
    /// The facts for the operator, a line each, without line breaks.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { servers, name, partitions, begun, .. } = self;
        let mut lines: Vec<String> =
            servers.iter().map(|server| format!("{server} answers and is recent enough")).collect();
        lines.push(format!(
            "the user may run all commands and the scripts on the keys of the cluster {name}"
        ));
        let state = if *begun { "as the cluster has" } else { "and no node has been there yet" };
        lines.push(format!("partitions: {partitions}, {state}"));
        lines.push(self.clock());
        lines.extend(self.evicting.as_ref().map(|policy| {
            format!(
                "its maxmemory-policy {policy} lets it evict keys of the cluster, which costs \
                 messages: set it to noeviction"
            )
        }));
        lines
    }

    /// Notes what a server tells about itself.
    fn note(&mut self, identity: &Identity, address: &str) {
        self.servers.push(format!("{} at {address}", identity.product()).into());
        if let Some(policy) = identity.evicting_policy() {
            self.evicting = Some(policy.into());
        }
    }

    fn clock(&self) -> String {
        let apart = self.ahead_ms.unsigned_abs();
        let direction = if self.ahead_ms < 0 { "behind" } else { "ahead of" };
        let mut line = format!("the clock of Redis is {apart} ms {direction} that of this host");
        if apart > CLOCK_NOTED_MS {
            line.push_str(": leases run by that of Redis alone, but times in logs will not agree");
        }
        line
    }
}

/// The difference of clocks above which times of logs are hard to compare.
const CLOCK_NOTED_MS: u64 = 2_000;

/// Whether a node has entered the partition, with the same number of partitions.
async fn is_begun(server: &mut Server, keys: &Keys, expected: u16) -> Result<bool, RedisError> {
    let answer = server.link.request(cmd("GET").arg(&keys.partitions()[..])).await;
    let failed = |cause| RedisError::of_entrance(&server.peer, cause, expected);
    let number = Option::<u16>::from_redis_value(answer.map_err(failed)?);
    match number.map_err(|_| failed(CallError::Unreadable("GET")))? {
        Some(number) if number != expected => Err(failed(CallError::Partitions(number))),
        number => Ok(number.is_some()),
    }
}

/// Proves the rights at a server, and returns by how many milliseconds its clock is ahead.
async fn prove(
    connector: &Connector,
    mut server: Server,
    keys: &Keys,
    settings: &ClusterSettings,
) -> Result<i64, RedisError> {
    let node = NodeId(u128::from_ne_bytes(random()));
    let keys = keys.scratch(node);
    prove_commands(&mut server, &keys).await?;
    let peer = server.peer.clone();
    let mut writer = connector.writer(server, keys.clone());
    let proven = prove_scripts(&mut writer, node, settings).await;
    let cleared = clear(writer.link(), &keys, node).await;
    let ahead_ms = proven?;
    cleared.map_err(|cause| RedisError::of_call(&peer, cause))?;
    Ok(ahead_ms)
}

/// Runs each command once, and names those that the user may not run.
async fn prove_commands(server: &mut Server, keys: &Keys) -> Result<(), RedisError> {
    let mut denied = Vec::new();
    for proof in PROOFS {
        let (command, arguments) = proof.split_first().unwrap_or((&"", &[]));
        let mut request = cmd(command);
        for argument in arguments {
            if PROOF_KEYS.contains(argument) {
                request.arg(&keys.named(argument)[..]);
            } else {
                request.arg(argument);
            }
        }
        match server.link.request(&request).await {
            Ok(_) => {}
            Err(CallError::NotPermitted(_)) => denied.push(*command),
            Err(cause) => return Err(RedisError::of_call(&server.peer, cause)),
        }
    }
    if denied.is_empty() {
        return Ok(());
    }
    Err(RedisError::Rights { peer: server.peer.clone(), commands: denied.join(", ").into() })
}

/// Lets a node enter a partition that no node uses, and call.
async fn prove_scripts(
    writer: &mut Writer,
    node: NodeId,
    settings: &ClusterSettings,
) -> Result<i64, RedisError> {
    let milliseconds =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let lease_ms = milliseconds(settings.lease);
    let asked_ms = now_ms();
    let entered = writer.enter(node, &entrance(settings.partitions, lease_ms)).await?;
    let answered_ms = now_ms();
    let head = CallHead {
        node,
        epoch: entered.epoch,
        kind: CallKind::Registration,
        number: 1,
        lease_ms,
        retention_ms: milliseconds(settings.retention),
        inbox_bytes: settings.inbox,
    };
    writer.call(&head, &[]).await?;
    let here_ms = asked_ms.midpoint(answered_ms);
    Ok(entered.now_ms.cast_signed().saturating_sub(here_ms.cast_signed()))
}

fn entrance(partitions: u16, lease_ms: u64) -> Entrance {
    Entrance {
        partitions,
        epoch: "check".into(),
        run: "".into(),
        version: version::TEXT.into(),
        address: "check".into(),
        base: 0,
        lease_ms,
        known: Vec::new(),
    }
}

/// Removes all keys that an entrance makes.
async fn clear(link: &mut Link, keys: &Keys, node: NodeId) -> Result<(), CallError> {
    let of_partition = [
        "partitions",
        "epoch",
        "run",
        "tended",
        "nodes",
        "addresses",
        "apps",
        "stale",
        "gone",
        "channels",
    ];
    let of_node = ["node", "in", "of", "mo"].map(|kind| format!("{kind}:{node}"));
    let names = of_partition.into_iter().chain(of_node.iter().map(String::as_str));
    let mut request = cmd("DEL");
    for name in names {
        request.arg(&keys.named(name)[..]);
    }
    link.request(&request).await.map(drop)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Random bytes, so that two probes at once use other keys. Without a source of randomness they may
/// share them, which spoils at most their outcome.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_noted() {
        let clock = |ahead_ms| Findings { ahead_ms, ..Findings::default() }.clock();
        assert_eq!(clock(3), "the clock of Redis is 3 ms ahead of that of this host");
        assert_eq!(
            clock(-5_000),
            "the clock of Redis is 5000 ms behind that of this host: leases run by that of Redis \
             alone, but times in logs will not agree"
        );
    }
}
