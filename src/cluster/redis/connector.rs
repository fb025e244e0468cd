//! The way to the server that has a partition.

use std::slice;
use std::sync::{Mutex, PoisonError};

use ::redis::{FromRedisValue, Value, cmd};

use super::call_error::CallError;
use super::connect_error::ConnectError;
use super::identity::Identity;
use super::keys::Keys;
use super::link::Link;
use super::peer::{Bare, Peer};
use super::reader::Reader;
use super::script::{HashedScript, Scripts};
use super::socket;
use super::tls::TlsClient;
use super::writer::Writer;
use crate::cluster::{ClusterSettings, RedisAddress, RedisLogin, RedisPlace};

/// Connects to the servers that have the partitions of a cluster.
#[derive(Debug)]
pub(crate) struct Connector {
    /// The name of the cluster.
    name: String,
    place: RedisPlace,
    login: RedisLogin,
    database: u32,
    /// The material of TLS; `None` if no address asks for it.
    tls: Option<TlsClient>,
    enter: HashedScript,
    call: HashedScript,
    /// Servers of a Redis Cluster that once had a partition: they know the others even when none
    /// of the settings is left.
    met: Mutex<Vec<RedisAddress>>,
}

/// Two sockets to the server that has a partition. Dropping a half closes its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The half for calls.
    pub(crate) writer: Writer,
    /// The half for the inbox.
    pub(crate) reader: Reader,
    /// The id of the server's process, for the entrance; empty if it does not tell.
    pub(crate) run_id: Box<str>,
    /// The address of the server, for the operator.
    pub(crate) server: Box<str>,
}

/// A server that can be used: of a recent version, and logged in.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) peer: Peer,
    pub(super) link: Link,
    pub(super) identity: Identity,
}

impl Connector {
    /// Prepares connections. Reads the files of TLS, and blocks while it does.
    ///
    /// # Errors
    /// A file of TLS cannot be used.
    pub(crate) fn new(settings: &ClusterSettings, scripts: Scripts) -> Result<Self, ConnectError> {
        let tls =
            if asks_for_tls(&settings.place) { Some(TlsClient::new(&settings.tls)?) } else { None };
        Ok(Self {
            name: settings.name.clone(),
            place: settings.place.clone(),
            login: settings.login.clone(),
            database: settings.database,
            tls,
            enter: HashedScript::new(scripts.enter),
            call: HashedScript::new(scripts.call),
            met: Mutex::default(),
        })
    }

    /// Connects to the server that has the partition: the only one, the master that sentinels name,
    /// or the one of the Redis Cluster. Takes seconds where servers do not answer.
    ///
    /// # Errors
    /// There is no such server, it cannot be reached, or cannot be used.
    pub(crate) async fn connect(&self, partition: u16) -> Result<Connection, ConnectError> {
        let keys = Keys::of_partition(&self.name, partition);
        let writing = self.find(&keys).await?;
        let reading = self.open(&writing.peer).await?;
        if reading.identity.run_id != writing.identity.run_id {
            return Err(ConnectError::Several { peer: reading.peer });
        }
        let server = Bare(&writing.peer.address).to_string().into();
        let run_id = writing.identity.run_id;
        let reader = Reader::new(reading.link, keys.clone());
        let writer = self.writer(writing.link, keys);
        Ok(Connection { writer, reader, run_id, server })
    }

    /// Finds the server that has the keys.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(super) async fn find(&self, keys: &Keys) -> Result<Server, ConnectError> {
        match &self.place {
            RedisPlace::Standalone(address) => self.standalone(address, keys).await,
            RedisPlace::Sentinel { sentinels, master, login } => {
                self.behind_sentinels(sentinels, master, login).await
            }
            RedisPlace::Cluster(addresses) => self.in_cluster(addresses, keys).await,
        }
    }

    /// A writer that runs the scripts over this link.
    pub(super) fn writer(&self, link: Link, keys: Keys) -> Writer {
        Writer::new(link, keys, self.enter.clone(), self.call.clone())
    }

    async fn standalone(
        &self,
        address: &RedisAddress,
        keys: &Keys,
    ) -> Result<Server, ConnectError> {
        let mut server = self.open(&Peer::of_settings(address)).await?;
        server.expect_master()?;
        match server.has(keys).await? {
            Owner::Itself => Ok(server),
            Owner::Other(_) => Err(ConnectError::InCluster { peer: server.peer }),
        }
    }

    async fn behind_sentinels(
        &self,
        sentinels: &[RedisAddress],
        master: &str,
        login: &RedisLogin,
    ) -> Result<Server, ConnectError> {
        let mut last = None;
        for sentinel in sentinels {
            match self.master_by(&Peer::sentinel(sentinel), master, login).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(ConnectError::none_of(sentinels.len(), last))
    }

    /// The master that a sentinel names. Its role is checked, because a sentinel may not know yet
    /// that it has lost it.
    async fn master_by(
        &self,
        sentinel: &Peer,
        master: &str,
        login: &RedisLogin,
    ) -> Result<Server, ConnectError> {
        let mut link = self.open_link(sentinel, login).await?;
        let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).take();
        let peer = match link.request(&question).await {
            Ok(Value::Nil) => {
                let (peer, master) = (sentinel.clone(), master.into());
                return Err(ConnectError::UnknownMaster { peer, master });
            }
            Ok(answer) => master_of(sentinel, answer)
                .ok_or_else(|| unreadable(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME"))?,
            Err(CallError::Refused(reply)) => {
                return Err(ConnectError::NoSentinel { peer: sentinel.clone(), reply });
            }
            Err(cause) => return Err(ConnectError::of_call(sentinel, cause)),
        };
        let server = self.open(&peer).await?;
        server.expect_master()?;
        Ok(server)
    }

    async fn in_cluster(
        &self,
        addresses: &[RedisAddress],
        keys: &Keys,
    ) -> Result<Server, ConnectError> {
        let candidates = self.candidates(addresses);
        let mut last = None;
        for address in &candidates {
            match self.owner_by(Peer::of_settings(address), keys).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(ConnectError::none_of(candidates.len(), last))
    }

    /// The server that has the keys, beginning with one that may know it.
    async fn owner_by(&self, mut peer: Peer, keys: &Keys) -> Result<Server, ConnectError> {
        for _ in 0..REDIRECTIONS_MAX {
            let mut server = self.open(&peer).await?;
            match server.has(keys).await? {
                Owner::Itself => {
                    self.remember(&server.peer.address);
                    return Ok(server);
                }
                Owner::Other(target) => {
                    peer = peer.moved_to(&target).ok_or_else(|| unreadable(&peer, "MOVED"))?;
                }
            }
        }
        Err(ConnectError::Circle { peer })
    }

    fn candidates(&self, addresses: &[RedisAddress]) -> Vec<RedisAddress> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let met = met.iter().filter(|address| !addresses.contains(address));
        addresses.iter().chain(met).cloned().collect()
    }

    fn remember(&self, address: &RedisAddress) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if !met.contains(address) {
            met.insert(0, address.clone());
            met.truncate(MET_MAX);
        }
    }

    /// Connects to a server, and makes sure that it can be used.
    async fn open(&self, peer: &Peer) -> Result<Server, ConnectError> {
        let mut link = self.open_link(peer, &self.login).await?;
        self.select(peer, &mut link).await?;
        let identity = Identity::ask(&mut link).await;
        let identity = identity.map_err(|cause| ConnectError::of_call(peer, cause))?;
        let peer = peer.clone();
        if identity.sentinel {
            return Err(ConnectError::IsSentinel { peer });
        }
        if !identity.is_recent() {
            return Err(ConnectError::Old { peer, product: identity.product() });
        }
        Ok(Server { peer, link, identity })
    }

    /// Connects to a server or a sentinel, and logs in.
    async fn open_link(&self, peer: &Peer, login: &RedisLogin) -> Result<Link, ConnectError> {
        let socket = socket::open(peer, self.tls.as_ref()).await?;
        let link = Link::over(socket).await;
        let mut link = link.map_err(|cause| ConnectError::of_call(peer, cause))?;
        let arguments = login.auth_arguments();
        if !arguments.is_empty() {
            let answer = link.request(cmd("AUTH").arg(arguments)).await;
            answer.map_err(|cause| match cause {
                CallError::Refused(reply) => ConnectError::Login { peer: peer.clone(), reply },
                cause => ConnectError::of_call(peer, cause),
            })?;
        }
        // A name for `CLIENT LIST`. A user may lack the right, and nothing depends on it.
        match link.request(cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME)).await {
            Err(cause @ (CallError::Silent | CallError::Lost(_) | CallError::NotRedis)) => {
                Err(ConnectError::of_call(peer, cause))
            }
            _ => Ok(link),
        }
    }

    async fn select(&self, peer: &Peer, link: &mut Link) -> Result<(), ConnectError> {
        let database = self.database;
        if database == 0 {
            return Ok(());
        }
        let answer = link.request(cmd("SELECT").arg(database)).await;
        answer.map(drop).map_err(|cause| match cause {
            CallError::Refused(reply) => {
                ConnectError::Database { peer: peer.clone(), database, reply }
            }
            cause => ConnectError::of_call(peer, cause),
        })
    }
}

/// The name under which a node appears in `CLIENT LIST`.
const CLIENT_NAME: &str = "ringwave";

/// The servers of a Redis Cluster that are asked one after another until one has the partition. The
/// first knows the owner, unless it moves at this moment.
const REDIRECTIONS_MAX: usize = 5;

/// The servers that are remembered: more than the masters of the clusters that are common.
const MET_MAX: usize = 64;

/// The server that has the keys of a partition.
enum Owner {
    /// The one that was asked.
    Itself,
    /// The one at this `HOST:PORT`.
    Other(Box<str>),
}

impl Server {
    fn expect_master(&self) -> Result<(), ConnectError> {
        if self.identity.replica {
            return Err(ConnectError::Replica { peer: self.peer.clone() });
        }
        Ok(())
    }

    /// Asks for a key of the partition: a server of a Redis Cluster answers with the owner of its
    /// slot, whatever it takes to compute it.
    async fn has(&mut self, keys: &Keys) -> Result<Owner, ConnectError> {
        match self.link.request(cmd("GET").arg(&keys.partitions()[..])).await {
            Ok(_) => Ok(Owner::Itself),
            Err(CallError::Moved(target)) => Ok(Owner::Other(target)),
            Err(cause) => Err(ConnectError::of_call(&self.peer, cause)),
        }
    }
}

fn master_of(sentinel: &Peer, answer: Value) -> Option<Peer> {
    let (host, port) = FromRedisValue::from_redis_value(answer).ok()?;
    let (host, port): (String, u16) = (host, port);
    Some(sentinel.master(&host, port))
}

fn unreadable(peer: &Peer, request: &'static str) -> ConnectError {
    ConnectError::of_call(peer, CallError::Unreadable(request))
}

fn asks_for_tls(place: &RedisPlace) -> bool {
    let addresses = match place {
        RedisPlace::Standalone(address) => slice::from_ref(address),
        RedisPlace::Sentinel { sentinels, .. } => sentinels,
        RedisPlace::Cluster(addresses) => addresses,
    };
    addresses.iter().any(RedisAddress::is_tls)
}
