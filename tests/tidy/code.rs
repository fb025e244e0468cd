//! Rust as text: the code without comments and literals, and the paths in it.

/// The first name of each path that follows `prefix`, be it alone or in a group of braces.
pub(crate) fn paths_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => heads_of_group(group),
            None => vec![leading_name(rest)],
        };
        let names = names.into_iter().filter(|name| !name.is_empty() && *name != "super");
        found.extend(names.map(|name| (line, name.to_owned())));
    }
    found
}

/// `a::b, c::{d, e}, f}` begins with the paths `a`, `c` and `f`.
fn heads_of_group(group: &str) -> Vec<&str> {
    let mut heads = vec![leading_name(group.trim_start())];
    let mut depth = 1;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => heads.push(leading_name(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

pub(crate) fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The text with comments and literals blanked out; lines stay where they are.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (skipped, after) = rest.split_at(skipped(rest, code.chars().next_back()));
        if skipped.is_empty() {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(skipped.chars().filter(|&char| char == '\n'));
            rest = after;
        }
    }
    code
}

/// How long the comment or literal is that begins here; 0 if none does.
fn skipped(text: &str, before: Option<char>) -> usize {
    let up_to = |end: Option<usize>| end.unwrap_or(text.len());
    let begins_word = !before.is_some_and(|char| char == '_' || char.is_alphanumeric());
    let raw = text.strip_prefix('b').unwrap_or(text);
    if begins_word && is_raw(raw) {
        let hashes = raw.bytes().skip(1).take_while(|&byte| byte == b'#').count();
        let close = format!("\"{}", "#".repeat(hashes));
        let opening = text.len() - raw.len() + 2 + hashes;
        return up_to(text[opening..].find(&close).map(|end| opening + end + close.len()));
    }
    // A lifetime has no quote behind its first character.
    let is_char = |text: &str| text.starts_with('\\') || text.chars().nth(1) == Some('\'');
    match text.as_bytes()[0] {
        b'/' if text.starts_with("//") => up_to(text.find('\n')),
        b'/' if text.starts_with("/*") => up_to(text.find("*/").map(|end| end + 2)),
        b'"' => quoted(text, b'"'),
        b'\'' if is_char(&text[1..]) => quoted(text, b'\''),
        _ => 0,
    }
}

fn is_raw(text: &str) -> bool {
    text.strip_prefix('r').is_some_and(|text| text.trim_start_matches('#').starts_with('"'))
}

/// The length of a literal from one quote to the next that is not escaped.
fn quoted(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

pub(crate) fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The code without the items that are for tests alone.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, behind)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let (item, after) = behind.split_at(item_len(behind));
        // Lines stay where they are.
        kept.extend(item.chars().filter(|&char| char == '\n'));
        rest = after;
    }
    kept + rest
}

/// The length of the item that code begins with: up to its `;` or closing brace.
fn item_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(byte, b';' | b'}') {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* b\n */ 'c' '\\'' \"d // \\\" \" br#\"e\"f\"# 'ü' for<'a> &'a x // g\nh";
    let words: Vec<_> = code_of(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "for<'a>", "&'a", "x", "h"]);
}
