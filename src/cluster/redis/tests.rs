//! The connections, with real servers of Redis where there are any.

#[path = "../../../tests/support/left_out.rs"]
mod left_out;

mod cluster;
mod errors;
mod fake;
mod outages;
mod rights;
mod sentinel;
mod server;
mod standalone;
mod tls;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::cluster::wire::{CallKind, Entrance, NodeId};
use crate::cluster::{
    ClusterSettings, Password, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway,
};

/// Scripts that do as much of the real ones as connections are concerned with: the entrance keeps
/// the number of partitions and an epoch, and a call appends each of its arguments to the inbox.
const SCRIPTS: Scripts = Scripts {
    enter: "
        local tag, node, partitions = ARGV[1], ARGV[2], ARGV[3]
        local known = redis.call('GET', tag .. 'partitions')
        if known and known ~= partitions then
            return redis.error_reply('PARTITIONS ' .. known)
        end
        redis.call('SET', tag .. 'partitions', partitions)
        redis.call('SET', tag .. 'epoch', ARGV[4], 'NX')
        redis.call('ZADD', KEYS[1], 1, node)
        local time = redis.call('TIME')
        local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
        return { redis.call('GET', tag .. 'epoch'), '7', 'f', now }",
    call: "
        local tag, node, epoch = ARGV[1], ARGV[2], ARGV[3]
        if redis.call('GET', tag .. 'epoch') ~= epoch then
            return 'enter'
        end
        for i = 9, #ARGV do
            redis.call('XADD', tag .. 'in:' .. node, '*', 'r', ARGV[i])
        end
        return 'done'",
};

const NODE: NodeId = NodeId(0xabc);

const EPOCH: &str = "an-epoch";

fn settings(place: RedisPlace) -> ClusterSettings {
    ClusterSettings {
        name: "reverb".into(),
        place,
        login: RedisLogin::default(),
        database: 0,
        tls: TlsFiles::default(),
        partitions: 1,
        lease: Duration::from_secs(5),
        retention: Duration::from_mins(1),
        patience: Duration::from_secs(8),
        when_away: WhenAway::Hold,
        backlog: 64 << 20,
        inbox: 64 << 20,
    }
}

fn standalone(port: u16) -> ClusterSettings {
    settings(RedisPlace::Standalone(tcp("127.0.0.1", port)))
}

fn tcp(host: &str, port: u16) -> RedisAddress {
    RedisAddress::Tcp { host: host.into(), port, tls: false }
}

fn over_tls(port: u16) -> RedisAddress {
    RedisAddress::Tcp { host: "127.0.0.1".into(), port, tls: true }
}

fn unix(path: &Path) -> ClusterSettings {
    settings(RedisPlace::Standalone(RedisAddress::Unix(path.to_owned())))
}

fn login(username: Option<&str>, password: &str) -> RedisLogin {
    RedisLogin { username: username.map(Into::into), password: Some(Password(password.into())) }
}

fn connector(settings: &ClusterSettings) -> Connector {
    Connector::new(settings, SCRIPTS).unwrap()
}

async fn connect(settings: &ClusterSettings) -> Connection {
    connector(settings).connect(0).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The sentence of the error with which a connection fails.
async fn refusal(settings: &ClusterSettings) -> String {
    let error = match Connector::new(settings, SCRIPTS) {
        Ok(connector) => connector.connect(0).await.unwrap_err(),
        Err(error) => error,
    };
    error.to_string()
}

fn entrance(partitions: u16) -> Entrance {
    Entrance {
        partitions,
        epoch: EPOCH.into(),
        run: "".into(),
        version: "1".into(),
        address: "here".into(),
        apps: "".into(),
        base: 0,
        lease_ms: 5_000,
        known: Vec::new(),
    }
}

const fn head(epoch: &str) -> CallHead<'_> {
    CallHead {
        node: NODE,
        epoch,
        kind: CallKind::Batch,
        number: 1,
        lease_ms: 5_000,
        retention_ms: 60_000,
        inbox_bytes: 64 << 20,
    }
}

impl Connection {
    async fn enter(&mut self, partitions: u16) {
        let entered = self.writer.enter(NODE, &entrance(partitions)).await.unwrap();
        assert_eq!((&*entered.epoch, entered.done, entered.unknown), (EPOCH, 7, true));
    }

    async fn append(&mut self, text: &'static str) -> Result<Executed, CallError> {
        self.writer.call(&head(EPOCH), vec![Bytes::from_static(text.as_bytes())]).await
    }

    /// Enters the only partition, and sends an entry to itself.
    async fn prove(&mut self) {
        self.prove_one_of(1).await;
    }

    async fn prove_one_of(&mut self, partitions: u16) {
        self.enter(partitions).await;
        assert_eq!(self.append("entry").await, Ok(Executed::Done));
        let entries = self.reader.read(NODE, "0").await.unwrap();
        assert_eq!(&*entries.last().unwrap().1, b"entry");
    }
}
