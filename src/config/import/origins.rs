//! `allowed_origins` in every form that configurations have it in. A restriction never becomes
//! wider than it was: entries that let nobody in are left out, and the list stays a list.

use serde_json::Value;

use crate::config::ConfigError;
use crate::config::form::{Form, Given, OriginPatterns};

use super::loose::Field;
use super::writer::Writer;

/// How a server reads its list of origins.
pub(super) struct Dialect {
    /// The server's name in sentences.
    pub(super) server: &'static str,
    /// An empty list, and none at all, let everybody in.
    pub(super) empty_is_all: bool,
    /// The patterns that mean the same here as an entry means there.
    pub(super) translate: fn(&str) -> Result<Vec<String>, LeftOut>,
}

/// The reason why an entry of the list is not taken over.
pub(super) struct LeftOut(pub(super) &'static str);

/// The pattern that lets everybody in.
pub(super) const ALL: &str = "*";

/// Writes the list of an app.
///
/// # Errors
/// The value cannot be understood as a list of origins.
pub(super) fn write(
    out: &mut Writer,
    field: &Field<'_>,
    dialect: &Dialect,
) -> Result<(), ConfigError> {
    let server = dialect.server;
    match field.value() {
        None if dialect.empty_is_all => all(out, server),
        None => {
            return Err(field.refused(&format!(
                "is missing or null, with which {server} lets nobody in: list the origins, or \
                 \"*\" for all"
            )));
        }
        Some(Value::String(text)) => from_text(out, field, text, dialect)?,
        Some(Value::Array(_) | Value::Object(_)) => {
            let items = field.list()?;
            if items.is_empty() && dialect.empty_is_all {
                all(out, server);
            } else {
                from_list(out, &items, dialect)?;
            }
        }
        Some(_) => return Err(not_a_list(field)),
    }
    Ok(())
}

fn all(out: &mut Writer, server: &str) {
    out.value("app.allowed_origins", &Given::List(vec![ALL.to_owned()]));
    out.comment(&format!("allowed_origins: without a list {server} lets all origins in."));
}

/// One origin, or several with commas, as a variable has them. Each has to be understood: unlike a
/// list, the text was not split by the server.
fn from_text(
    out: &mut Writer,
    field: &Field<'_>,
    text: &str,
    dialect: &Dialect,
) -> Result<(), ConfigError> {
    let mut taken = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match translated(entry, dialect) {
            Ok(patterns) => taken.extend(patterns),
            Err(_) => return Err(not_a_list(field)),
        }
    }
    if taken.is_empty() {
        return Err(not_a_list(field));
    }
    out.value("app.allowed_origins", &Given::List(taken));
    Ok(())
}

fn from_list(out: &mut Writer, items: &[Field<'_>], dialect: &Dialect) -> Result<(), ConfigError> {
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for item in items {
        match item.value() {
            // A variable that is not set, or a condition, leaves these in a list of PHP.
            None | Some(Value::Bool(false)) => left.push("an empty entry".to_owned()),
            Some(Value::String(entry)) => match translated(entry, dialect) {
                Ok(patterns) => taken.extend(patterns),
                Err(LeftOut(reason)) => left.push(format!("{entry:?} ({reason})")),
            },
            Some(_) => return Err(not_a_list(item)),
        }
    }
    let nobody = taken.is_empty();
    out.value("app.allowed_origins", &Given::List(taken));
    if !left.is_empty() {
        out.comment(&format!("allowed_origins: left out are {}.", left.join(", ")));
    }
    if nobody {
        out.comment("allowed_origins: an empty list lets no browser in.");
    }
    Ok(())
}

fn translated(entry: &str, dialect: &Dialect) -> Result<Vec<String>, LeftOut> {
    if entry == "null" {
        return Err(LeftOut("it would let in pages without an origin, such as sandboxed frames"));
    }
    let patterns = (dialect.translate)(entry)?;
    let list = Given::List(patterns.clone());
    OriginPatterns.accept(&list).map(|_| patterns).map_err(|_| LeftOut("no origin"))
}

fn not_a_list(field: &Field<'_>) -> ConfigError {
    field.refused(&format!(
        "is {}, which cannot be understood as origins: it takes a list of hosts or origins",
        field.shown()
    ))
}

/// Whether the host of a pattern stands for every host.
pub(super) fn is_any_host(entry: &str) -> bool {
    let authority = entry.split_once("://").map_or(entry, |(_, authority)| authority);
    let authority = authority.trim_end_matches('/');
    let (host, _) = without_port(authority);
    host.contains('*') && host.chars().all(|char| matches!(char, '*' | '.'))
}

/// The part in front of a port, and whether there is a port.
pub(super) fn without_port(authority: &str) -> (&str, bool) {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit() || byte == b'*') =>
        {
            (host, true)
        }
        _ => (authority, false),
    }
}
