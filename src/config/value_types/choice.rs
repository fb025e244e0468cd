//! Values that are one of a few: switches, words, and a word in place of a value.

use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::value_type::{FlagArgument, ValueType};

/// Another value type, or a word that stands for the absence of a value.
pub(crate) struct Or<F> {
    pub(crate) word: &'static str,
    pub(crate) value_type: F,
}

impl<F: ValueType> ValueType for Or<F> {
    type Value = Option<F::Value>;

    const ARGUMENT: FlagArgument = F::ARGUMENT;

    fn parse(&self, raw: &RawValue) -> Result<Self::Value, RejectedValue> {
        match raw {
            RawValue::Text(text) if text.eq_ignore_ascii_case(self.word) => Ok(None),
            _ => self.value_type.parse(raw).map(Some),
        }
    }

    fn expected(&self) -> String {
        format!("{}, or `{}`", self.value_type.expected(), self.word)
    }

    fn display(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.word.to_owned(), |value| self.value_type.display(value))
    }

    fn canonical(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or_else(|| self.word.to_owned(), |value| self.value_type.canonical(value))
    }
}

/// On or off. The variables of Reverb go through PHP, which has its own idea of truth.
pub(crate) enum Switch {
    /// `true`, `false`, `1` or `0`.
    Plain,
    /// Reverb compares with `=== true`: any text that is not the word `true` is off.
    PhpIdentical,
    /// Reverb tests for truth: any text but `0` is on, `off` and `no` included.
    PhpTruthy,
}

impl ValueType for Switch {
    type Value = bool;

    const ARGUMENT: FlagArgument = FlagArgument::Switch;

    fn parse(&self, raw: &RawValue) -> Result<bool, RejectedValue> {
        match (self, raw) {
            (_, RawValue::Bool(truth)) => Ok(*truth),
            (Self::Plain, RawValue::Text(text)) if text == "1" => Ok(true),
            (Self::Plain, RawValue::Text(text)) if text == "0" => Ok(false),
            (Self::PhpIdentical, RawValue::Text(_)) => Ok(false),
            (Self::PhpTruthy, RawValue::Text(text)) => Ok(!matches!(text.as_str(), "" | "0")),
            _ => Err(raw.into()),
        }
    }

    fn expected(&self) -> String {
        "`true` or `false`".into()
    }

    fn display(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One of a few words, each with its meaning.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Sync> ValueType for Choice<T> {
    type Value = T;

    const ARGUMENT: FlagArgument = FlagArgument::One("WORD");

    fn parse(&self, raw: &RawValue) -> Result<T, RejectedValue> {
        let chosen = match raw {
            RawValue::Text(text) => self.0.iter().find(|(word, _)| word == text),
            _ => None,
        };
        chosen.map(|&(_, meaning)| meaning).ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("one of {}", words.join(", "))
    }

    fn display(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, meaning)| meaning == value);
        word.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}
