//! `allowed_origins` in every form that configurations have it in. A restriction never becomes
//! wider than it was: entries that let nobody in are left out, and the list stays a list.

use serde_json::Value;

use crate::config::raw_value::RawValue;
use crate::config::value_type::ValueType;
use crate::config::value_types::OriginPatterns;

use super::error::{FieldFault, ImportError};
use super::loose::Field;
use super::writer::TomlWriter;

/// The way in which a server reads its list of origins.
pub(super) struct OriginDialect {
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
    out: &mut TomlWriter,
    field: &Field<'_>,
    dialect: &OriginDialect,
) -> Result<(), ImportError> {
    let server = dialect.server;
    match field.value() {
        None if dialect.empty_is_all => all(out, server),
        None => {
            return Err(field.refused(FieldFault::NoOrigins { server }));
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

fn all(out: &mut TomlWriter, server: &str) {
    out.value("app.allowed_origins", &RawValue::List(vec![ALL.to_owned()]));
    out.comment(&format!("allowed_origins: without a list {server} lets all origins in."));
}

/// One origin, or several with commas, as a variable has them. Each has to be understood: unlike a
/// list, the text was not split by the server.
fn from_text(
    out: &mut TomlWriter,
    field: &Field<'_>,
    text: &str,
    dialect: &OriginDialect,
) -> Result<(), ImportError> {
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
    out.value("app.allowed_origins", &RawValue::List(taken));
    Ok(())
}

fn from_list(
    out: &mut TomlWriter,
    items: &[Field<'_>],
    dialect: &OriginDialect,
) -> Result<(), ImportError> {
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
    out.value("app.allowed_origins", &RawValue::List(taken));
    if !left.is_empty() {
        out.comment(&format!("allowed_origins: left out are {}.", left.join(", ")));
    }
    if nobody {
        out.comment("allowed_origins: an empty list lets no browser in.");
    }
    Ok(())
}

fn translated(entry: &str, dialect: &OriginDialect) -> Result<Vec<String>, LeftOut> {
    if entry == "null" {
        return Err(LeftOut("it would let in pages without an origin, such as sandboxed frames"));
    }
    let patterns = (dialect.translate)(entry)?;
    let list = RawValue::List(patterns.clone());
    OriginPatterns.parse(&list).map(|_| patterns).map_err(|_| LeftOut("no origin"))
}

fn not_a_list(field: &Field<'_>) -> ImportError {
    field.refused(FieldFault::Origins { value: field.shown() })
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
