//! The further keys of an app: `keys = [{ key = "...", secret = "..." }]`.

use std::collections::BTreeMap;

use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::value_type::ValueType;
use crate::protocol::rules::KeyPair;
use crate::protocol::secret::Secret;

use super::text::{Identifier, SecretText};

/// Pairs of a key and its secret, in the order in which they are written.
pub(crate) struct KeyPairs;

impl KeyPairs {
    /// A change of keys needs two; each further one costs a comparison per signature.
    const COUNT_MAX: usize = 16;
}

impl ValueType for KeyPairs {
    type Value = Vec<KeyPair>;

    const SECRET: bool = true;

    fn parse(&self, raw: &RawValue) -> Result<Vec<KeyPair>, RejectedValue> {
        let tables = match raw {
            RawValue::Tables(tables) => tables.as_slice(),
            RawValue::List(items) if items.is_empty() => &[],
            RawValue::Text(text) if text.is_empty() => &[],
            _ => return Err(raw.into()),
        };
        let pairs = tables.iter().map(pair).collect::<Option<Vec<_>>>();
        pairs.filter(|pairs| pairs.len() <= Self::COUNT_MAX).ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        format!("up to {} of `{{ key = \"...\", secret = \"...\" }}` in a list", Self::COUNT_MAX)
    }

    fn display(&self, value: &Vec<KeyPair>) -> String {
        value.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Secrets are kept as states that sign: what they sign tells them apart.
    fn canonical(&self, value: &Vec<KeyPair>) -> String {
        let pair = |KeyPair { key, secret }: &KeyPair| format!("{key}: {}\n", secret.sign(&[b""]));
        value.iter().map(pair).collect()
    }
}

fn pair(table: &BTreeMap<String, RawValue>) -> Option<KeyPair> {
    if table.len() != 2 {
        return None;
    }
    let key = Identifier.parse(table.get("key")?).ok()?;
    let secret = SecretText.parse(table.get("secret")?).ok()?;
    Some(KeyPair { key, secret: Secret::new(&secret) })
}
