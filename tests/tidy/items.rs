//! The names that a file defines and imports, and the paths that it writes out.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::slice;

/// The names of one file.
#[derive(Default)]
pub(crate) struct Items {
    /// The items at the top level of the file.
    pub(crate) defined: BTreeSet<String>,
    /// The child modules that are files.
    pub(crate) children: BTreeSet<String>,
    /// The names that `use` brings in.
    pub(crate) uses: Vec<Use>,
    /// The paths outside of `use`: `crate::id::ShardId`, `settings::PORT`.
    pub(crate) paths: Vec<Path>,
}

/// A path with its line.
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) names: Vec<String>,
}

/// A name that a `use` brings in; `*` stands for all names of a module.
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) path: Path,
}

impl Items {
    /// Reads code without comments, literals and tests.
    pub(crate) fn of(code: &str) -> Self {
        let mut items = Self::default();
        let tokens = tokens(code);
        let mut tokens = tokens.iter().peekable();
        let mut depth = 0;
        let mut before = "";
        while let Some(&(line, token)) = tokens.next() {
            let next = tokens.peek().map_or("", |&&(_, next)| next);
            match token {
                "{" => depth += 1,
                "}" => depth -= 1,
                // `+ use<>` captures lifetimes.
                "use" if next != "<" => items.read_use(&mut tokens, &[]),
                _ if KINDS.contains(&token) && depth == 0 => items.read_item(token, &mut tokens),
                _ if is_name(token) && next == "::" && before != "::" => {
                    items.paths.push(Path { line, names: path(token, &mut tokens) });
                }
                _ => {}
            }
            before = token;
        }
        items
    }

    /// Reads the name of an item, behind the keyword of its kind.
    fn read_item(&mut self, kind: &str, tokens: &mut Tokens<'_>) {
        while tokens.next_if(|(_, token)| QUALIFIERS.contains(token)).is_some() {}
        let Some(&(_, name)) = tokens.next_if(|(_, token)| is_name(token)) else { return };
        let is_file = kind == "mod" && tokens.peek().is_some_and(|&&(_, next)| next == ";");
        let names = if is_file { &mut self.children } else { &mut self.defined };
        names.insert(name.to_owned());
    }

    /// Reads the tree of a `use` behind the names that lead to it.
    fn read_use(&mut self, tokens: &mut Tokens<'_>, prefix: &[String]) {
        let mut names = prefix.to_vec();
        while let Some(&(line, token)) = tokens.next_if(|(_, token)| !",};".contains(token)) {
            match token {
                "::" => {}
                "{" => {
                    self.read_use(tokens, &names);
                    while tokens.next_if(|(_, token)| *token == ",").is_some() {
                        self.read_use(tokens, &names);
                    }
                    tokens.next();
                    return;
                }
                "*" => {
                    let path = Path { line, names };
                    return self.uses.push(Use { name: "*".to_owned(), path });
                }
                name => names.push(name.to_owned()),
            }
            if tokens.peek().is_none_or(|&&(_, next)| next != "::") && token != "::" {
                return self.add_use(line, names, tokens);
            }
        }
    }

    /// Adds the leaf of a tree, which may have another name here.
    fn add_use(&mut self, line: usize, mut names: Vec<String>, tokens: &mut Tokens<'_>) {
        if names.len() > 1 && names.last().is_some_and(|name| name == "self") {
            names.pop();
        }
        let alias = tokens.next_if(|(_, token)| *token == "as").and_then(|_| tokens.next());
        let name = alias.map(|&(_, name)| name.to_owned()).or_else(|| names.last().cloned());
        let path = Path { line, names };
        self.uses.extend(name.map(|name| Use { name, path }));
    }
}

/// A token with its line: a name, `::`, or any other character.
type Token<'a> = (usize, &'a str);
type Tokens<'a> = Peekable<slice::Iter<'a, Token<'a>>>;

/// Keywords in front of the name of an item.
const KINDS: [&str; 9] =
    ["mod", "struct", "enum", "trait", "type", "fn", "const", "static", "macro_rules"];

/// Words between such a keyword and the name.
const QUALIFIERS: [&str; 6] = ["!", "fn", "mut", "unsafe", "async", "extern"];

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        let len = match end {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            end => end,
        };
        let (token, behind) = rest.split_at(len);
        if !first.is_whitespace() {
            tokens.push((line, token));
        }
        line += usize::from(first == '\n');
        rest = behind;
    }
    tokens
}

/// The names of a path behind its first one.
fn path(first: &str, tokens: &mut Tokens<'_>) -> Vec<String> {
    let mut names = vec![first.to_owned()];
    while tokens.next_if(|(_, token)| *token == "::").is_some() {
        let Some((_, name)) = tokens.next_if(|(_, token)| is_name(token)) else { break };
        names.push((*name).to_owned());
    }
    names
}

fn is_name(token: &str) -> bool {
    token.starts_with(is_of_name)
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn names_and_paths_are_read() {
    let code = "mod a; pub(crate) const fn b() -> impl T + use<> { c::d::<E>(); F::g() }\n\
        use crate::{h::{self, i as j}, k::*};\nmacro_rules! l {}";
    let items = Items::of(code);
    assert_eq!(items.children.iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(items.defined.iter().collect::<Vec<_>>(), ["b", "l"]);
    let shown = |path: &Path| format!("{} {}", path.line, path.names.join("::"));
    let uses: Vec<_> =
        items.uses.iter().map(|it| format!("{} as {}", shown(&it.path), it.name)).collect();
    assert_eq!(uses, ["2 crate::h as h", "2 crate::h::i as j", "2 crate::k as *"]);
    assert_eq!(items.paths.iter().map(shown).collect::<Vec<_>>(), ["1 c::d", "1 F::g"]);
}
