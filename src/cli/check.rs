//! Floor 9. `ringwave check`: reads the configuration as `start` would, and shows the values. For a
//! node of a cluster it also connects to Redis. Does not check the host.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use tokio::runtime::Builder;

use crate::cluster::{self, ClusterSettings};
use crate::config::{Config, Resolved};

use super::exit::{EXIT_UNAVAILABLE, refuse, tell};
use super::settings::SettingsArgs;

/// The configuration, and whether Redis is asked.
#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Do not connect to the Redis of the cluster
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(arguments: CheckArgs) -> ExitCode {
    let CheckArgs { settings, offline } = arguments;
    let loaded = settings.inputs().load();
    let config = match loaded.and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if show(&config, &mut io::stdout().lock()).is_err() {
        return ExitCode::FAILURE;
    }
    match config.cluster.filter(|_| !offline) {
        Some(cluster) => check_redis(&cluster),
        None => ExitCode::SUCCESS,
    }
}

/// Proves that a node can work with the Redis of its cluster, and prints what was found.
fn check_redis(cluster: &ClusterSettings) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&format!("cannot ask Redis: {error}"), EXIT_UNAVAILABLE),
    };
    match runtime.block_on(cluster::probe(cluster)) {
        Ok(findings) => {
            let mut out = io::stdout().lock();
            let printed =
                findings.lines().iter().try_for_each(|line| writeln!(out, "Redis: {line}."));
            printed.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Err(error) => tell(&error.to_string(), EXIT_UNAVAILABLE),
    }
}

/// Prints aligned columns (key, value, where it comes from), then the notes.
fn show(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let width = |column: fn(&Resolved) -> usize| {
        config.resolved.iter().map(column).max().unwrap_or_default()
    };
    let key_width = width(|line| line.key.chars().count());
    // One long value must not push the last column off the screen for all others.
    let value_width = width(|line| line.value.chars().count()).min(32);
    for Resolved { key, value, source, .. } in &config.resolved {
        let value = if value.is_empty() { "-" } else { value };
        writeln!(out, "{key:key_width$}  {value:value_width$}  {source}")?;
    }
    writeln!(out)?;
    for note in &config.notes {
        writeln!(out, "Note: {note}")?;
    }
    let apps = config.apps.iter().count();
    let places: Vec<_> = config.server.listeners.iter().map(ToString::to_string).collect();
    let s = if apps == 1 { "" } else { "s" };
    writeln!(out, "The configuration is valid: {apps} app{s} on {}.", places.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Environment, Flags, load};

    use super::*;

    #[test]
    fn values_are_shown_with_their_sources_and_secrets_are_not() {
        let environment: Environment = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "tops3cret"),
            ("REVERB_SCALING_ENABLED", "off"),
            ("REDIS_HOST", "redis.test"),
            ("REDIS_PASSWORD", "tops3cret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let nowhere = Path::new("/nonexistent");
        let config = load(&Flags::default(), &environment, nowhere).unwrap();
        let mut out = Vec::new();
        show(&config, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let fields = |key: &str| {
            let line = out.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fields("server.port"), "8080 default");
        assert_eq!(fields("server.path"), "- default");
        assert_eq!(fields("apps[0].key"), "k REVERB_APP_KEY of the environment");
        assert_eq!(fields("apps[0].secret"), "[withheld] REVERB_APP_SECRET of the environment");
        assert_eq!(
            fields("cluster.redis"),
            "redis://redis.test:6379 REDIS_HOST of the environment"
        );
        assert_eq!(fields("cluster.password"), "[withheld] REDIS_PASSWORD of the environment");
        assert!(out.contains("Note: \"off\" switches scaling on"));
        assert!(out.ends_with("The configuration is valid: 1 app on 0.0.0.0:8080.\n"));
        assert!(!out.contains("tops3cret"));
    }
}
