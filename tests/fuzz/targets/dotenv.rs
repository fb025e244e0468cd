//! `.env`: any bytes, and values that come back as they were written.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::config::Environment;
use ringwave::testing::config::fuzzing::dotenv;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    raw: &'a [u8],
    lines: Vec<Line<'a>>,
    outer: Option<&'a str>,
}

#[derive(Arbitrary, Debug)]
enum Line<'a> {
    Comment(&'a str),
    Double(u8, &'a str),
    Single(u8, &'a str),
    /// A line that refers to another variable.
    Reference(u8, u8),
    Away(u8),
    Exported(u8, &'a str),
}

/// The name of a variable.
fn name(number: u8) -> String {
    format!("NAME_{}", number % 4)
}

fn in_double_quotes(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '"' | '\\' | '$' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text
}

fn plain(value: &str) -> String {
    value.chars().filter(|c| !matches!(c, '\n' | '\r' | '\'')).collect()
}

/// The text of the lines, and the values that they result in.
fn written(input: &Input<'_>, outer: &Environment) -> (String, Environment) {
    let (mut text, mut values) = (String::new(), Environment::new());
    for line in &input.lines {
        let (name, value, form) = match line {
            Line::Comment(comment) => {
                // A comment may open a value of several lines as well.
                text.push_str(&format!("# {}\n", plain(comment).replace('"', "")));
                continue;
            }
            Line::Away(number) => {
                let name = name(*number);
                text.push_str(&format!("{name}\n"));
                values.remove(&name);
                continue;
            }
            Line::Double(number, value) => {
                let quoted = in_double_quotes(value);
                (name(*number), (*value).to_owned(), format!("\"{quoted}\""))
            }
            Line::Single(number, value) => {
                let value = plain(value).replace('"', "");
                (name(*number), value.clone(), format!("'{value}' # behind"))
            }
            Line::Exported(number, value) => {
                let value: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                text.push_str("export ");
                (name(*number), value.clone(), value)
            }
            Line::Reference(number, other) => {
                let other = name(*other);
                let known = outer.get(&other).or_else(|| values.get(&other)).cloned();
                let value = known.unwrap_or_else(|| format!("${{{other}}}"));
                (name(*number), value, format!("\"${{{other}}}\""))
            }
        };
        text.push_str(&format!("{name}={form}\n"));
        values.insert(name, value);
    }
    (text, values)
}

fuzz_target!(|input: Input<'_>| {
    let mut outer = Environment::new();
    if let Some(value) = input.outer {
        outer.insert("NAME_0".to_owned(), value.to_owned());
    }
    let read = dotenv(input.raw, &outer);
    let lines = input.raw.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    match &read {
        Ok(variables) => {
            let inside = |line: usize| (1..=lines).contains(&line);
            assert!(variables.values.values().all(|(_, line)| inside(*line)));
            assert!(variables.unclosed.is_none_or(inside));
        }
        Err((line, sentence)) => {
            assert!((1..=lines).contains(line));
            assert!(!sentence.contains('\n'));
        }
    }
    // Windows ends lines in another way, and some editors begin a file with a mark.
    if !input.raw.contains(&b'\r') && !input.raw.starts_with(b"\xef\xbb\xbf") {
        let text: Vec<u8> =
            input.raw.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
        assert_eq!(read, dotenv(&text, &outer), "lines of Windows");
        assert_eq!(read, dotenv(&[b"\xef\xbb\xbf", input.raw].concat(), &outer), "a mark");
    }

    let (text, values) = written(&input, &outer);
    let read = dotenv(text.as_bytes(), &outer).unwrap_or_else(|why| panic!("{why:?}:\n{text}"));
    let read: Environment =
        read.values.into_iter().map(|(name, (value, _))| (name, value)).collect();
    assert_eq!(read, values, "{text}");
});
