//! The banner that `ringwave start` prints when it serves, for the operator who started it.

use std::io::{self, Write};

use super::limits;
use super::preflight::HostSurvey;
use crate::apps::App;
use crate::config::{Config, Credentials, DEVELOPMENT, ListenAddr};

/// Prints the start line, as Reverb does, and the apps, shards, limits and metrics.
pub(super) fn print(config: &Config, host: &HostSurvey, placement: &str) {
    let text = text(config, host, placement);
    let mut out = io::stdout().lock();
    // If stdout is closed, there is nowhere to report it.
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn text(config: &Config, host: &HostSurvey, placement: &str) -> String {
    let server = &config.server;
    let slots = limits::places_per_shard(host.nofile.soft, server.max_connections_per_shard);
    let apps: Vec<_> = config.apps.iter().map(|app| listed(app)).collect();
    let somaxconn = host.somaxconn.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
    let mut text = format!(
        "\n  INFO  {}.\n\n  \
         apps    {}\n  \
         shards  {} {placement}, {slots} connections each\n  \
         limits  nofile {}, memlock {}, somaxconn {somaxconn}\n",
        server.starting_line(),
        apps.join(", "),
        server.shards,
        host.nofile.soft,
        limits::size(
            Some(host.memlock.soft).filter(|&bytes| bytes != limits::ResourceLimit::UNLIMITED)
        ),
    );
    if let Some(admin) = &config.admin {
        text.push_str(&format!("  admin   http://{}/metrics\n", admin.listen));
    }
    if config.development {
        text.push_str(&development(config));
    }
    text.push('\n');
    text
}

fn listed(app: &App) -> String {
    let off = if app.rules.is_enabled() { "" } else { " (disabled)" };
    format!("{}{off}", app.id)
}

/// The settings by which Laravel and Echo connect to the built-in development app.
fn development(config: &Config) -> String {
    let tcp = config.server.listeners.iter().find_map(|listener| match &listener.address {
        ListenAddr::Tcp(address) => Some(address),
        ListenAddr::Unix(_) => None,
    });
    let port = tcp.map_or(8080, std::net::SocketAddr::port);
    let Credentials { id, key, secret } = DEVELOPMENT;
    let path = &config.server.path;
    let path_line =
        if path.is_empty() { String::new() } else { format!("\n            wsPath: '{path}',") };
    format!(
        "
  No app is configured: this is the development app.
  Laravel (.env):
    BROADCAST_CONNECTION=reverb
    REVERB_APP_ID={id}  REVERB_APP_KEY={key}  REVERB_APP_SECRET={secret}
    REVERB_HOST=127.0.0.1  REVERB_PORT={port}  REVERB_SCHEME=http
  Echo:
    new Echo({{
            broadcaster: 'reverb', key: '{key}', wsHost: '127.0.0.1', wsPort: {port},{path_line}
            forceTLS: false, enabledTransports: ['ws', 'wss'],
    }})
"
    )
}
