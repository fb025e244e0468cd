//! Floor 7. The value types of all settings, by the kind of value.

mod choice;
mod key_pairs;
mod log_filter;
mod network;
mod number;
mod redis;
mod socket_access;
mod text;
mod webhook;

pub(super) use choice::{Choice, Or, Switch};
pub(super) use key_pairs::KeyPairs;
pub(super) use log_filter::LogFilters;
pub(super) use network::{AdminAddress, HostAddress, ListenAddresses, OriginPatterns, Proxies};
pub(super) use number::{Seconds, Whole};
pub(super) use redis::{RedisServer, RedisServers, address_of_parts, with_port};
pub(super) use socket_access::{Account, FileMode, GroupName, UserName};
pub(super) use text::{
    AnyText, ClusterName, Identifier, OptionalSecret, PathOf, SecretText, UrlPath,
};
pub(super) use webhook::{EventNames, HeaderLines, WebhookUrl};
