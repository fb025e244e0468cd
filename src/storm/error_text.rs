//! Errors of the kernel as words within a sentence.

use std::io;

/// The error of a completion, which is negative: `connection refused`.
pub(crate) fn errno_text(result: i32) -> String {
    without_number(&io::Error::from_raw_os_error(-result))
}

/// The error in lower case and without its number.
pub(crate) fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
