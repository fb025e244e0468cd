//! Floor 7. Notes on the settings of a cluster and on variables of the app's Redis that have no
//! effect, or another one than they seem to have.

use crate::cluster::{ClusterSettings, RedisPlace};

use super::settings::{self, ALL};
use super::sources::Sources;
use super::value_type::ValueType;
use super::value_types::RedisServer;

/// All notes, one sentence or two each. `cluster` is there if the server is one node of several.
pub(super) fn collect(sources: &Sources<'_>, cluster: Option<&ClusterSettings>) -> Vec<String> {
    let Some(cluster) = cluster else { return idle_settings(sources).into_iter().collect() };
    let mut notes = Vec::new();
    notes.extend(word_that_is_on(sources));
    notes.extend(user_without_password(sources, cluster));
    match &cluster.place {
        RedisPlace::Sentinel { .. } => notes.extend(server_of_sentinels(sources)),
        RedisPlace::Standalone(_) | RedisPlace::Cluster(_) => notes.extend(beside_the_url(sources)),
    }
    notes.extend(variables_of_the_client(sources));
    notes
}

/// Notes settings of a cluster that is not switched on. The variables of Laravel are not among
/// them: every app has them.
fn idle_settings(sources: &Sources<'_>) -> Option<String> {
    let enabled = &settings::CLUSTER_ENABLED.declaration;
    let of_cluster = ALL.iter().map(|setting| setting.declaration());
    let of_cluster = of_cluster.filter(|it| it.key.starts_with("cluster.") && *it != enabled);
    let set = of_cluster.filter_map(|declaration| sources.own(declaration));
    let set = set
        .filter(|(_, source)| source.variable().is_none_or(|name| name.starts_with("RINGWAVE_")));
    let names: Vec<_> = set.map(|(_, source)| source.to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} {} no effect, because this server stands alone: cluster.enabled \
             (REVERB_SCALING_ENABLED) makes it a node of a cluster.",
            names.join(", "),
            have(names.len()),
        )
    })
}

/// Notes a word that PHP takes for true, and that its writer probably did not.
fn word_that_is_on(sources: &Sources<'_>) -> Option<String> {
    const MEANT_AS_OFF: [&str; 4] = ["off", "no", "none", "disabled"];
    let (raw, source) = sources.own(&settings::CLUSTER_ENABLED.declaration)?;
    let word = raw.as_text().to_ascii_lowercase();
    MEANT_AS_OFF.contains(&word.as_str()).then(|| {
        format!(
            "{raw} switches scaling on ({source}): as in Reverb, any text but 0 and false does. \
             Write false for a server that stands alone."
        )
    })
}

fn user_without_password(sources: &Sources<'_>, cluster: &ClusterSettings) -> Option<String> {
    let idle = cluster.login.username.is_some() && cluster.login.password.is_none();
    let place = [&settings::CLUSTER_USERNAME.declaration, &settings::CLUSTER_REDIS.declaration];
    let (_, source) = place.into_iter().find_map(|it| sources.of_server(it)).filter(|_| idle)?;
    Some(format!(
        "The user of Redis has no effect ({source}): without a password nobody signs in there. \
         cluster.password (REDIS_PASSWORD) is its setting."
    ))
}

/// Notes a server that is named although sentinels name it. The app's variables are its own.
fn server_of_sentinels(sources: &Sources<'_>) -> Option<String> {
    let (_, source) = sources.own(&settings::CLUSTER_REDIS.declaration)?;
    Some(format!(
        "{source} has no effect: with cluster.mode sentinel the sentinels name the server. User, \
         password and database have settings of their own."
    ))
}

/// Notes parts of the URL of Redis that have no effect, and settings that the URL overrides. The
/// variables of the app are not among these: Laravel too passes over them without a word.
fn beside_the_url(sources: &Sources<'_>) -> Vec<String> {
    let Some((raw, source)) = sources.of_server(&settings::CLUSTER_REDIS.declaration) else {
        return Vec::new();
    };
    let servers = settings::CLUSTER_REDIS.value_type.parse(&raw).unwrap_or_default();
    let mut notes = Vec::new();
    let ignored: Vec<_> = servers.iter().flat_map(|server| server.ignored.iter()).collect();
    if !ignored.is_empty() {
        let names = ignored.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        notes.push(format!("The URL of Redis has parameters without effect ({source}): {names}."));
    }
    let has = |part: fn(&RedisServer) -> bool| servers.iter().any(part);
    for (declaration, is_in_url) in [
        (&settings::CLUSTER_USERNAME.declaration, has(|server| server.username.is_some())),
        (&settings::CLUSTER_PASSWORD.declaration, has(|server| server.password.is_some())),
        (&settings::CLUSTER_DATABASE.declaration, has(|server| server.database.is_some())),
    ] {
        if let Some((_, beside)) = sources.own(declaration).filter(|_| is_in_url) {
            notes.push(format!("{beside} has no effect: the URL of Redis has its own ({source})."));
        }
    }
    notes
}

/// Notes variables by which Laravel tells its client of Redis what has no meaning here.
fn variables_of_the_client(sources: &Sources<'_>) -> Vec<String> {
    const OF_CLIENT: [(&str, &str); 3] = [
        ("REDIS_TIMEOUT", "a node never gives Redis up, and serves again when it is back"),
        ("REDIS_PREFIX", "the keys of a cluster begin with `{ringwave:` and cluster.name"),
        (
            "REDIS_CLUSTER",
            "it tells PHP how to divide keys; RINGWAVE_CLUSTER_MODE=cluster is for a Redis Cluster",
        ),
    ];
    let set = OF_CLIENT.into_iter().filter_map(|(name, reason)| {
        let (_, source) = sources.variable(name)?;
        Some(format!("{source} has no effect on the cluster: {reason}."))
    });
    set.collect()
}

const fn have(count: usize) -> &'static str {
    if count == 1 { "has" } else { "have" }
}
