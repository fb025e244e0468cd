//! Floor 6. The further keys of an app: `keys = [{ key = "...", secret = "..." }]`.

use std::collections::BTreeMap;

use crate::protocol::rules::KeyPair;
use crate::protocol::secret::Secret;

use super::form::{Form, Given, Identifier, Offender, SecretText};

/// Pairs of a key and its secret, in the order in which they are written.
pub(super) struct KeyPairs;

impl KeyPairs {
    /// More than anybody who changes keys has at a time; each is looked at in every check.
    const COUNT_MAX: usize = 16;
}

impl Form for KeyPairs {
    type Value = Vec<KeyPair>;

    const SECRET: bool = true;

    fn accept(&self, given: &Given) -> Result<Vec<KeyPair>, Offender> {
        let tables = match given {
            Given::Tables(tables) => tables.as_slice(),
            Given::List(items) if items.is_empty() => &[],
            Given::Text(text) if text.is_empty() => &[],
            _ => return Err(given.into()),
        };
        let pairs = tables.iter().map(pair).collect::<Option<Vec<_>>>();
        pairs.filter(|pairs| pairs.len() <= Self::COUNT_MAX).ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        format!("up to {} of `{{ key = \"...\", secret = \"...\" }}` in a list", Self::COUNT_MAX)
    }

    fn show(&self, value: &Vec<KeyPair>) -> String {
        value.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Secrets are kept as states that sign: what they sign tells them apart.
    fn whole(&self, value: &Vec<KeyPair>) -> String {
        let pair = |KeyPair { key, secret }: &KeyPair| format!("{key}: {}\n", secret.sign(&[b""]));
        value.iter().map(pair).collect()
    }
}

fn pair(table: &BTreeMap<String, Given>) -> Option<KeyPair> {
    if table.len() != 2 {
        return None;
    }
    let key = Identifier.accept(table.get("key")?).ok()?;
    let secret = SecretText.accept(table.get("secret")?).ok()?;
    Some(KeyPair { key, secret: Secret::new(&secret) })
}
