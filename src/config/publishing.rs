//! Floor 7. Notes on a project that publishes to an address at which this server cannot be.
//!
//! The project and its pages publish to `REVERB_HOST`, `REVERB_PORT` and `REVERB_SCHEME` (or those
//! of `PUSHER_`). Usually a proxy listens there, and they say nothing about this server. A note is
//! due only if no proxy can be meant, and it never advises to give up a port that a proxy may have.

use std::net::IpAddr;

use crate::front::Opening;
use crate::front::address::Trusted;

use super::aliases::OF_PUSHER;
use super::apps::AppPlan;
use super::raw_value::RawValue;
use super::server::ServerConfig;
use super::sources::Sources;
use super::values::ListenAddr;
use super::{settings, soketi};

/// The ports of HTTP and HTTPS, where proxies listen.
const PROXY_PORTS: [u16; 2] = [80, 443];

/// All notes, one sentence or two each.
pub(super) fn collect(sources: &Sources<'_>, plan: &AppPlan, server: &ServerConfig) -> Vec<String> {
    // A project with soketi publishes by the same variables as one with hosted Pusher.
    let pusher = plan.uses_variables() && !sources.has_reverb_credential();
    let target = PublishTarget::of(sources, PUSHER).filter(|_| pusher);
    let target = target.or_else(|| PublishTarget::of(sources, REVERB));
    let mut notes = Vec::new();
    notes.extend(app_of_pusher(sources, plan, target.as_ref()));
    notes.extend(app_of_soketi(sources, plan));
    if let Some(target) = target.filter(|_| !is_behind_proxy(server)) {
        notes.extend(target.elsewhere(server).or_else(|| target.over_tls(server)));
    }
    notes
}

/// The variables of one family.
#[derive(Clone, Copy)]
struct Family {
    prefix: &'static str,
    host: &'static str,
    port: &'static str,
    scheme: &'static str,
}

const REVERB: Family =
    Family { prefix: "REVERB", host: "REVERB_HOST", port: "REVERB_PORT", scheme: "REVERB_SCHEME" };
const PUSHER: Family =
    Family { prefix: "PUSHER", host: "PUSHER_HOST", port: "PUSHER_PORT", scheme: "PUSHER_SCHEME" };

/// The address that the project publishes to.
struct PublishTarget {
    family: Family,
    host: String,
    port: Option<u16>,
    scheme: Option<String>,
}

impl PublishTarget {
    /// `None` without a host.
    fn of(sources: &Sources<'_>, family: Family) -> Option<Self> {
        let text = |name| match sources.raw(name) {
            Some(RawValue::Text(text)) => Some(text),
            _ => None,
        };
        Some(Self {
            family,
            host: text(family.host)?,
            port: text(family.port).and_then(|port| port.parse().ok()),
            scheme: text(family.scheme).map(|scheme| scheme.to_ascii_lowercase()),
        })
    }

    /// The project publishes to a port of this host in plain HTTP, and nothing of ours is there.
    fn elsewhere(&self, server: &ServerConfig) -> Option<String> {
        let Self { family, host, port, scheme } = self;
        let (port, address) = ((*port)?, loopback(host)?);
        let plain = scheme.as_deref() == Some("http") && !PROXY_PORTS.contains(&port);
        let places: Vec<_> = tcp(server).collect();
        let here = places.iter().any(|&(ip, own)| own == port && reaches(address, ip));
        (plain && !here && !places.is_empty()).then(|| {
            let ports: Vec<_> = places.iter().map(|(ip, own)| shown(*ip, *own)).collect();
            let prefix = family.prefix;
            format!(
                "{prefix}_PORT={port} and {prefix}_HOST={} tell your app to publish to this host \
                 over plain HTTP, but this server listens on {}. Unless a proxy listens on port \
                 {port}, start it with --port={port} or set REVERB_SERVER_PORT={port}.",
                host.escape_debug(),
                ports.join(", "),
            )
        })
    }

    /// The project and its pages come to a port of ours with TLS, and no proxy can be between.
    fn over_tls(&self, server: &ServerConfig) -> Option<String> {
        let Self { family: Family { prefix, .. }, host, port, scheme } = self;
        let port = (*port).filter(|_| scheme.as_deref() == Some("https"))?;
        // One on loopback is reached under another name through a proxy only.
        let direct = |ip: IpAddr| match loopback(host) {
            Some(address) => reaches(address, ip),
            None => !ip.to_canonical().is_loopback(),
        };
        tcp(server).any(|(ip, own)| own == port && direct(ip)).then(|| {
            format!(
                "{prefix}_SCHEME=https with {prefix}_PORT={port} cannot work: this server itself \
                 listens on port {port}, and speaks plain HTTP there. Set {prefix}_SCHEME=http, or \
                 put a proxy such as nginx in front that ends TLS, and set {prefix}_PORT to its \
                 port (443)."
            )
        })
    }
}

/// A host that only this host reaches; `localhost` may be either family.
#[derive(Clone, Copy)]
enum Loopback {
    Localhost,
    Address(IpAddr),
}

fn loopback(host: &str) -> Option<Loopback> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Loopback::Localhost);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = bare.parse().ok()?;
    address.is_loopback().then_some(Loopback::Address(address))
}

/// Whether a connection to such an address arrives at a socket that is bound to `ip`.
fn reaches(to: Loopback, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    match to {
        Loopback::Localhost => ip.is_unspecified() || ip.is_loopback(),
        Loopback::Address(address) => {
            // A socket of IPv6 takes IPv4 along.
            ip == address || (ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4()))
        }
    }
}

fn tcp(server: &ServerConfig) -> impl Iterator<Item = (IpAddr, u16)> {
    server.listeners.iter().filter_map(|listener| match &listener.address {
        ListenAddr::Tcp(address) => Some((address.ip(), address.port())),
        ListenAddr::Unix(_) => None,
    })
}

fn shown(ip: IpAddr, port: u16) -> String {
    if ip.is_unspecified() { port.to_string() } else { format!("{ip}:{port}") }
}

/// Whether the settings say that clients come through a proxy.
fn is_behind_proxy(server: &ServerConfig) -> bool {
    let network = |trusted: &Trusted| matches!(trusted, Trusted::Network(_));
    server.trusted_proxies.iter().any(network)
        || server.listeners.iter().any(|listener| listener.opening == Opening::ProxyHeader)
}

fn app_of_pusher(
    sources: &Sources<'_>,
    plan: &AppPlan,
    target: Option<&PublishTarget>,
) -> Option<String> {
    let [id, key, secret] = OF_PUSHER.each_ref().map(|alias| alias.name);
    let (raw, source) = sources.variable(id)?;
    if !sources.speaks_pusher() {
        let is_half = sources.raw(key).is_none() || sources.raw(secret).is_none();
        return (plan.has_development() && is_half).then(|| {
            format!("The app of {id} is not served: {key} and {secret} have to be set too.")
        });
    }
    let publishes = match target {
        Some(PublishTarget { host, .. }) if host.ends_with(".pusher.com") => hosted(),
        None => hosted(),
        Some(PublishTarget { host, port, scheme, .. }) => format!(
            "Your app publishes to {}://{}:{} (PUSHER_SCHEME, PUSHER_HOST, PUSHER_PORT).",
            scheme.as_deref().unwrap_or("https").escape_debug(),
            host.escape_debug(),
            port.unwrap_or(443),
        ),
    };
    plan.uses_variables().then(|| {
        format!(
            "No REVERB_APP_ID is set: the app {} of {id}, {key} and {secret} is served ({source}). \
             {publishes}",
            raw.as_text().escape_debug()
        )
    })
}

fn hosted() -> String {
    "Your app publishes to hosted Pusher until PUSHER_HOST, PUSHER_PORT and PUSHER_SCHEME name this \
     server."
        .to_owned()
}

/// The app of soketi's variables, and the port on which its clients look for it.
fn app_of_soketi(sources: &Sources<'_>, plan: &AppPlan) -> Option<String> {
    let declaration = &settings::APP_ID.declaration;
    let (id, source) = sources.declared(declaration).filter(|_| plan.uses_variables())?;
    let of_soketi = source.variable().is_some_and(|name| name.starts_with(soketi::PREFIX));
    let places = [&settings::PORT.declaration, &settings::LISTEN.declaration];
    let chosen = places.into_iter().any(|place| sources.of_server(place).is_some());
    let port = match chosen {
        true => String::new(),
        false => format!(
            " soketi listens on port {0} unless SOKETI_PORT is set: for clients that come to it, \
             start with --port={0}.",
            soketi::PORT_DEFAULT
        ),
    };
    of_soketi.then(|| {
        format!(
            "No REVERB_APP_ID is set: the app {} of soketi's variables is served ({source}).{port}",
            id.as_text().escape_debug()
        )
    })
}
