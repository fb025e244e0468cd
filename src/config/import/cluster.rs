//! The Redis of another server, as the `[cluster]` of ours. The name, the server and the login mean
//! the same here; the messages that go over it do not, so both may use one Redis side by side.

use serde_json::Value;

use crate::config::raw_value::RawValue;
use crate::config::value_types::{address_of_parts, with_port};

use super::error::ImportError;
use super::loose::Field;
use super::writer::TomlWriter;

/// The fields that say where a Redis is and how to sign in. Absent ones are not written.
pub(super) struct RedisFields<'a> {
    pub(super) scheme: Option<String>,
    pub(super) url: Field<'a>,
    pub(super) host: Field<'a>,
    pub(super) port: Field<'a>,
    pub(super) username: Field<'a>,
    pub(super) password: Field<'a>,
    pub(super) database: Field<'a>,
}

/// The sentinels of another server.
pub(super) struct SentinelFields<'a> {
    /// A list of objects with `host` and `port`.
    pub(super) list: Field<'a>,
    pub(super) master: Field<'a>,
    pub(super) username: Field<'a>,
    pub(super) password: Field<'a>,
}

/// The name of the master that other servers take by default.
const MASTER_DEFAULT: &str = "mymaster";

/// Begins the table.
pub(super) fn begin(out: &mut TomlWriter) {
    out.table("[cluster]");
    out.truth("cluster.enabled", true);
}

/// Takes the name by which nodes find each other.
pub(super) fn name(out: &mut TomlWriter, field: &Field<'_>) {
    out.setting("cluster.name", field);
}

impl RedisFields<'_> {
    /// Writes the server: its URL, or else its scheme, host and port.
    ///
    /// # Errors
    /// It cannot be served. Without it, the nodes would look for Redis elsewhere.
    pub(super) fn write(&self, out: &mut TomlWriter) -> Result<(), ImportError> {
        let port = text(&self.port);
        let (field, address) = match (text(&self.url), text(&self.host)) {
            (Some(url), _) => (&self.url, with_port(&url, port.as_deref())),
            (None, host) => {
                let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
                (&self.host, address_of_parts(self.scheme.as_deref(), &host, port.as_deref()))
            }
        };
        out.address("cluster.redis", &RawValue::Text(address), field)?;
        self.write_login(out);
        Ok(())
    }

    /// Writes what holds for every server: user, password and database.
    pub(super) fn write_login(&self, out: &mut TomlWriter) {
        out.secret("cluster.username", &self.username);
        out.secret("cluster.password", &self.password);
        out.setting("cluster.database", &self.database);
    }
}

impl SentinelFields<'_> {
    /// Writes the sentinels, if there are some. Returns whether there are.
    pub(super) fn write(&self, out: &mut TomlWriter, tls: bool) -> Result<bool, ImportError> {
        let sentinels = addresses(&self.list, tls)?;
        if sentinels.is_empty() {
            return Ok(false);
        }
        out.text("cluster.mode", "sentinel");
        out.address("cluster.sentinels", &RawValue::List(sentinels), &self.list)?;
        match self.master.is_absent() {
            true => out.text("cluster.sentinel_master", MASTER_DEFAULT),
            false => out.setting("cluster.sentinel_master", &self.master),
        }
        out.secret("cluster.sentinel_username", &self.username);
        out.secret("cluster.sentinel_password", &self.password);
        Ok(true)
    }
}

/// Writes the servers of a Redis Cluster.
pub(super) fn write_nodes(
    out: &mut TomlWriter,
    nodes: &Field<'_>,
    tls: bool,
) -> Result<(), ImportError> {
    out.text("cluster.mode", "cluster");
    let nodes_of = addresses(nodes, tls)?;
    if nodes_of.is_empty() {
        return Ok(());
    }
    out.address("cluster.redis", &RawValue::List(nodes_of), nodes)
}

/// The addresses of a list of URLs, or of objects with a host and a port.
fn addresses(list: &Field<'_>, tls: bool) -> Result<Vec<String>, ImportError> {
    let scheme = if tls { Some("rediss") } else { None };
    let mut addresses = Vec::new();
    for item in list.list()? {
        addresses.push(match item.value() {
            Some(Value::String(url)) if url.contains("://") => match url.strip_prefix("redis://") {
                Some(rest) if tls => format!("rediss://{rest}"),
                _ => url.clone(),
            },
            Some(Value::String(address)) => address_of_parts(scheme, address, None),
            _ => {
                let mut server = item.object()?;
                let host = text(&server.take("host")).unwrap_or_default();
                address_of_parts(scheme, &host, text(&server.take("port")).as_deref())
            }
        });
    }
    Ok(addresses)
}

/// Text or a number as text; `None` if there is none.
fn text(field: &Field<'_>) -> Option<String> {
    match field.value()? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
