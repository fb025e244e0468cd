//! Floor 7. The `.env` of a Laravel app, read as Laravel reads it (`vlucas/phpdotenv` 5.6, and the
//! function `env()`), so that the server and the app that publishes to it agree on every value.
//!
//! The rules in which readers of `.env` differ:
//! - A later line of the file wins over an earlier one, and the process environment over both. A
//!   name without `=` takes the variable away.
//! - In an unquoted value any `#` starts a comment.
//! - `${NAME}` is replaced outside of single quotes and stays as it is when the name is unknown;
//!   `$NAME` and `${NAME:-default}` are never replaced.
//! - A line with `="` that does not close its double quote opens a value of several lines, comments
//!   not excepted. No line inside of it opens another one; the first with a double quote closes it.
//!   When none does, the rest of the file is dropped: [`DotEnv::unclosed`] tells where.
//! - Bytes that are not UTF-8 become question marks.
//! - A file that Laravel refuses is refused, since the app does not start with it either.
//!
//! One difference: names may have any letters beyond ASCII here, and only those of PHP's classes
//! there. None of these is a name of ours. Errors name lines and variables, never values.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use super::raw_value::RawValue;

/// The variables of one file.
pub(super) struct DotEnv {
    variables: HashMap<String, Variable>,
    unclosed: Option<usize>,
}

/// A value and where it stands.
pub(super) struct Variable {
    /// The text behind quotes and `${...}`.
    pub(super) value: String,
    /// From 1; of the first line if there are several.
    pub(super) line: usize,
    /// A reference that stayed in the text although no single quotes ask for that, as far as it can
    /// be shown: `${NAME}`, or `${NAME:-...}`.
    pub(super) literal: Option<String>,
}

/// A line that Laravel would not read either.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DotEnvError {
    /// From 1.
    pub(crate) line: usize,
    /// The reason.
    pub(crate) fault: DotEnvFault,
}

impl fmt::Display for DotEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            DotEnvFault::NoName => f.write_str("the name in front of `=` is missing"),
            DotEnvFault::NotAnAssignment => {
                f.write_str("this is not a line of the form NAME=value")
            }
            DotEnvFault::Value { name, fault } => write!(f, "the value of {name} has {fault}"),
        }
    }
}

impl Error for DotEnvError {}

/// The reason why Laravel would not read a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DotEnvFault {
    /// The name in front of `=` is missing.
    NoName,
    /// It is not of the form NAME=value. The line may be a stray part of a secret, so it is not
    /// repeated.
    NotAnAssignment,
    /// The value of a variable cannot be read.
    Value {
        /// The variable.
        name: String,
        /// The reason.
        fault: ValueFault,
    },
}

/// The reason why Laravel would not read the value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueFault {
    /// Text follows the end of the value.
    TextBehind,
    /// A backslash stands in front of a character that it cannot escape.
    Escape,
    /// A quote never closes.
    Unclosed,
}

impl fmt::Display for ValueFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TextBehind => "text behind its end (a value with spaces needs quotes)",
            Self::Escape => "a backslash that escapes nothing",
            Self::Unclosed => "a quote that never closes",
        })
    }
}

impl DotEnv {
    /// Reads the bytes of a file. `outer` is the process environment, which `${NAME}` sees first.
    pub(super) fn parse(
        bytes: &[u8],
        outer: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, DotEnvError> {
        let text = as_php_converts(bytes);
        let mut variables: HashMap<String, Variable> = HashMap::new();
        let (entries, unclosed) = entries(&text);
        for (line, entry) in entries {
            let malformed = |fault| DotEnvError { line, fault };
            let (name, raw) = split(&entry).map_err(malformed)?;
            let Some(raw) = raw else {
                variables.remove(name);
                continue;
            };
            let value = UnquotedValue::read(raw)
                .map_err(|fault| malformed(DotEnvFault::Value { name: name.to_owned(), fault }))?;
            let (value, literal) = value.resolve(|reference| {
                outer(reference).or_else(|| variables.get(reference).map(|v| v.value.clone()))
            });
            variables.insert(name.to_owned(), Variable { value, line, literal });
        }
        Ok(Self { variables, unclosed })
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The line from which on the file was dropped, since a double quote opens there and never
    /// closes.
    pub(super) const fn unclosed(&self) -> Option<usize> {
        self.unclosed
    }
}

/// The text that `mb_convert_encoding` makes of the file, without its byte order mark.
fn as_php_converts(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Converts the text of a variable as `env()` of Laravel does. `None` stands for its null and for
/// an empty text, which in a `.env` means "not filled in".
pub(super) fn env_value(text: &str) -> Option<RawValue> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "(true)" => return Some(RawValue::Bool(true)),
        "false" | "(false)" => return Some(RawValue::Bool(false)),
        "" | "empty" | "(empty)" | "null" | "(null)" => return None,
        _ => {}
    }
    let unquoted = ['"', '\''].iter().find_map(|&quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        // The pattern of `env()` does not cross lines.
        (!inner.contains('\n')).then_some(inner)
    });
    let text = unquoted.unwrap_or(text);
    (!text.is_empty()).then(|| RawValue::Text(text.to_owned()))
}

/// The entries of a file with the number of their first line: lines, except that a value which
/// opens a double quote takes the lines up to its end along. Also the first line of a value that
/// never ends.
fn entries(text: &str) -> (Vec<(usize, String)>, Option<usize>) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut entries = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.split('\n').enumerate() {
        let entry = match open.take() {
            Some((first, mut value)) => {
                value.push('\n');
                value.push_str(line);
                if !closes(line, false) {
                    open = Some((first, value));
                    continue;
                }
                (first, value)
            }
            None if line.contains("=\"") && !closes(line, true) => {
                open = Some((index + 1, line.to_owned()));
                continue;
            }
            None => (index + 1, line.to_owned()),
        };
        let visible = entry.1.trim_matches(is_php_blank);
        if !visible.is_empty() && !visible.starts_with('#') {
            entries.push(entry);
        }
    }
    (entries, open.map(|(line, _)| line))
}

/// Whether a line closes a double quote: it has one that no backslash escapes, besides the opening
/// one if that is on the same line. As phpdotenv counts, a quote at the very start of a line counts
/// only when it is alone.
fn closes(line: &str, has_opening: bool) -> bool {
    if line == "\"" {
        return true;
    }
    let line = line.replace("\\\\", "");
    let quotes = line.as_bytes().windows(2).filter(|pair| pair[0] != b'\\' && pair[1] == b'"');
    quotes.count() > usize::from(has_opening)
}

/// The name of an entry and, unless there is no `=`, the text of its value.
fn split(entry: &str) -> Result<(&str, Option<&str>), DotEnvFault> {
    // A name that stands alone is not trimmed.
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => {
            (name.trim_matches(is_php_blank), Some(value.trim_matches(is_php_blank)))
        }
        None => (entry, None),
    };
    if name.is_empty() {
        return Err(DotEnvFault::NoName);
    }
    let name = unquoted(exported(name));
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.') || !c.is_ascii();
    if name.is_empty() || !name.chars().all(valid) {
        return Err(DotEnvFault::NotAnAssignment);
    }
    Ok((name, value))
}

/// The name without a leading `export`, which is one only in front of two or more characters.
fn exported(name: &str) -> &str {
    const LONGEST_WITHOUT: usize = "export A".len();
    match name.strip_prefix("export") {
        Some(rest) if rest.starts_with(is_php_space) && name.chars().count() > LONGEST_WITHOUT => {
            rest.trim_start_matches(is_php_space)
        }
        _ => name,
    }
}

fn unquoted(name: &str) -> &str {
    let quoted = |quote| name.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).filter(|inner| !inner.is_empty()).unwrap_or(name)
}

/// Whether PHP's `trim` removes the character.
const fn is_php_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\0' | '\x0B')
}

/// Whether PHP's `ctype_space` takes the character for white space.
const fn is_php_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
}

/// A value without quotes, escapes and comments, and where in it a `$` may start a reference.
struct UnquotedValue {
    text: String,
    dollars: Vec<usize>,
}

enum QuoteState {
    Unquoted,
    SingleQuoted,
    DoubleQuoted,
    Escape,
    Behind,
}

impl UnquotedValue {
    fn read(raw: &str) -> Result<Self, ValueFault> {
        let mut value = Self { text: String::with_capacity(raw.len()), dollars: Vec::new() };
        let (mut state, raw) = value.begin(raw);
        for c in raw.chars() {
            state = match (state, c) {
                (QuoteState::Unquoted | QuoteState::Behind, '#') => {
                    state = QuoteState::Behind;
                    break;
                }
                (QuoteState::Unquoted | QuoteState::Behind, c) if is_php_space(c) => {
                    QuoteState::Behind
                }
                (QuoteState::Behind, _) => return Err(ValueFault::TextBehind),
                (QuoteState::SingleQuoted, '\'') | (QuoteState::DoubleQuoted, '"') => {
                    QuoteState::Behind
                }
                (QuoteState::DoubleQuoted, '\\') => QuoteState::Escape,
                (QuoteState::Escape, c) => {
                    value.text.push(escaped(c).ok_or(ValueFault::Escape)?);
                    QuoteState::DoubleQuoted
                }
                (state @ QuoteState::SingleQuoted, c) => {
                    value.text.push(c);
                    state
                }
                (state @ (QuoteState::Unquoted | QuoteState::DoubleQuoted), c) => {
                    if c == '$' {
                        value.dollars.push(value.text.len());
                    }
                    value.text.push(c);
                    state
                }
            };
        }
        match state {
            QuoteState::Unquoted | QuoteState::Behind => Ok(value),
            QuoteState::SingleQuoted | QuoteState::DoubleQuoted | QuoteState::Escape => {
                Err(ValueFault::Unclosed)
            }
        }
    }

    /// The state that the first character leads to, and what stands behind that. White space that
    /// `trim` has left there, of a form feed, belongs to the value.
    fn begin<'a>(&mut self, raw: &'a str) -> (QuoteState, &'a str) {
        if let Some(rest) = raw.strip_prefix('\'') {
            return (QuoteState::SingleQuoted, rest);
        }
        if let Some(rest) = raw.strip_prefix('"') {
            return (QuoteState::DoubleQuoted, rest);
        }
        let rest = raw.trim_start_matches([' ', '\t', '\x0B', '\x0C']);
        self.text.push_str(raw.strip_suffix(rest).unwrap_or_default());
        (QuoteState::Unquoted, rest)
    }

    /// Replaces references, from the last to the first as phpdotenv does: what a replacement
    /// brings along is not looked at again. Also tells of a reference that stayed.
    fn resolve(self, lookup: impl Fn(&str) -> Option<String>) -> (String, Option<String>) {
        let mut text = self.text;
        let mut literal = None;
        for &start in self.dollars.iter().rev() {
            let behind = text.get(start..).unwrap_or_default();
            let found = reference(behind).and_then(|name| Some((name.len(), lookup(name)?)));
            match found {
                Some((len, value)) => {
                    text.replace_range(start..start + "${}".len() + len, &value);
                }
                None => literal = shown(behind).or(literal),
            }
        }
        (text, literal)
    }
}

fn escaped(c: char) -> Option<char> {
    Some(match c {
        '"' | '\\' | '$' => c,
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'f' => '\x0C',
        'v' => '\x0B',
        _ => return None,
    })
}

/// The name in `${NAME}`, if the text begins with that.
fn reference(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    (!name.is_empty() && name.chars().all(is_of_reference)).then_some(name)
}

const fn is_of_reference(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

/// A reference that the text begins with, without the default that a shell would take: it may be a
/// secret.
pub(super) fn shown(text: &str) -> Option<String> {
    let inside = text.strip_prefix("${")?;
    let name_len = inside.find(|c| !is_of_reference(c))?;
    let (name, behind) = inside.split_at_checked(name_len)?;
    let operator: String = behind.chars().take_while(|c| ":-?=+".contains(*c)).collect();
    match (name.is_empty(), operator.as_str()) {
        (true, _) => None,
        (false, "") => behind.starts_with('}').then(|| format!("${{{name}}}")),
        (false, operator) => Some(format!("${{{name}{operator}...}}")),
    }
}

#[cfg(test)]
mod tests;
