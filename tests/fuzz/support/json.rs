//! Any JSON, which includes names and texts that the parsers look for.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Map, Value};

/// A value of some depth.
#[derive(Clone, Debug)]
pub struct Json(pub Value);

/// Names of fields that imports look for.
pub const NAMES: &[&str] = &[
    "apps",
    "app_id",
    "id",
    "key",
    "secret",
    "allowed_origins",
    "servers",
    "reverb",
    "default",
    "host",
    "port",
    "options",
    "scaling",
    "rate_limiting",
    "enabled",
    "max_connections",
    "appManager",
    "array",
    "app_manager",
    "policy",
    "limits",
    "channels",
    "features",
    "webhooks",
    "url",
    "event_types",
    "filter",
    "headers",
    "presence",
    "eventLimits",
    "maxPayloadInKb",
    "batching",
    "unix_socket",
    "path",
    "rate_limiter",
    "dashboard",
    "capacity",
    "managers",
    "appManager.array.apps",
    "appManager.array.apps.0.id",
    "a.b.c",
    "0",
    "1",
    "10",
    "name",
    "data",
    "channel",
    "info",
    "socket_id",
    "batch",
    "user_id",
    "user_info",
    "watchlist",
    "max_attempts",
    "decay_seconds",
    "terminate",
    "ping_interval",
    "max_message_size",
    "allowed_mass_origins",
    "enable_client_messages",
    "max_frontend_events_per_second",
];

/// Texts that mean something to the imports.
pub const TEXTS: &[&str] = &[
    "",
    "*",
    "any",
    "null",
    "true",
    "1",
    "-1",
    "1e400",
    "nan",
    "\n#[",
    "private-x",
    "presence-x",
    "cache-x",
    "client-x",
    "http://a.test/",
    "https://*.example",
    "127.0.0.1",
    "0.0.0.0",
    "${A}",
    "${A:-b}",
    "x",
    "\u{0}",
    "\u{7f}",
    "ü",
    "#server-to-user-1",
    "channel_occupied",
];

impl<'a> Arbitrary<'a> for Json {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        value(u, 5).map(Self)
    }
}

fn value(u: &mut Unstructured<'_>, depth: u32) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 5 } else { 9 })? {
        0 => Value::Null,
        1 => bool::arbitrary(u)?.into(),
        2 => i64::arbitrary(u)?.into(),
        3 => f64::arbitrary(u)?.into(),
        4 => (*u.choose(TEXTS)?).into(),
        5 => <&str>::arbitrary(u)?.into(),
        6 | 7 => {
            let len = u.int_in_range(0..=4)?;
            (0..len).map(|_| value(u, depth - 1)).collect::<Result<Vec<_>>>()?.into()
        }
        _ => {
            let mut fields = Map::new();
            for _ in 0..u.int_in_range(0..=6)? {
                let known = u.ratio(7, 8)?;
                let name = if known { *u.choose(NAMES)? } else { <&str>::arbitrary(u)? };
                fields.insert(name.to_owned(), value(u, depth - 1)?);
            }
            fields.into()
        }
    })
}
