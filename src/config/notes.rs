//! Floor 6. What an operator should hear although nothing is wrong: settings that have no effect,
//! or another one than they seem to have.

use crate::front::Opening;
use crate::front::address::Trusted;
use crate::protocol::app::Apps;

use super::apps::Plan;
use super::form::{Form, Given, Switch};
use super::server::{ListenAddr, Listener, ServerConfig, cores};
use super::settings::{self, ALL};
use super::sources::Sources;
use super::{capacity, nearest};

/// All notes, one sentence or two each.
pub(super) fn collect(
    sources: &Sources<'_>,
    plan: &Plan,
    server: &ServerConfig,
    apps: &Apps,
) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(public_development_app(plan, server));
    notes.extend(publishing_port(sources, server));
    notes.extend(capacity::notes(server, cores()));
    notes.extend(scaling(sources));
    notes.extend(server_name(sources));
    notes.extend(rate_limiting_word(sources, plan));
    notes.extend(idle_app_variables(sources, plan, apps));
    notes.extend(webhook_to_nowhere(sources, plan));
    notes.extend(one_address_for_all(server));
    notes.extend(misspelt_variables(sources));
    notes
}

fn public_development_app(plan: &Plan, server: &ServerConfig) -> Option<String> {
    let public = server.listeners.iter().find(|place| !place.is_local())?;
    plan.has_development().then(|| {
        format!(
            "The development app is served on {public}: its secret is public, so anyone who can \
             connect can publish."
        )
    })
}

/// `REVERB_PORT` is where the app publishes, `REVERB_SERVER_PORT` where the server listens. On one
/// host they are usually meant to be the same.
fn publishing_port(sources: &Sources<'_>, server: &ServerConfig) -> Option<String> {
    let (port, _) = sources.variable("REVERB_PORT")?;
    let (host, _) = sources.variable("REVERB_HOST")?;
    let (Given::Text(port), Given::Text(host)) = (port, host) else { return None };
    let local = matches!(host.as_str(), "localhost" | "::1" | "[::1]") || host.starts_with("127.");
    let tcp = |listener: &Listener| match &listener.place {
        ListenAddr::Tcp(address) => Some(address.port().to_string()),
        ListenAddr::Unix(_) => None,
    };
    let ports: Vec<_> = server.listeners.iter().filter_map(tcp).collect();
    (local && !ports.is_empty() && !ports.contains(&port)).then(|| {
        format!(
            "REVERB_PORT={port} tells your app where to publish, but this server listens on {}: \
             start it with --port={port}, or set REVERB_SERVER_PORT.",
            ports.join(", "),
            port = port.escape_debug(),
        )
    })
}

fn scaling(sources: &Sources<'_>) -> Option<String> {
    let (given, source) = sources.variable("REVERB_SCALING_ENABLED")?;
    let on = Switch::PhpTruthy.accept(&given).unwrap_or(true);
    on.then(|| {
        format!(
            "Scaling over Redis is switched on ({source}; in Reverb any text but 0 and false is \
             on), but not available in this version: events reach the clients of this server \
             only. Run a single server, whose shards use all cores, and set \
             REVERB_SCALING_ENABLED=false."
        )
    })
}

fn server_name(sources: &Sources<'_>) -> Option<String> {
    let (given, source) = sources.variable("REVERB_SERVER")?;
    (given != Given::Text("reverb".into())).then(|| {
        format!("There is one server, named `reverb`: the other name has no effect ({source}).")
    })
}

fn rate_limiting_word(sources: &Sources<'_>, plan: &Plan) -> Option<String> {
    let name = settings::RATE_LIMITING_ENABLED.declaration.env?;
    let (given, source) = sources.variable(name)?;
    (plan.uses_variables() && matches!(given, Given::Text(_))).then(|| {
        format!("Rate limiting stays off, as in Reverb: {given} is not the word true ({source}).")
    })
}

fn idle_app_variables(sources: &Sources<'_>, plan: &Plan, apps: &Apps) -> Option<String> {
    if plan.uses_variables() {
        return None;
    }
    let of_apps = ALL.iter().map(|setting| setting.declaration());
    let of_apps = of_apps.filter(|declaration| declaration.key.starts_with("app."));
    let set: Vec<_> = of_apps
        .filter_map(|declaration| declaration.env)
        .filter(|name| sources.variable(name).is_some())
        .collect();
    (!set.is_empty()).then(|| {
        format!(
            "{} {} no effect: the {} app(s) of ringwave.toml take their settings from the file.",
            set.join(", "),
            if set.len() == 1 { "has" } else { "have" },
            apps.iter().count(),
        )
    })
}

fn webhook_to_nowhere(sources: &Sources<'_>, plan: &Plan) -> Option<String> {
    let [url, events] =
        [settings::WEBHOOK_URL.declaration.env?, settings::WEBHOOK_EVENTS.declaration.env?];
    let (_, source) = sources.variable(events)?;
    let idle = plan.uses_variables() && sources.variable(url).is_none();
    idle.then(|| format!("{url} is not set, so there is no webhook to send events to ({source})."))
}

/// Behind a proxy that is not believed, all clients have its address, and the limits of one.
fn one_address_for_all(server: &ServerConfig) -> Option<String> {
    let limits = &server.address_limits;
    let limited = limits.connections.is_some() || limits.requests_per_second.is_some();
    let hidden = server.listeners.iter().find(|listener| {
        let believed = server.trusted_proxies.iter().any(|trusted| match &listener.place {
            ListenAddr::Tcp(_) => matches!(trusted, Trusted::Network(_)),
            ListenAddr::Unix(_) => *trusted == Trusted::Unix,
        });
        listener.is_local() && listener.opening == Opening::Http && !believed
    })?;
    limited.then(|| {
        let (what, remedy) = match &hidden.place {
            ListenAddr::Tcp(address) => ("count as one address", address.ip().to_string()),
            ListenAddr::Unix(_) => ("are not counted at all", "unix".to_owned()),
        };
        format!(
            "The limits per address: clients that a proxy of this host passes on to {hidden} \
             {what}, unless the proxy is believed: server.trusted_proxies={remedy}."
        )
    })
}

/// Variables with our prefix are meant for us; unknown `REVERB_*` ones may be the app's own.
fn misspelt_variables(sources: &Sources<'_>) -> Vec<String> {
    let known = || ALL.iter().filter_map(|setting| setting.declaration().env);
    let ours = sources.variable_names().into_iter().filter(|name| name.starts_with("RINGWAVE_"));
    let unknown = ours.filter(|name| !known().any(|known| known == *name));
    let note = |name: &str| {
        let hint = nearest(name, known());
        let hint = hint.map_or_else(String::new, |known| format!("; the nearest is {known}"));
        format!("There is no variable {name}{hint}. It has no effect.")
    };
    unknown.map(note).collect()
}
