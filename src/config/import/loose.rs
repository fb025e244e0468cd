//! JSON as PHP and JavaScript write configurations: lists with gaps as objects, empty objects as
//! lists, numbers as text. Each value knows its path in the input, for errors about it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::raw_value::RawValue;

use super::error::{FieldFault, ImportError, InputError};

/// A value of the input, or its absence. `null` counts as absent.
pub(super) struct Field<'a> {
    /// `apps.apps[0].key`
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    /// The input as a whole.
    pub(super) fn root(value: &'a Value) -> Self {
        Self::at(String::new(), Some(value))
    }

    /// The value at this path.
    pub(super) fn at(path: String, value: Option<&'a Value>) -> Self {
        Self { path, value: value.filter(|value| !value.is_null()) }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    pub(super) const fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub(super) const fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// The error that this field cannot be taken over.
    pub(super) fn refused(&self, fault: FieldFault) -> ImportError {
        ImportError::Field { path: self.path.clone(), fault }
    }

    /// The error that this field has a value of another type.
    pub(super) fn is_not(&self, expected: &'static str) -> ImportError {
        self.refused(FieldFault::Type { value: self.shown(), expected })
    }

    /// The value in words, cut to a length that a sentence can hold.
    pub(super) fn shown(&self) -> String {
        match self.value {
            None => "missing".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(Value::String(text)) => {
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{shown:?}")
            }
            Some(scalar) => scalar.to_string(),
        }
    }

    /// The value as a source of settings would give it; empty text is none. Numbers come as text
    /// where they were variables.
    pub(super) fn raw(&self) -> Option<RawValue> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(match self.value? {
            Value::Null => return None,
            Value::Bool(truth) => RawValue::Bool(*truth),
            Value::Array(items) => RawValue::List(items.iter().map(text).collect()),
            value @ (Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                let text = text(value);
                match text.parse() {
                    _ if text.is_empty() => return None,
                    Ok(number) if text == format!("{number}") => RawValue::Integer(number),
                    _ => RawValue::Text(text),
                }
            }
        })
    }

    /// `true` or `false`, also as the text or number of a variable.
    pub(super) fn truth(&self) -> Result<Option<bool>, ImportError> {
        match self.raw() {
            None => Ok(None),
            Some(RawValue::Bool(truth)) => Ok(Some(truth)),
            Some(RawValue::Integer(1)) => Ok(Some(true)),
            Some(RawValue::Integer(0)) => Ok(Some(false)),
            Some(RawValue::Text(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(RawValue::Text(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(self.is_not("true or false")),
        }
    }

    /// A number, also as text.
    pub(super) fn number(&self) -> Result<Option<f64>, ImportError> {
        let number = match self.value {
            None => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.is_not("a number")),
        }
    }

    /// Whether a switch is on, as PHP sees it.
    pub(super) fn is_on(&self) -> bool {
        self.value.is_some_and(|value| match value {
            Value::Null => false,
            Value::Bool(truth) => *truth,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !matches!(text.as_str(), "" | "0"),
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
        })
    }

    /// The apps of a list, of which there has to be one. `expected` names the configuration.
    pub(super) fn apps(&self, expected: &'static str) -> Result<Vec<Self>, ImportError> {
        let path = || self.path.clone();
        if self.is_absent() {
            return Err(InputError::NoAppsField { expected, path: path() }.into());
        }
        let apps = self.list()?;
        if apps.is_empty() {
            return Err(InputError::NoApps { path: path() }.into());
        }
        Ok(apps)
    }

    /// The fields of an object. PHP writes an empty one as `[]`; what is absent has none.
    pub(super) fn object(&self) -> Result<Object<'a>, ImportError> {
        let fields = match self.value {
            None => BTreeMap::new(),
            Some(Value::Array(items)) if items.is_empty() => BTreeMap::new(),
            Some(Value::Object(fields)) => {
                fields.iter().map(|(name, value)| (name.as_str(), value)).collect()
            }
            Some(_) => return Err(self.is_not("an object")),
        };
        Ok(Object { path: self.path.clone(), fields })
    }

    /// The items of a list. PHP writes one with gaps, or one whose items have names, as an object.
    pub(super) fn list(&self) -> Result<Vec<Self>, ImportError> {
        let path = &self.path;
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                let at = |(index, item)| Self::at(format!("{path}[{index}]"), Some(item));
                Ok(items.map(at).collect())
            }
            Some(Value::Object(items)) => {
                let mut items: Vec<_> = items.iter().collect();
                // As text, "10" would stand before "2".
                items.sort_by_key(|(name, _)| name.parse::<u64>().ok());
                let at = |(name, item): (&String, _)| match name.parse::<u64>() {
                    Ok(index) => Self::at(format!("{path}[{index}]"), Some(item)),
                    Err(_) => Self::at(format!("{path}[{name:?}]"), Some(item)),
                };
                Ok(items.into_iter().map(at).collect())
            }
            Some(_) => Err(self.is_not("a list")),
        }
    }
}

/// An object of the input. Its fields are taken one by one; those that remain are unknown.
pub(super) struct Object<'a> {
    path: String,
    fields: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Object<'a> {
    /// Takes a field, which may be absent.
    pub(super) fn take(&mut self, name: &str) -> Field<'a> {
        let value = self.fields.remove(name);
        let dot = if self.path.is_empty() { "" } else { "." };
        Field::at(format!("{}{dot}{name}", self.path), value)
    }

    /// Takes all fields of these names, and returns the first that is there, or else the first.
    pub(super) fn take_any(&mut self, names: &[&str]) -> Field<'a> {
        let mut fields: Vec<_> = names.iter().map(|name| self.take(name)).collect();
        let there = fields.iter().position(|field| !field.is_absent()).unwrap_or(0);
        match there < fields.len() {
            true => fields.swap_remove(there),
            false => Field::at(self.path.clone(), None),
        }
    }

    /// The fields that were not taken.
    pub(super) fn remaining(&self) -> impl Iterator<Item = Field<'a>> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let at = move |(name, value): (&&str, &&'a Value)| {
            Field::at(format!("{}{dot}{}", self.path, name.escape_debug()), Some(value))
        };
        self.fields.iter().map(at)
    }

    /// The names of the fields that were not taken.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.fields.keys().copied()
    }
}

/// The number as a value of settings; as text, which no limit takes, if it has a fraction or is too
/// large to be counted exactly.
pub(super) fn whole(number: f64) -> RawValue {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
        return RawValue::Integer(number as i64);
    }
    RawValue::Text(number.to_string())
}

/// Characters of a value in a sentence.
const SHOWN_CHARS_MAX: usize = 60;
