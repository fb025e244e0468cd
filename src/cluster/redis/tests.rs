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

use super::acl::ACL_LINE;
use super::call_error::CallError;
use super::probe::Findings;
use super::reader::Reader;
use super::writer::Writer;
use super::*;
use crate::cluster::store::{self, CallHead, Connector as _, Executed, Reader as _, Writer as _};
use crate::cluster::wire::{CallKind, Command, Entrance, Entry, NodeId, Record};
use crate::cluster::{
    ClusterSettings, Password, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway,
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
    Connector::new(settings).unwrap()
}

/// A connection, as the connector makes it.
type Connection = store::Connection<Writer, Reader>;

async fn connect(settings: &ClusterSettings) -> Connection {
    connector(settings).connect(0).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The sentence of the error with which a connection fails.
async fn refusal(settings: &ClusterSettings) -> String {
    error(settings).await.to_string()
}

async fn error(settings: &ClusterSettings) -> RedisError {
    match Connector::new(settings) {
        Ok(connector) => connector.connect(0).await.unwrap_err(),
        Err(error) => error,
    }
}

fn entrance(partitions: u16) -> Entrance {
    Entrance {
        partitions,
        epoch: EPOCH.into(),
        run: "".into(),
        version: "1".into(),
        address: "here".into(),
        base: 0,
        lease_ms: 5_000,
        known: Vec::new(),
    }
}

fn head(number: u64) -> CallHead {
    CallHead {
        node: NODE,
        epoch: EPOCH.into(),
        kind: CallKind::Registration,
        number,
        lease_ms: 5_000,
        retention_ms: 60_000,
        inbox_bytes: 64 << 20,
    }
}

/// The arguments of a command that appends a question to the inbox of each node.
fn question() -> Vec<Bytes> {
    let mut args = Vec::new();
    Command::Ask(1, Bytes::from_static(b"question")).push_args(&mut args);
    args
}

/// The reason for which a request failed.
fn cause(error: RedisError) -> CallError {
    match error {
        RedisError::Call { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

impl Connection {
    async fn enter(&mut self, partitions: u16) {
        let entered = self.writer.enter(NODE, &entrance(partitions)).await.unwrap();
        assert_eq!(&*entered.epoch, EPOCH);
    }

    /// Lets the node send an entry to itself.
    async fn ask(&mut self, number: u64) -> Result<Executed, CallError> {
        self.writer.call(&head(number), &question()).await.map_err(cause)
    }

    async fn read(&mut self, after: &str) -> Result<Vec<(Box<str>, Bytes)>, CallError> {
        self.reader.read(NODE, after).await.map_err(cause)
    }

    /// Enters the only partition, sends an entry and reads it.
    async fn prove(&mut self) {
        self.prove_one_of(1).await;
    }

    async fn prove_one_of(&mut self, partitions: u16) {
        self.enter(partitions).await;
        assert_eq!(self.ask(1).await, Ok(Executed::Done));
        let entries = self.read("0").await.unwrap();
        let entry = Entry::decode(entries.last().unwrap().1.clone()).unwrap();
        assert_eq!((entry.origin, entry.number), (NODE, 1));
        let question = Some(Record::Question(NODE, 1, Bytes::from_static(b"question")));
        assert!(entry.records().any(|record| record == question));
    }
}
