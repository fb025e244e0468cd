//! The way to the server that has a partition.

use std::sync::{Mutex, PoisonError};

use ::redis::{FromRedisValue, Value, cmd};

use super::call_error::CallError;
use super::error::RedisError;
use super::identity::Identity;
use super::keys::Keys;
use super::link::Link;
use super::peer::Peer;
use super::reader::Reader;
use super::script::HashedScript;
use super::socket;
use super::tls::TlsClient;
use super::writer::Writer;
use crate::cluster::store::{self, Connection};
use crate::cluster::{ClusterSettings, RedisAddress, RedisLogin, RedisPlace, scripts};

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
    pub(crate) fn new(settings: &ClusterSettings) -> Result<Self, RedisError> {
        let tls = if settings.place.addresses().iter().any(RedisAddress::is_tls) {
            Some(TlsClient::new(&settings.tls)?)
        } else {
            None
        };
        Ok(Self {
            name: settings.name.clone(),
            place: settings.place.clone(),
            login: settings.login.clone(),
            database: settings.database,
            tls,
            enter: HashedScript::new(scripts::ENTER),
            call: HashedScript::new(scripts::CALL),
            met: Mutex::default(),
        })
    }

    /// Finds the server that has the keys: the only one, the master that sentinels name, or the one
    /// of the Redis Cluster. Takes seconds where servers do not answer.
    ///
    /// # Errors
    /// There is no such server, it cannot be reached, or cannot be used.
    pub(super) async fn find(&self, keys: &Keys) -> Result<Server, RedisError> {
        match &self.place {
            RedisPlace::Standalone(address) => self.standalone(address, keys).await,
            RedisPlace::Sentinel { sentinels, master, login } => {
                self.behind_sentinels(sentinels, master, login).await
            }
            RedisPlace::Cluster(addresses) => self.in_cluster(addresses, keys).await,
        }
    }

    /// The half for calls, over the link of a server.
    pub(super) fn writer(&self, server: Server, keys: Keys) -> Writer {
        Writer::new(server.peer, server.link, keys, self.enter.clone(), self.call.clone())
    }

    async fn standalone(&self, address: &RedisAddress, keys: &Keys) -> Result<Server, RedisError> {
        let mut server = self.open(&Peer::of_settings(address)).await?;
        server.expect_master()?;
        match server.has(keys).await? {
            Owner::Itself => Ok(server),
            Owner::Other(_) => Err(RedisError::InCluster { peer: server.peer }),
        }
    }

    async fn behind_sentinels(
        &self,
        sentinels: &[RedisAddress],
        master: &str,
        login: &RedisLogin,
    ) -> Result<Server, RedisError> {
        let mut last = None;
        for sentinel in sentinels {
            match self.master_by(&Peer::sentinel(sentinel), master, login).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(RedisError::none_of(sentinels.len(), last))
    }

    /// The master that a sentinel names. Its role is checked, because a sentinel may not know yet
    /// that it has lost it.
    async fn master_by(
        &self,
        sentinel: &Peer,
        master: &str,
        login: &RedisLogin,
    ) -> Result<Server, RedisError> {
        let mut link = self.open_link(sentinel, login).await?;
        let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).take();
        let peer = match link.request(&question).await {
            Ok(Value::Nil) => {
                let (peer, master) = (sentinel.clone(), master.into());
                return Err(RedisError::UnknownMaster { peer, master });
            }
            Ok(answer) => master_of(sentinel, answer)
                .ok_or_else(|| unreadable(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME"))?,
            Err(CallError::Refused(reply)) => {
                return Err(RedisError::NoSentinel { peer: sentinel.clone(), reply });
            }
            Err(cause) => return Err(RedisError::of_call(sentinel, cause)),
        };
        let server = self.open(&peer).await?;
        server.expect_master()?;
        Ok(server)
    }

    async fn in_cluster(
        &self,
        addresses: &[RedisAddress],
        keys: &Keys,
    ) -> Result<Server, RedisError> {
        let candidates = self.candidates(addresses);
        let mut last = None;
        for address in &candidates {
            match self.owner_by(Peer::of_settings(address), keys).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(RedisError::none_of(candidates.len(), last))
    }

    /// The server that has the keys, beginning with one that may know it.
    async fn owner_by(&self, mut peer: Peer, keys: &Keys) -> Result<Server, RedisError> {
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
        Err(RedisError::Circle { peer })
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
    async fn open(&self, peer: &Peer) -> Result<Server, RedisError> {
        let mut link = self.open_link(peer, &self.login).await?;
        self.select(peer, &mut link).await?;
        let identity = Identity::ask(&mut link).await;
        let identity = identity.map_err(|cause| RedisError::of_call(peer, cause))?;
        let peer = peer.clone();
        if identity.sentinel {
            return Err(RedisError::IsSentinel { peer });
        }
        if !identity.is_recent() {
            return Err(RedisError::Old { peer, product: identity.product() });
        }
        Ok(Server { peer, link, identity })
    }

    /// Connects to a server or a sentinel, and logs in.
    async fn open_link(&self, peer: &Peer, login: &RedisLogin) -> Result<Link, RedisError> {
        let socket = socket::open(peer, self.tls.as_ref()).await?;
        let link = Link::over(socket).await;
        let mut link = link.map_err(|cause| RedisError::of_call(peer, cause))?;
        let arguments = login.auth_arguments();
        if !arguments.is_empty() {
            let answer = link.request(cmd("AUTH").arg(arguments)).await;
            answer.map_err(|cause| match cause {
                CallError::Refused(reply) => RedisError::Login { peer: peer.clone(), reply },
                cause => RedisError::of_call(peer, cause),
            })?;
        }
        // A name for `CLIENT LIST`. A user may lack the right, and nothing depends on it.
        match link.request(cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME)).await {
            Err(cause @ (CallError::Silent | CallError::Lost(_) | CallError::NotRedis)) => {
                Err(RedisError::of_call(peer, cause))
            }
            _ => Ok(link),
        }
    }

    async fn select(&self, peer: &Peer, link: &mut Link) -> Result<(), RedisError> {
        let database = self.database;
        if database == 0 {
            return Ok(());
        }
        let answer = link.request(cmd("SELECT").arg(database)).await;
        answer.map(drop).map_err(|cause| match cause {
            CallError::Refused(reply) => {
                RedisError::Database { peer: peer.clone(), database, reply }
            }
            cause => RedisError::of_call(peer, cause),
        })
    }
}

impl store::Connector for Connector {
    type Writer = Writer;
    type Reader = Reader;
    type Error = RedisError;

    async fn connect(&self, partition: u16) -> Result<Connection<Writer, Reader>, RedisError> {
        let keys = Keys::of_partition(&self.name, partition);
        let writing = self.find(&keys).await?;
        let reading = self.open(&writing.peer).await?;
        let run_id = writing.identity.run_id.clone();
        if reading.identity.run_id != run_id {
            return Err(RedisError::Several { peer: reading.peer });
        }
        let reader = Reader::new(reading.peer, reading.link, keys.clone());
        Ok(Connection { writer: self.writer(writing, keys), reader, run_id })
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
    fn expect_master(&self) -> Result<(), RedisError> {
        if self.identity.replica {
            return Err(RedisError::Replica { peer: self.peer.clone() });
        }
        Ok(())
    }

    /// Asks for a key of the partition: a server of a Redis Cluster answers with the owner of its
    /// slot, whatever it takes to compute it.
    async fn has(&mut self, keys: &Keys) -> Result<Owner, RedisError> {
        match self.link.request(cmd("GET").arg(&keys.partitions()[..])).await {
            Ok(_) => Ok(Owner::Itself),
            Err(CallError::Moved(target)) => Ok(Owner::Other(target)),
            Err(cause) => Err(RedisError::of_call(&self.peer, cause)),
        }
    }
}

fn master_of(sentinel: &Peer, answer: Value) -> Option<Peer> {
    let (host, port) = FromRedisValue::from_redis_value(answer).ok()?;
    let (host, port): (String, u16) = (host, port);
    Some(sentinel.master(&host, port))
}

fn unreadable(peer: &Peer, request: &'static str) -> RedisError {
    RedisError::of_call(peer, CallError::Unreadable(request))
}
