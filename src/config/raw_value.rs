//! Floor 7. A value as a source gave it, before the type of its setting is known: the one currency
//! between the sources and the value types.

use std::collections::BTreeMap;
use std::fmt;

/// The text that is shown in place of a secret.
pub(crate) const WITHHELD: &str = "[withheld]";

/// A value as a source gave it, before a value type has parsed it. It may be a secret, hence it has
/// no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum RawValue {
    /// A switch without a value, a boolean of the file, or one of the words of Laravel's `env()`.
    Bool(bool),
    /// A whole number of the file.
    Integer(i64),
    /// Any other single value.
    Text(String),
    /// A list of the file, or a flag that may be repeated.
    List(Vec<String>),
    /// Tables in a list of the file.
    Tables(Vec<BTreeMap<String, Self>>),
}

impl RawValue {
    /// The value as plain text, to compare and to show where it is no secret.
    pub(super) fn as_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The items of a list. One text with commas is a list too, because variables have no other
    /// way to give one.
    pub(super) fn items(&self) -> Result<Vec<String>, RejectedValue> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(items.map(str::to_owned).collect())
            }
            _ => Err(self.into()),
        }
    }
}

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Tables(_) => f.write_str("a list of tables"),
        }
    }
}

/// The part of a raw value that a value type does not take, as text for the operator.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RejectedValue(String);

impl RejectedValue {
    /// One item of a list, in quotes.
    pub(super) fn item(text: &str) -> Self {
        Self(format!("{text:?}"))
    }

    /// A value that may be a secret.
    pub(super) fn withheld() -> Self {
        Self(WITHHELD.to_owned())
    }
}

impl From<&RawValue> for RejectedValue {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_string())
    }
}

impl fmt::Display for RejectedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
