//! Floor 7. The settings of a cluster as the node takes them, and the contradictions among them.

use crate::cluster::{ClusterSettings, Password, RedisAddress, RedisLogin, RedisPlace, TlsFiles};

use super::error::{ClusterError, ConfigError};
use super::reader::SettingsReader;
use super::settings;
use super::value_types::RedisServer;
use super::values::RedisMode;

/// The number of partitions on a Redis Cluster: enough for several masters to share the work.
const PARTITIONS_OF_CLUSTER: u16 = 16;

/// Takes the settings of the cluster; `None` if the server stands alone. Then no other setting is
/// read: a Laravel app has variables of Redis for its own use.
pub(super) fn read(
    reader: &mut SettingsReader<'_>,
) -> Result<Option<ClusterSettings>, ConfigError> {
    if !reader.take(&settings::CLUSTER_ENABLED)? {
        return Ok(None);
    }
    let name = reader.take(&settings::CLUSTER_NAME)?;
    let mode = reader.take(&settings::CLUSTER_MODE)?;
    let servers = reader.take(&settings::CLUSTER_REDIS)?;
    let login = RedisLogin {
        username: not_empty(reader.take(&settings::CLUSTER_USERNAME)?),
        password: reader.take(&settings::CLUSTER_PASSWORD)?.map(Password),
    };
    let database = reader.take(&settings::CLUSTER_DATABASE)?;
    let sentinels = sentinels(reader)?;
    // Sentinels name the server, so the URL of another one says nothing.
    let named: &[_] = if mode == RedisMode::Sentinel { &[] } else { &servers };
    let login = login_of(named, login);
    let database = named.iter().find_map(|server| server.database).unwrap_or(database);
    let place = place(mode, servers, sentinels)?;
    if mode == RedisMode::Cluster && database != 0 {
        return Err(ClusterError::DatabaseOfCluster(database).into());
    }
    let of_mode = if mode == RedisMode::Cluster { PARTITIONS_OF_CLUSTER } else { 1 };
    Ok(Some(ClusterSettings {
        name,
        login,
        database,
        tls: tls(reader, &place)?,
        place,
        partitions: reader.take_or(&settings::CLUSTER_PARTITIONS, of_mode)?,
        lease: reader.take(&settings::CLUSTER_LEASE)?,
        retention: reader.take(&settings::CLUSTER_RETENTION)?,
        patience: reader.take(&settings::CLUSTER_PATIENCE)?,
        when_away: reader.take(&settings::CLUSTER_WHEN_AWAY)?,
        backlog: reader.take(&settings::CLUSTER_BACKLOG)?,
        inbox: reader.take(&settings::CLUSTER_INBOX)?,
    }))
}

/// The settings of sentinels.
struct Sentinels {
    servers: Vec<RedisServer>,
    master: Option<String>,
    login: RedisLogin,
}

fn sentinels(reader: &mut SettingsReader<'_>) -> Result<Sentinels, ConfigError> {
    let servers = reader.take(&settings::CLUSTER_SENTINELS)?;
    let master = not_empty(reader.take(&settings::CLUSTER_SENTINEL_MASTER)?);
    let login = RedisLogin {
        username: not_empty(reader.take(&settings::CLUSTER_SENTINEL_USERNAME)?),
        password: reader.take(&settings::CLUSTER_SENTINEL_PASSWORD)?.map(Password),
    };
    let login = login_of(&servers, login);
    Ok(Sentinels { servers, master, login })
}

/// The login of the URLs, and for the rest that of the settings beside them.
fn login_of(servers: &[RedisServer], beside: RedisLogin) -> RedisLogin {
    let username = servers.iter().find_map(|server| server.username.clone());
    let password = servers.iter().find_map(|server| server.password.clone());
    RedisLogin {
        username: username.or(beside.username),
        password: password.map(Password).or(beside.password),
    }
}

fn place(
    mode: RedisMode,
    servers: Vec<RedisServer>,
    sentinels: Sentinels,
) -> Result<RedisPlace, ClusterError> {
    let redis = settings::CLUSTER_REDIS.declaration.key;
    match mode {
        RedisMode::Standalone => {
            if !sentinels.servers.is_empty() {
                return Err(ClusterError::IdleSentinels);
            }
            let count = servers.len();
            let mut servers = servers.into_iter();
            match (servers.next(), count) {
                (Some(server), 1) => Ok(RedisPlace::Standalone(server.address)),
                _ => Err(ClusterError::SeveralServers(count)),
            }
        }
        RedisMode::Sentinel => {
            let key = settings::CLUSTER_SENTINELS.declaration.key;
            if sentinels.servers.is_empty() {
                return Err(ClusterError::NoSentinels);
            }
            Ok(RedisPlace::Sentinel {
                sentinels: alike(key, sentinels.servers)?,
                master: sentinels.master.ok_or(ClusterError::NoMaster)?,
                login: sentinels.login,
            })
        }
        RedisMode::Cluster => Ok(RedisPlace::Cluster(alike(redis, servers)?)),
    }
}

/// The addresses of servers that name others, which are spoken to in the same way.
fn alike(key: &'static str, servers: Vec<RedisServer>) -> Result<Vec<RedisAddress>, ClusterError> {
    let addresses: Vec<_> = servers.into_iter().map(|server| server.address).collect();
    if addresses.iter().any(|address| matches!(address, RedisAddress::Unix(_))) {
        return Err(ClusterError::UnixSocket(key));
    }
    let tls = addresses.iter().filter(|address| address.is_tls()).count();
    if tls == 0 || tls == addresses.len() { Ok(addresses) } else { Err(ClusterError::SomeTls(key)) }
}

fn tls(reader: &mut SettingsReader<'_>, place: &RedisPlace) -> Result<TlsFiles, ConfigError> {
    let files = TlsFiles {
        authorities: reader.take(&settings::CLUSTER_TLS_CA)?,
        certificate: reader.take(&settings::CLUSTER_TLS_CERTIFICATE)?,
        key: reader.take(&settings::CLUSTER_TLS_KEY)?,
    };
    if files.certificate.is_some() != files.key.is_some() {
        return Err(ClusterError::HalfCertificate.into());
    }
    let is_plain = !place.addresses().iter().any(RedisAddress::is_tls);
    if is_plain && files != TlsFiles::default() {
        return Err(ClusterError::TlsFilesWithoutTls.into());
    }
    Ok(files)
}

fn not_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
