//! Rules that reviews would otherwise repeat: the direction of imports, the files with unsafe code,
//! the lengths of lines and files, and content that never belongs into the tree. The tests read the
//! sources as text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules by floor. A module imports from lower floors and its own children.
const FLOORS: [(u8, &[&str]); 9] = [
    (0, &["frame", "id", "memory", "text", "time", "version"]),
    (1, &["ring", "websocket"]),
    (2, &["bus", "protocol"]),
    (3, &["channels", "plane", "refusals"]),
    (4, &["front", "storm", "webhooks"]),
    (5, &["shard"]),
    (6, &["config"]),
    (7, &["server"]),
    (8, &["cli", "testing"]),
];

/// The only files with unsafe code: memory shared with the kernel, and a call of the allocator.
const UNSAFE_FILES: [&str; 3] = ["src/memory.rs", "src/ring/buffers.rs", "src/ring/uring.rs"];

/// The only entries of the top level, which a visitor sees first. The optional ones come with their
/// contents.
const TOP_LEVEL: [&str; 7] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "scripts", "src", "tests"];
const TOP_LEVEL_OPTIONAL: [&str; 2] = ["benches", "tuning"];

const COLUMNS_MAX: usize = 100;
const CODE_LINES_MAX: usize = 500;

// ---- imports ------------------------------------------------------------------------------------

#[test]
fn imports_run_downwards() {
    let floors = floors();
    let mut wrong = Wrong::default();
    for file in sources() {
        let Some(own) = file.module() else { continue };
        if file.is_in_tests_directory() {
            continue;
        }
        let Some(&own_floor) = floors.get(own) else { continue };
        for (line, import) in imports(&file) {
            let floor = floors.get(&*import);
            if import != own && floor.is_none_or(|&floor| floor >= own_floor) {
                let what = format!("{own}, floor {own_floor}, imports {import}, floor {floor:?}");
                wrong.add(&file, line, &what);
            }
        }
    }
    wrong.none("a module may import only from lower floors and its own children");
}

#[test]
fn the_binary_is_an_index_of_the_commands() {
    let main = sources().into_iter().find(|file| file.path == "src/main.rs").unwrap();
    let named: BTreeSet<_> = paths_after(&code_of(&main.text), "ringwave::").into_iter().collect();
    assert_eq!(named.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["cli"]);
}

#[test]
fn every_module_has_a_floor_and_says_which() {
    let floors = floors();
    let mut wrong = Wrong::default();
    for file in sources() {
        if file.is_test() || file.path == "src/lib.rs" {
            continue;
        }
        let first = file.text.lines().next().unwrap_or_default();
        let Some(doc) = first.strip_prefix("//! ") else {
            wrong.add(&file, 1, "does not start with a `//!` that tells its one job");
            continue;
        };
        let module = file.module().unwrap_or("cli");
        let floor = floors.get(module);
        let Some(floor) = floor else {
            wrong.add(&file, 1, "is on no floor: give it one in src/lib.rs and in FLOORS");
            continue;
        };
        let says_floor = doc.starts_with("Floor ");
        if file.is_top_of_module() && !says_floor {
            wrong.add(&file, 1, &format!("does not start with `Floor {floor}.`"));
        }
        if says_floor && !doc.starts_with(&format!("Floor {floor}. ")) {
            wrong.add(&file, 1, &format!("is on floor {floor}"));
        }
    }
    wrong.none("a module says its floor and its one job first");
}

#[test]
fn the_crate_lists_its_modules_by_floor() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<_> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let by_floor: Vec<_> = FLOORS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    assert_eq!(declared, by_floor, "the `mod` list of src/lib.rs");
    for (floor, modules) in FLOORS {
        let row = |line: &str| line.starts_with(&format!("//! | {floor} |"));
        let row = lib.lines().find(|line| row(line)).unwrap_or_default();
        for module in modules {
            let name = format!("`{module}`");
            assert!(row.contains(&name), "src/lib.rs tells {module} as floor {floor}: {row}");
        }
    }
}

// ---- unsafe code --------------------------------------------------------------------------------

#[test]
fn unsafe_code_is_allowed_in_three_files_only() {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let allows =
        |file: &File| code_of(&file.text).split(|c| !is_name(c)).any(|name| name == "unsafe_code");
    let with: Vec<_> = rust_files().into_iter().filter(allows).map(|file| file.path).collect();
    assert_eq!(with, UNSAFE_FILES);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\nunsafe_code = \"deny\"\n"));
}

// ---- sizes --------------------------------------------------------------------------------------

#[test]
fn lines_fit_into_the_width() {
    let mut wrong = Wrong::default();
    // Rust files only, because a script's line ends where its command ends.
    for file in rust_files() {
        for (line, text) in numbered(&file.text) {
            let columns = text.chars().count();
            // A literal has to stay in one piece.
            let literal = ["\"", "r\"", "r#\""].iter().any(|start| text.trim().starts_with(start));
            if columns > COLUMNS_MAX && !literal {
                wrong.add(&file, line, &format!("{columns} columns"));
            }
        }
    }
    wrong.none(&format!("lines have at most {COLUMNS_MAX} columns"));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut wrong = Wrong::default();
    for file in sources() {
        if file.is_test() {
            continue;
        }
        let code = code_of(before_tests(&file.text));
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > CODE_LINES_MAX {
            wrong.add(&file, 1, &format!("{lines} lines of code"));
        }
    }
    wrong.none(&format!("a file has at most {CODE_LINES_MAX} lines of code, tests aside"));
}

// ---- what does not belong here ------------------------------------------------------------------

#[test]
fn nothing_is_left_unfinished() {
    // Written in two parts, so that this file has none of them.
    let marks = ["TO~DO", "FIX~ME", "XX~X", "todo~!", "unimple~mented!"].map(joined);
    let mut wrong = Wrong::default();
    for file in files() {
        for (line, text) in numbered(&file.text) {
            for mark in marks.iter().filter(|mark| text.contains(mark.as_str())) {
                wrong.add(&file, line, mark);
            }
        }
    }
    wrong.none("what is not done is an issue, not a mark");
}

#[test]
fn a_test_that_cannot_run_says_so_where_it_is_counted() {
    // Written in two parts, so that this file has none of them.
    let marks = ["\"ski~pped", "\"skip~ping", "#[ig~nore"].map(joined);
    let mut wrong = Wrong::default();
    for file in rust_files() {
        for (line, text) in numbered(&file.text) {
            for mark in marks.iter().filter(|mark| text.contains(mark.as_str())) {
                wrong.add(&file, line, mark);
            }
        }
    }
    wrong.none("tests are left out by `left_out` (tests/support), which scripts/test counts");
}

#[test]
fn nothing_depends_on_one_machine_or_one_registry() {
    let homes = ["/home~/", "/root~/", "/Users~/", "/work~/"].map(joined);
    let hosts = [
        "registry.npmjs~.org",
        "registry.yarnpkg~.com",
        "files.pythonhosted~.org",
        "pypi~.org",
        "static.crates~.io",
        "index.crates~.io",
        "deb.debian~.org",
        "archive.ubuntu~.com",
        "proxy.golang~.org",
    ]
    .map(joined);
    let mut wrong = Wrong::default();
    for file in files() {
        for (line, text) in numbered(&file.text) {
            for home in homes.iter().filter(|home| starts_path(text, home)) {
                wrong.add(&file, line, &format!("a path of one machine: {home}"));
            }
            for host in hosts.iter().filter(|host| text.contains(host.as_str())) {
                wrong.add(&file, line, &format!("the host of a registry: {host}"));
            }
        }
    }
    wrong.none("a clone builds anywhere, from whatever registry is configured there");
}

#[test]
fn the_top_level_is_what_a_visitor_needs() {
    let ignored = ignored();
    let mut names: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !ignored.contains(name))
        .filter(|name| !TOP_LEVEL_OPTIONAL.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, TOP_LEVEL);
}

// ---- the tree -----------------------------------------------------------------------------------

/// A text file of the tree.
struct File {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl File {
    /// The top-level module that the file belongs to; none for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        match inside.split_once('/') {
            Some((module, _)) => Some(module),
            None => inside.strip_suffix(".rs").filter(|name| !["lib", "main"].contains(name)),
        }
    }

    /// Whether this file is a top-level module's own: `src/time.rs`, `src/bus/mod.rs`.
    fn is_top_of_module(&self) -> bool {
        match self.path.split('/').collect::<Vec<_>>()[..] {
            [_, _] => true,
            [_, _, file] => file == "mod.rs",
            _ => false,
        }
    }

    fn is_in_tests_directory(&self) -> bool {
        self.path.contains("/tests/")
    }

    fn is_test(&self) -> bool {
        self.is_in_tests_directory() || self.path.ends_with("/tests.rs")
    }

    /// How many `super` lead from this file to the crate.
    fn depth(&self) -> usize {
        let names = self.path.split('/').count() - 1;
        names - usize::from(self.path.ends_with("/mod.rs"))
    }
}

/// Everything below `src`.
fn sources() -> Vec<File> {
    rust_files().into_iter().filter(|file| file.path.starts_with("src/")).collect()
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// All text files of the repository, in the order of their paths.
fn files() -> Vec<File> {
    let (ignored, root) = (ignored(), root());
    let mut directories = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name == ".git" || ignored.contains(name) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 50, "the tree was not found");
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The names that `.gitignore` lists. It has names only, no patterns.
fn ignored() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(".gitignore")).unwrap();
    let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: BTreeSet<_> = names.map(|name| name.trim_matches('/').to_owned()).collect();
    assert!(!names.iter().any(|name| name.contains(['*', '?', '/', '!'])), "{names:?}");
    names
}

fn floors() -> BTreeMap<&'static str, u8> {
    let of = |&(floor, modules): &(u8, &'static [&'static str])| {
        modules.iter().map(move |&module| (module, floor))
    };
    FLOORS.iter().flat_map(of).collect()
}

// ---- reading Rust -------------------------------------------------------------------------------

/// The top-level modules that a file names, with the lines: by `crate::`, or by as many `super::`
/// as lead to the crate.
fn imports(file: &File) -> Vec<(usize, String)> {
    let code = code_of(&file.text);
    let mut found = paths_after(&code, "crate::");
    // An inline module is one deeper, hence "or more".
    let modules: Vec<_> = floors().into_keys().collect();
    let climbed = paths_after(&code, &"super::".repeat(file.depth()));
    found.extend(climbed.into_iter().filter(|(_, name)| modules.contains(&name.as_str())));
    found
}

/// The first name of each path that follows `prefix`, be it alone or in a group of braces.
fn paths_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
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

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The text with comments and literals blanked out; lines stay where they are.
fn code_of(text: &str) -> String {
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

fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

// ---- small things -------------------------------------------------------------------------------

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().zip(1..).map(|(line, number)| (number, line))
}

fn joined(parts: &str) -> String {
    parts.replace('~', "")
}

/// Whether an absolute path begins with this; `a/home/b` has it in the middle.
fn starts_path(line: &str, prefix: &str) -> bool {
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/}".contains(&byte);
    line.match_indices(prefix).any(|(at, _)| at == 0 || !is_path(line.as_bytes()[at - 1]))
}

/// The findings of a test, reported all at once.
#[derive(Default)]
struct Wrong(String);

impl Wrong {
    fn add(&mut self, file: &File, line: usize, what: &str) {
        writeln!(self.0, "{}:{line}: {what}", file.path).unwrap();
    }

    #[track_caller]
    fn none(self, rule: &str) {
        assert!(self.0.is_empty(), "{rule}:\n{}", self.0);
    }
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* b\n */ 'c' '\\'' \"d // \\\" \" br#\"e\"f\"# 'ü' for<'a> &'a x // g\nh";
    let words: Vec<_> = code_of(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "for<'a>", "&'a", "x", "h"]);
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::{\n    a::{self, b},\n    c,\n};\nuse crate::d;\n\
        fn f(_: crate::e::G) {}\nuse super::super::front::X; use super::y;";
    let file = File { path: "src/plane/send.rs".into(), text: text.into() };
    let found = imports(&file).into_iter();
    let names: Vec<_> = found.map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["1 a", "1 c", "5 d", "6 e", "7 front"]);
}
