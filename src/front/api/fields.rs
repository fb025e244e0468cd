//! The fields of a JSON body. They are checked as Laravel's validator checks them and refused in
//! its words, because users of Reverb find those in their logs.

use std::fmt;

use simd_json::prelude::{TypedScalarValue, ValueIntoString};
use simd_json::tape::{Object, Value};

use super::super::response::Violations;

/// An object of the body. Borrows from it: nothing is copied until it is known to be valid.
pub(super) struct Fields<'t> {
    object: Object<'t, 't>,
    place: Place,
}

/// The place of an object in the body. Shown as the beginning of the paths of its fields.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It is the body itself.
    Body,
    /// It is the item of a batch at this position.
    Batch(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Batch(position) => write!(f, "batch.{position}."),
        }
    }
}

impl<'t> Fields<'t> {
    /// Returns the value as an object, if it is one.
    pub(super) fn of(value: &Value<'t, 't>, place: Place) -> Option<Self> {
        value.as_object().map(|object| Self { object, place })
    }

    /// The value of a field; the last one when the name is repeated, as PHP reads it. `null` is no
    /// value.
    pub(super) fn value(&self, name: &str) -> Option<Value<'t, 't>> {
        let named = self.object.iter().filter(|(key, _)| *key == name);
        named.last().map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Reads a string that has to be present and not empty.
    pub(super) fn required(&self, name: &str, violations: &mut Violations) -> Option<&'t str> {
        let text = match self.value(name) {
            Some(_) => self.optional(name, violations)?,
            None => "",
        };
        if text.is_empty() {
            self.violated(name, "is required", violations);
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// Reads a string that may be absent.
    pub(super) fn optional(&self, name: &str, violations: &mut Violations) -> Option<&'t str> {
        let value = self.value(name)?;
        let text = value.into_string();
        if text.is_none() {
            self.violated(name, "must be a string", violations);
        }
        text
    }

    /// Reads the elements of an array that may be absent.
    pub(super) fn array(
        &self,
        name: &str,
        violations: &mut Violations,
    ) -> Option<Vec<Value<'t, 't>>> {
        let array = self.value(name)?.as_array();
        if array.is_none() {
            self.violated(name, "must be an array", violations);
        }
        array.map(|array| array.iter().collect())
    }

    /// The name under which violations of a field are listed.
    pub(super) fn path_of(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// Adds the sentence `The {name} field {what}.`
    pub(super) fn violated(&self, name: &str, what: &str, violations: &mut Violations) {
        let place = self.place;
        let shown = name.replace('_', " ");
        violations.add(self.path_of(name), format!("The {place}{shown} field {what}."));
    }
}
