//! The bytes of the input as a JSON value, or an error about what came instead.

use serde_json::{Deserializer, Value};

use super::error::InputError;

/// Longest input, in bytes. Configurations have some kilobytes; a pipe may have no end.
pub(crate) const INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The input as text, without a byte order mark.
pub(super) fn text(input: &[u8]) -> Result<&str, InputError> {
    if input.len() > INPUT_BYTES_MAX {
        return Err(InputError::TooLong(INPUT_BYTES_MAX));
    }
    if input.starts_with(b"\xff\xfe") || input.starts_with(b"\xfe\xff") {
        return Err(InputError::Utf16);
    }
    let text = std::str::from_utf8(input)
        .map_err(|error| InputError::NotUtf8 { byte: error.valid_up_to() })?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(InputError::Empty);
    }
    Ok(text)
}

/// The JSON object that the text is. Other text is shown in the error, because it usually is a
/// message of PHP or artisan.
pub(super) fn json(text: &str) -> Result<Value, InputError> {
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    let first = values.next();
    let rest = text.get(values.byte_offset()..).unwrap_or_default();
    match first {
        Some(Ok(value @ Value::Object(_))) if rest.trim().is_empty() => Ok(value),
        Some(Ok(Value::Object(_))) => Err(InputError::TextBehind(foreign(rest))),
        Some(Ok(value)) if rest.trim().is_empty() => Err(not_an_object(&value)),
        Some(Err(error)) if text.trim_start().starts_with('{') => {
            // Not the parser's own text: it may quote a secret.
            Err(InputError::Json { line: error.line(), column: error.column() })
        }
        _ => Err(InputError::Foreign(foreign(text))),
    }
}

/// As [`json`]; what does not begin as a JSON object is read as TOML.
pub(super) fn json_or_toml(text: &str) -> Result<Value, InputError> {
    if text.trim_start().starts_with('{') {
        return json(text);
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        InputError::Toml { line, message }
    })?;
    Ok(json_of_toml(toml::Value::Table(table)))
}

/// Infinity and NaN, which JSON lacks, become text: dropped, they would lift a limit.
fn json_of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => number.to_string().into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json_of_toml).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, json_of_toml(value))).collect()
        }
    }
}

fn not_an_object(value: &Value) -> InputError {
    InputError::NotAnObject(match value {
        Value::Null => "null",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        _ => "a single value",
    })
}

/// The first line of text that should not be there, up to where JSON may begin.
fn foreign(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let line = if line.starts_with('{') { "another object" } else { line };
    let line = line.split('{').next().unwrap_or_default().trim_end();
    let lower = line.to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let assignment = line.split_once('=').is_some_and(|(name, _)| name.chars().all(is_name));
    if lower.starts_with("<?php") {
        "PHP source: pipe what PHP makes of it, not the file".to_owned()
    } else if assignment || ["secret", "_password"].iter().any(|word| lower.contains(word)) {
        "a line that is withheld, since it may hold a secret".to_owned()
    } else {
        let shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
        format!("{shown:?}")
    }
}

/// Characters of foreign text in a sentence: a warning of PHP with its path fits.
const SHOWN_CHARS_MAX: usize = 300;
