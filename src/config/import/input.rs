//! The bytes of the input as a JSON value, or a sentence about what came instead.

use serde_json::{Deserializer, Value};

use crate::config::ConfigError;

/// Longest input, in bytes. Configurations have some kilobytes; a pipe may have no end.
pub(crate) const INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The input as text, without a byte order mark.
pub(super) fn text(input: &[u8]) -> Result<&str, ConfigError> {
    if input.len() > INPUT_BYTES_MAX {
        return Err(ConfigError(format!(
            "the input is longer than {INPUT_BYTES_MAX} bytes, which no configuration is"
        )));
    }
    if input.starts_with(b"\xff\xfe") || input.starts_with(b"\xfe\xff") {
        return Err(ConfigError(
            "the input is UTF-16, as Windows PowerShell writes it: save it as UTF-8".into(),
        ));
    }
    let text = std::str::from_utf8(input).map_err(|error| {
        ConfigError(format!("the input is not UTF-8 text: byte {}", error.valid_up_to()))
    })?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(ConfigError(
            "the input is empty: the command that should print the configuration printed nothing"
                .into(),
        ));
    }
    Ok(text)
}

/// The JSON object that the text is. Anything else is shown, since it usually is what PHP or
/// artisan had to say.
pub(super) fn json(text: &str) -> Result<Value, ConfigError> {
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    let first = values.next();
    let rest = text.get(values.byte_offset()..).unwrap_or_default();
    match first {
        Some(Ok(value @ Value::Object(_))) if rest.trim().is_empty() => Ok(value),
        Some(Ok(Value::Object(_))) => Err(ConfigError(format!(
            "the input is not JSON alone: behind it came {}",
            foreign(rest)
        ))),
        Some(Ok(value)) if rest.trim().is_empty() => Err(not_an_object(&value)),
        Some(Err(error)) if text.trim_start().starts_with('{') => {
            // Not the parser's own text: it may quote a secret.
            let (line, column) = (error.line(), error.column());
            Err(ConfigError(format!("the input is not JSON: line {line}, column {column}")))
        }
        _ => Err(ConfigError(format!(
            "the input is not JSON: it begins with {}. If that is a warning of PHP, mend its \
             cause, or keep it out with `php -d display_errors=stderr artisan ...`",
            foreign(text)
        ))),
    }
}

/// As [`json`]; what does not begin as a JSON object is read as TOML.
pub(super) fn json_or_toml(text: &str) -> Result<Value, ConfigError> {
    if text.trim_start().starts_with('{') {
        return json(text);
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().lines().next().unwrap_or_default();
        ConfigError(format!("the input is neither JSON nor TOML: line {line}: {message}"))
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

fn not_an_object(value: &Value) -> ConfigError {
    let what = match value {
        Value::Null => "null",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        _ => "a single value",
    };
    ConfigError(format!(
        "the input is {what}, not a configuration: the project has no such configuration, or the \
         command named another"
    ))
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
