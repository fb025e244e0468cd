//! Floor 0. Texts made fit for a log: those of clients, without line breaks, terminal codes,
//! characters that change the order in which a line is read, and signatures, cut to the length of a
//! line; and errors, with their causes.

use std::error::Error;
use std::fmt::{self, Write};
use std::io;

/// Characters of a client's text that a log shows, as Reverb's `--debug` does.
pub(crate) const SHOWN_CHARS: usize = 200;

/// Whether a character could end a line, steer a terminal, or change the order in which the
/// characters around it are shown: control characters (C0, DEL, C1), the separators of lines and
/// paragraphs, and the bidirectional controls of Unicode (UAX 9).
#[must_use]
pub(crate) fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Writes a character, escaped as JSON escapes it if it [is unsafe](is_unsafe). The codes of all
/// unsafe characters have at most four hexadecimal digits.
///
/// # Errors
/// Returns those of the writer.
pub(crate) fn write_escaped(to: &mut impl Write, char: char) -> fmt::Result {
    match char {
        '\n' => to.write_str("\\n"),
        '\r' => to.write_str("\\r"),
        '\t' => to.write_str("\\t"),
        _ if is_unsafe(char) => write!(to, "\\u{:04x}", u32::from(char)),
        _ => to.write_char(char),
    }
}

/// A text in quotes, escaped and cut after [`SHOWN_CHARS`] characters, so that no part of it can
/// pass for something outside of the quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'t>(pub(crate) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_quoted(f, first_chars(self.0, SHOWN_CHARS))?;
        f.write_str(if self.0.chars().nth(SHOWN_CHARS).is_some() { "…\"" } else { "\"" })
    }
}

/// A name within a sentence: as it is, or [quoted](Quoted) if it has a space, a quote or the like,
/// with which it could pass for words of the sentence or for a field behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'t>(pub(crate) &'t str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = is_plain(self.0) && self.0.chars().nth(SHOWN_CHARS).is_none();
        if is_plain { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

/// Whether a text needs no quotes to be told from the text around it.
#[must_use]
pub(crate) fn is_plain(text: &str) -> bool {
    let special = |char: char| char.is_whitespace() || matches!(char, '"' | '=') || is_unsafe(char);
    !text.is_empty() && !text.contains(special)
}

/// Writes a text as it stands between quotes.
///
/// # Errors
/// Returns those of the writer.
pub(crate) fn write_quoted(to: &mut impl Write, text: &str) -> fmt::Result {
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            to.write_char('\\')?;
        }
        write_escaped(to, char)?;
    }
    Ok(())
}

/// The beginning of a key, enough to tell keys apart, and too little to give away a secret that
/// stands where a key should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortened<'t>(pub(crate) &'t str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = first_chars(self.0, KEY_CHARS.min(self.0.chars().count() / 2));
        shown.chars().try_for_each(|char| match char {
            // These would make the end of the key hard to see in a sentence.
            '"' | '\\' | ' ' => f.write_char('?'),
            char => write_escaped(f, char),
        })?;
        f.write_char('…')
    }
}

/// The most characters of a key that are shown. Of a shorter key, half is.
const KEY_CHARS: usize = 4;

/// The first [`SHOWN_CHARS`] characters of a text, with `[withheld]` in the place of each signature
/// in it. A signature is 64 or more hexadecimal digits in a row, which may be written as escapes of
/// JSON, of JSON in a string of JSON, or of a URL.
#[must_use]
pub(crate) fn without_signatures(text: &str) -> String {
    let mut shown = String::new();
    let (mut left, mut rest) = (SHOWN_CHARS, text);
    while left > 0 && !rest.is_empty() {
        let (taken, digits) = hexadecimal_run(rest);
        let (run, behind) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        if digits >= SIGNATURE_DIGITS {
            shown.push_str(WITHHELD);
            left = left.saturating_sub(WITHHELD.len());
            rest = behind;
            continue;
        }
        // The run is too short for a signature, or there is none, and one character is taken.
        let part = if digits > 0 { first_chars(run, left) } else { first_chars(rest, 1) };
        shown.push_str(part);
        left -= part.chars().count();
        rest = rest.get(part.len()..).unwrap_or_default();
    }
    shown
}

const WITHHELD: &str = "[withheld]";

/// Digits of a signature: SHA-256 in hexadecimal.
const SIGNATURE_DIGITS: usize = 64;

/// The bytes and the number of the hexadecimal digits at the beginning of a text.
fn hexadecimal_run(text: &str) -> (usize, usize) {
    let (mut taken, mut digits) = (0, 0);
    while let Some(len) = text.get(taken..).and_then(hexadecimal_digit) {
        taken += len;
        digits += 1;
    }
    (taken, digits)
}

/// The length of the hexadecimal digit that a text begins with, plain or escaped: `a`, `\u0061`,
/// `\\u0061`, `%61`.
fn hexadecimal_digit(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first()?.is_ascii_hexdigit() {
        return Some(1);
    }
    let slashes = bytes.iter().take_while(|&&byte| byte == b'\\').count();
    let prefix = match bytes.first()? {
        b'%' => 1,
        _ if slashes > 0 && text.get(slashes..)?.starts_with("u00") => slashes + 3,
        _ => return None,
    };
    let code = u8::from_str_radix(text.get(prefix..prefix + 2)?, 16).ok()?;
    code.is_ascii_hexdigit().then_some(prefix + 2)
}

/// The beginning of a text, of at most this many characters.
fn first_chars(text: &str, most: usize) -> &str {
    let end = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}

/// An error with its causes, joined by colons: `cannot bind 0.0.0.0:80: permission denied`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithCauses<'e>(pub(crate) &'e (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(self.0))?;
        let causes = std::iter::successors(self.0.source(), |&error| error.source());
        causes.into_iter().try_for_each(|cause| write!(f, ": {}", Plain(cause)))
    }
}

/// One error of a chain. An error of the system is shown without its number, and begins in lower
/// case because it stands in a sentence.
struct Plain<'e>(&'e (dyn Error + 'static));

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_system =
            self.0.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).is_some();
        if !of_system {
            return fmt::Display::fmt(self.0, f);
        }
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut chars = text.chars();
        chars.next().into_iter().try_for_each(|first| write!(f, "{}", first.to_lowercase()))?;
        f.write_str(chars.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_its_causes_and_those_of_the_system_without_their_numbers() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot bind {0}")]
        struct Cannot(&'static str, #[source] io::Error);
        let error = Cannot("0.0.0.0:80", io::Error::from_raw_os_error(13));
        assert_eq!(WithCauses(&error).to_string(), "cannot bind 0.0.0.0:80: permission denied");
        let error = Cannot("x", io::Error::other("No way"));
        assert_eq!(WithCauses(&error).to_string(), "cannot bind x: No way");
    }

    #[test]
    fn nothing_in_quotes_leaves_them() {
        for (text, quoted) in [
            ("plain", r#""plain""#),
            (r#"a" app="b\"#, r#""a\" app=\"b\\""#),
            ("a\r\nb\t\u{1b}[2J\u{7f}\u{85}", r#""a\r\nb\t\u001b[2J\u007f\u0085""#),
            ("a\u{2028}b\u{202e}c\u{2066}d\u{200f}", r#""a\u2028b\u202ec\u2066d\u200f""#),
            ("größer 👍", r#""größer 👍""#),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
        let long = Quoted(&"ü".repeat(201)).to_string();
        assert_eq!(long, format!("\"{}…\"", "ü".repeat(200)));
    }

    #[test]
    fn a_name_has_quotes_only_where_it_could_pass_for_something_else() {
        for (name, told) in [
            (r"App\Events\Seen", r"App\Events\Seen"),
            ("private-größe.1;:,", "private-größe.1;:,"),
            ("a app=1", "\"a app=1\""),
            ("\u{1b}[2J", r#""\u001b[2J""#),
            ("", "\"\""),
        ] {
            assert_eq!(Name(name).to_string(), told);
        }
        assert_eq!(Name(&"x".repeat(201)).to_string(), format!("\"{}…\"", "x".repeat(200)));
    }

    #[test]
    fn a_key_is_told_by_its_first_characters_and_never_by_more_than_half_of_it() {
        for (key, shown) in
            [("zhcnabcdefgh", "zhcn…"), ("secret", "sec…"), ("a", "…"), ("", "…"), ("üöäß", "üö…")]
        {
            assert_eq!(Shortened(key).to_string(), shown);
        }
        assert_eq!(Shortened("\n\u{202e}\" ~~~~~~").to_string(), r"\n\u202e??…");
    }

    #[test]
    fn a_signature_is_withheld_however_it_is_written_and_all_around_it_is_shown() {
        let signature = "5ec2e7ab".repeat(8);
        let upper = signature.to_uppercase();
        let escaped: String = signature.bytes().map(|digit| format!("\\u00{digit:02x}")).collect();
        let mixed = format!("{}{}", &escaped[..60], &signature[10..]);
        let twice = escaped.replace('\\', "\\\\");
        let url: String = signature.bytes().map(|digit| format!("%{digit:02X}")).collect();
        for written in [signature, upper, escaped, mixed, twice, url] {
            let shown = without_signatures(&format!(r#"{{"auth":"key:{written}","x":"ü"}}"#));
            assert_eq!(shown, r#"{"auth":"key:[withheld]","x":"ü"}"#);
        }
        let shorter = format!("md5 {} uuid", "0123456789abcdef".repeat(2));
        assert_eq!(without_signatures(&shorter), shorter);
    }

    #[test]
    fn a_long_text_is_cut_and_no_part_of_a_signature_is_shown() {
        assert_eq!(without_signatures(&"ü".repeat(300)), "ü".repeat(200));
        let across = format!("{}{}", "x".repeat(190), "ab".repeat(32));
        assert_eq!(without_signatures(&across), format!("{}[withheld]", "x".repeat(190)));
        let last = format!("{}\\", "x".repeat(10));
        assert_eq!(without_signatures(&last), last);
        assert_eq!(without_signatures("%"), "%");
    }
}
