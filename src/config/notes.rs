//! Floor 7. Notes for the operator on a configuration that can be served: settings that have no
//! effect, or another one than they seem to have.

use crate::apps::{App, Apps};
use crate::front::Opening;
use crate::front::address::Trusted;

use super::apps::AppPlan;
use super::raw_value::RawValue;
use super::server::{ServerConfig, cores};
use super::settings::{self, ALL};
use super::sources::Sources;
use super::value_type::ValueType;
use super::values::ListenAddr;
use super::{capacity, publishing, soketi, variables};

/// All notes, one sentence or two each.
pub(super) fn collect(
    sources: &Sources<'_>,
    plan: &AppPlan,
    server: &ServerConfig,
    apps: &Apps,
) -> Vec<String> {
    let mut notes = sources.notes().to_vec();
    notes.extend(public_development_app(plan, server));
    notes.extend(publishing::collect(sources, plan, server));
    notes.extend(capacity::notes(server, cores()));
    notes.extend(server_name(sources));
    notes.extend(rate_limiting_word(sources, plan));
    notes.extend(idle_app_variables(sources, plan, apps));
    notes.extend(webhook_to_nowhere(sources, plan));
    notes.extend(one_address_for_all(server));
    notes.extend(overridden_addresses(sources, server));
    notes.extend(events_past_requests(apps));
    notes.extend(variables::collect(sources));
    notes
}

fn public_development_app(plan: &AppPlan, server: &ServerConfig) -> Option<String> {
    let public = server.listeners.iter().find(|listener| !listener.is_local())?;
    plan.has_development().then(|| {
        format!(
            "The development app is served on {public}: its secret is public, so anyone who can \
             connect can publish."
        )
    })
}

fn server_name(sources: &Sources<'_>) -> Option<String> {
    let (raw, source) = sources.variable("REVERB_SERVER")?;
    (raw != RawValue::Text("reverb".into())).then(|| {
        format!("There is one server, named `reverb`: the other name has no effect ({source}).")
    })
}

fn rate_limiting_word(sources: &Sources<'_>, plan: &AppPlan) -> Option<String> {
    let name = settings::RATE_LIMITING_ENABLED.declaration.env?;
    let (raw, source) = sources.variable(name)?;
    (plan.uses_variables() && matches!(raw, RawValue::Text(_))).then(|| {
        format!("Rate limiting stays off, as in Reverb: {raw} is not the word true ({source}).")
    })
}

fn idle_app_variables(sources: &Sources<'_>, plan: &AppPlan, apps: &Apps) -> Option<String> {
    if plan.uses_variables() {
        return None;
    }
    let of_apps = ALL.iter().map(|setting| setting.declaration());
    let of_apps = of_apps.filter(|declaration| declaration.key.starts_with("app."));
    let aliases = sources.aliases().filter(|alias| alias.key.starts_with("app."));
    let names = of_apps.filter_map(|declaration| declaration.env);
    let names = names.chain(aliases.map(|alias| alias.name)).chain([soketi::WEBHOOKS]);
    let set: Vec<_> = names.filter(|name| sources.variable(name).is_some()).collect();
    (!set.is_empty()).then(|| {
        format!(
            "{} {} no effect: the {} app(s) of ringwave.toml take their settings from the file.",
            set.join(", "),
            if set.len() == 1 { "has" } else { "have" },
            apps.iter().count(),
        )
    })
}

fn webhook_to_nowhere(sources: &Sources<'_>, plan: &AppPlan) -> Option<String> {
    let [url, events] =
        [settings::WEBHOOK_URL.declaration.env?, settings::WEBHOOK_EVENTS.declaration.env?];
    let (_, source) = sources.variable(events)?;
    let idle = plan.uses_variables() && sources.variable(url).is_none();
    idle.then(|| format!("{url} is not set, so there is no webhook to send events to ({source})."))
}

/// Notes that all clients of a proxy share the limits of one address if the proxy is not believed.
fn one_address_for_all(server: &ServerConfig) -> Option<String> {
    let limits = &server.address_limits;
    let limited = limits.connections.is_some() || limits.requests_per_second.is_some();
    let hidden = server.listeners.iter().find(|listener| {
        let believed = server.trusted_proxies.iter().any(|trusted| match &listener.address {
            ListenAddr::Tcp(_) => matches!(trusted, Trusted::Network(_)),
            ListenAddr::Unix(_) => *trusted == Trusted::Unix,
        });
        listener.is_local() && listener.opening == Opening::Http && !believed
    })?;
    limited.then(|| {
        let (what, remedy) = match &hidden.address {
            ListenAddr::Tcp(address) => ("count as one address", address.ip().to_string()),
            ListenAddr::Unix(_) => ("are not counted at all", "unix".to_owned()),
        };
        format!(
            "The limits per address: clients that a proxy of this host passes on to {hidden} \
             {what}, unless the proxy is believed: server.trusted_proxies={remedy}."
        )
    })
}

/// Notes a host or port that has no effect because `server.listen` replaces both, whichever source
/// it comes from.
fn overridden_addresses(sources: &Sources<'_>, server: &ServerConfig) -> Option<String> {
    let (_, listen) = sources.of_server(&settings::LISTEN.declaration)?;
    let tcp = || {
        server.listeners.iter().filter_map(|listener| match &listener.address {
            ListenAddr::Tcp(address) => Some(address),
            ListenAddr::Unix(_) => None,
        })
    };
    let host = sources.of_server(&settings::HOST.declaration).filter(|(raw, _)| {
        let host = settings::HOST.value_type.parse(raw).ok();
        !tcp().any(|address| Some(address.ip()) == host)
    });
    let port = sources.of_server(&settings::PORT.declaration).filter(|(raw, _)| {
        let port = settings::PORT.value_type.parse(raw).ok();
        !tcp().any(|address| Some(address.port()) == port)
    });
    let idle: Vec<_> = [host, port].into_iter().flatten().map(|(_, source)| source).collect();
    (!idle.is_empty()).then(|| {
        let names: Vec<_> = idle.iter().map(ToString::to_string).collect();
        let places: Vec<_> = server.listeners.iter().map(ToString::to_string).collect();
        format!(
            "{} {} no effect: server.listen ({listen}) counts, and names {}.",
            names.join(" and "),
            if names.len() == 1 { "has" } else { "have" },
            places.join(", "),
        )
    })
}

/// Notes that an event which is larger than a request never arrives.
fn events_past_requests(apps: &Apps) -> Option<String> {
    let past = |app: &App| {
        app.rules.limits.max_event_data.is_some_and(|data| data > app.rules.limits.max_request_size)
    };
    let app = apps.iter().find(|app| past(app))?;
    Some(format!(
        "The app {} allows events of {} bytes, but requests may have {} \
         (server.max_request_size): larger ones are answered 413.",
        app.id,
        app.rules.limits.max_event_data.unwrap_or_default(),
        app.rules.limits.max_request_size,
    ))
}
