//! Floor 6. The `.env` of a Laravel app, read as Laravel reads it (`vlucas/phpdotenv` 5 and `env()`
//! of `laravel/framework`), so that the server and the app that publishes to it agree on every
//! value.
//!
//! What that means where readers of `.env` differ: a later line of the file wins over an earlier
//! one, and the process environment over both; a name without `=` takes the variable away; in an
//! unquoted value any `#` starts a comment; `${NAME}` is replaced outside of single quotes and
//! stays as it is when the name is unknown; `$NAME` is never replaced; a double quote that opens a
//! value right after `=` may close on a later line.
//!
//! One difference: Laravel silently drops the rest of a file behind a quote that never closes. That
//! is an error here. Errors name lines and variables, never values.

use std::collections::HashMap;
use std::fmt;

use super::form::Given;

/// The variables of one file.
pub(super) struct DotEnv {
    variables: HashMap<String, Variable>,
}

/// A value and where it stands.
pub(super) struct Variable {
    /// The text behind quotes and `${...}`.
    pub(super) value: String,
    /// From 1; of the first line if there are several.
    pub(super) line: usize,
}

/// The file is not one that Laravel would read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// From 1.
    pub(super) line: usize,
    cause: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl DotEnv {
    /// Reads the text of a file. `outer` is the process environment, which `${NAME}` sees first.
    pub(super) fn parse(
        text: &str,
        outer: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Malformed> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut variables: HashMap<String, Variable> = HashMap::new();
        for (line, entry) in entries(text)? {
            let malformed = |cause| Malformed { line, cause };
            let (name, raw) = split(&entry).map_err(malformed)?;
            let Some(raw) = raw else {
                variables.remove(&name);
                continue;
            };
            let value = Value::read(raw)
                .map_err(|cause| malformed(format!("the value of {name} has {cause}")))?;
            let value = value.resolve(|reference| {
                outer(reference).or_else(|| variables.get(reference).map(|v| v.value.clone()))
            });
            variables.insert(name, Variable { value, line });
        }
        Ok(Self { variables })
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }
}

/// What `env()` of Laravel makes of the text of a variable; `None` is its null, and nothing at all,
/// which in a `.env` means "not filled in".
pub(super) fn env_value(text: &str) -> Option<Given> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "(true)" => return Some(Given::Truth(true)),
        "false" | "(false)" => return Some(Given::Truth(false)),
        "" | "empty" | "(empty)" | "null" | "(null)" => return None,
        _ => {}
    }
    let unquoted = ['"', '\''].iter().find_map(|&quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        // The pattern of `env()` does not cross lines.
        (!inner.contains('\n')).then_some(inner)
    });
    let text = unquoted.unwrap_or(text);
    (!text.is_empty()).then(|| Given::Text(text.to_owned()))
}

/// The entries of a file with the number of their first line: lines, except that a value which
/// opens a double quote takes the lines up to its end along.
fn entries(text: &str) -> Result<Vec<(usize, String)>, Malformed> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut entries = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.split('\n').enumerate() {
        // A line inside of an open value may look like the start of another one: then one closing
        // quote is taken for the opening one, and the value goes on.
        let starts = line.contains("=\"") && !closes(line, true);
        let entry = match open.take() {
            Some((first, mut value)) => {
                value.push('\n');
                value.push_str(line);
                if !closes(line, starts) {
                    open = Some((first, value));
                    continue;
                }
                (first, value)
            }
            None if starts => {
                open = Some((index + 1, line.to_owned()));
                continue;
            }
            None => (index + 1, line.to_owned()),
        };
        let visible = entry.1.trim();
        if !visible.is_empty() && !visible.starts_with('#') {
            entries.push(entry);
        }
    }
    match open {
        Some((line, _)) => {
            Err(Malformed { line, cause: "a double quote opens here and never closes".into() })
        }
        None => Ok(entries),
    }
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
fn split(entry: &str) -> Result<(String, Option<&str>), String> {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (name, Some(value.trim_matches(is_php_blank))),
        None => (entry, None),
    };
    let name = name.trim_matches(is_php_blank);
    if name.is_empty() {
        return Err("the name in front of `=` is missing".into());
    }
    let name = match name.strip_prefix("export") {
        Some(rest) if rest.starts_with(is_php_space) => rest.trim_start_matches(is_php_space),
        _ => name,
    };
    let quoted = |quote| name.strip_prefix(quote)?.strip_suffix(quote);
    let name = quoted('"').or_else(|| quoted('\'')).unwrap_or(name);
    let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    if name.is_empty() || !name.chars().all(valid) {
        // The line may be a stray part of a secret: it is not repeated.
        return Err("this is not a line of the form NAME=value".into());
    }
    Ok((name.to_owned(), value))
}

/// What PHP's `trim` removes.
const fn is_php_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\0' | '\x0B')
}

/// What PHP's `ctype_space` holds for white space.
const fn is_php_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
}

/// A value without quotes, escapes and comments, and where in it a `$` may start a reference.
struct Value {
    text: String,
    dollars: Vec<usize>,
}

enum State {
    Unquoted,
    SingleQuoted,
    DoubleQuoted,
    Escape,
    Behind,
}

impl Value {
    fn read(raw: &str) -> Result<Self, &'static str> {
        let mut value = Self { text: String::with_capacity(raw.len()), dollars: Vec::new() };
        let (mut state, raw) = match raw.chars().next() {
            Some('\'') => (State::SingleQuoted, &raw[1..]),
            Some('"') => (State::DoubleQuoted, &raw[1..]),
            _ => (State::Unquoted, raw),
        };
        for c in raw.chars() {
            state = match (state, c) {
                (State::Unquoted | State::Behind, '#') => {
                    state = State::Behind;
                    break;
                }
                (State::Unquoted | State::Behind, c) if is_php_space(c) => State::Behind,
                (State::Behind, _) => {
                    return Err("text behind its end (a value with spaces needs quotes)");
                }
                (State::SingleQuoted, '\'') | (State::DoubleQuoted, '"') => State::Behind,
                (State::DoubleQuoted, '\\') => State::Escape,
                (State::Escape, c) => {
                    value.text.push(escaped(c).ok_or("a backslash that escapes nothing")?);
                    State::DoubleQuoted
                }
                (state @ State::SingleQuoted, c) => {
                    value.text.push(c);
                    state
                }
                (state @ (State::Unquoted | State::DoubleQuoted), c) => {
                    if c == '$' {
                        value.dollars.push(value.text.len());
                    }
                    value.text.push(c);
                    state
                }
            };
        }
        match state {
            State::Unquoted | State::Behind => Ok(value),
            State::SingleQuoted | State::DoubleQuoted | State::Escape => {
                Err("a quote that never closes")
            }
        }
    }

    /// Replaces references, from the last to the first as phpdotenv does: what a replacement
    /// brings along is not looked at again.
    fn resolve(self, lookup: impl Fn(&str) -> Option<String>) -> String {
        let mut text = self.text;
        for &start in self.dollars.iter().rev() {
            let Some(reference) = reference(&text[start..]) else { continue };
            if let Some(value) = lookup(reference) {
                let end = start + "${}".len() + reference.len();
                text.replace_range(start..end, &value);
            }
        }
        text
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

fn reference(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    (!name.is_empty() && name.chars().all(valid)).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> DotEnv {
        DotEnv::parse(text, |name| (name == "OUTER").then(|| "from outside".into())).unwrap()
    }

    fn value(text: &str) -> String {
        parse(&format!("KEY={text}\n")).variable("KEY").unwrap().value.clone()
    }

    fn malformed(text: &str) -> Malformed {
        DotEnv::parse(text, |_| None).err().unwrap()
    }

    #[test]
    fn a_laravel_file_with_quotes_and_references_reads_as_in_laravel() {
        let file = "APP_NAME=Laravel\n\n# Broadcasting\nBROADCAST_CONNECTION=reverb\n\n\
            REVERB_APP_ID=123456\nREVERB_APP_KEY=abcdefghij0123456789\n\
            REVERB_APP_SECRET=zyxwvutsrq9876543210\nREVERB_HOST=\"localhost\"\n\
            REVERB_PORT=8081\nREVERB_SCHEME=http\n\n\
            VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\nVITE_REVERB_HOST=\"${REVERB_HOST}\"\n\
            VITE_REVERB_PORT=\"${REVERB_PORT}\"\nVITE_REVERB_SCHEME=\"${REVERB_SCHEME}\"\n";
        let env = parse(file);
        for (name, expected, line) in [
            ("REVERB_APP_ID", "123456", 6),
            ("REVERB_HOST", "localhost", 9),
            ("VITE_REVERB_APP_KEY", "abcdefghij0123456789", 13),
            ("VITE_REVERB_HOST", "localhost", 14),
            ("VITE_REVERB_PORT", "8081", 15),
            ("VITE_REVERB_SCHEME", "http", 16),
        ] {
            let variable = env.variable(name).unwrap();
            assert_eq!((variable.value.as_str(), variable.line), (expected, line), "{name}");
        }
    }

    #[test]
    fn quotes_escapes_and_comments_are_those_of_phpdotenv() {
        for (text, expected) in [
            ("", ""),
            ("   ", ""),
            ("plain", "plain"),
            ("  plain  ", "plain"),
            ("a # comment", "a"),
            ("a#comment", "a"),
            ("# comment", ""),
            ("'single $X ${OUTER} \\n #'", "single $X ${OUTER} \\n #"),
            ("'a' # comment", "a"),
            (r#""a \"b\" \\ \$ \n\t" # comment"#, "a \"b\" \\ $ \n\t"),
            (r#""$OUTER ${OUTER} ${NOBODY} \${OUTER}""#, "$OUTER from outside ${NOBODY} ${OUTER}"),
            ("${OUTER}/x", "from outside/x"),
            ("back\\slash", "back\\slash"),
            ("a\"b\"", "a\"b\""),
            ("base64:abc=", "base64:abc="),
            ("\"\"", ""),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn names_may_be_exported_quoted_and_spaced() {
        let env = parse("export A=1\n'B' = 2\n\"C.D\"\t=\t3\r\nE=5\rF=6");
        for (name, expected) in [("A", "1"), ("B", "2"), ("C.D", "3"), ("E", "5"), ("F", "6")] {
            assert_eq!(env.variable(name).unwrap().value, expected, "{name}");
        }
    }

    #[test]
    fn a_later_line_wins_and_a_bare_name_takes_the_variable_away() {
        let env = parse("\u{feff}A=1\nB=${A}\nA=2\nC=3\nC\n");
        assert_eq!(env.variable("A").unwrap().value, "2");
        assert_eq!(env.variable("B").unwrap().value, "1");
        assert!(env.variable("C").is_none());
    }

    #[test]
    fn the_process_environment_comes_first_in_references() {
        assert_eq!(
            parse("OUTER=file\nKEY=${OUTER}").variable("KEY").unwrap().value,
            "from outside"
        );
    }

    #[test]
    fn a_double_quoted_value_may_span_lines() {
        let env = parse("A=\"one\n# two\nthree\"\nB=1\nC=\"x\n\"\nD=2");
        assert_eq!(env.variable("A").unwrap().value, "one\n# two\nthree");
        assert_eq!(env.variable("C").unwrap().value, "x\n");
        assert_eq!(env.variable("D").unwrap().line, 7);
    }

    #[test]
    fn what_laravel_refuses_is_refused_with_the_line_and_without_the_value() {
        for (text, line) in [
            ("A=1\nKEY=tops3cret word", 2),
            ("KEY=\"tops3cret", 1),
            ("A=1\n\nKEY=\"tops3cret\nB=2", 3),
            ("KEY='tops3cret", 1),
            ("KEY=\"tops3cret\\q\"", 1),
            ("KEY=\"tops3cret\" tail", 1),
            ("=tops3cret", 1),
            ("tops3cret word", 1),
            ("A-B=tops3cret", 1),
        ] {
            let malformed = malformed(text);
            assert_eq!(malformed.line, line, "{text}");
            assert!(!malformed.to_string().contains("tops3cret"), "{malformed}");
        }
        assert_eq!(
            malformed("KEY=a b").to_string(),
            "the value of KEY has text behind its end (a value with spaces needs quotes)"
        );
    }

    #[test]
    fn the_words_of_env_become_values_and_other_text_stays_text() {
        let text = |text: &str| Some(Given::Text(text.into()));
        for (word, expected) in [
            ("true", Some(Given::Truth(true))),
            ("(TRUE)", Some(Given::Truth(true))),
            ("False", Some(Given::Truth(false))),
            ("null", None),
            ("(Null)", None),
            ("empty", None),
            ("", None),
            ("1", text("1")),
            ("off", text("off")),
            ("'quoted'", text("quoted")),
            ("\"", text("\"")),
        ] {
            assert!(env_value(word) == expected, "{word}");
        }
    }

    fn double_quoted(value: &str) -> String {
        let mut quoted = String::from("\"");
        for c in value.chars() {
            match c {
                '"' | '\\' | '$' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                _ => quoted.push(c),
            }
        }
        quoted + "\""
    }

    proptest! {
        #[test]
        fn any_map_written_in_double_quotes_reads_back_the_same(
            map in proptest::collection::btree_map("[A-Z][A-Z0-9_]{0,8}", any::<String>(), 0..8)
        ) {
            let file: String =
                map.iter().map(|(k, v)| format!("{k}={} # note\n", double_quoted(v))).collect();
            let env = DotEnv::parse(&file, |_| None).unwrap();
            let read: BTreeMap<_, _> =
                env.variables.into_iter().map(|(k, v)| (k, v.value)).collect();
            prop_assert_eq!(read, map);
        }

        #[test]
        fn no_text_whatever_makes_the_reader_panic(text in "(\\PC|[\"'=#$\\{\\}\\\\\n\r]){0,80}") {
            let _ = DotEnv::parse(&text, |_| None);
        }
    }
}
