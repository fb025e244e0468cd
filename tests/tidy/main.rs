//! Rules that reviews would otherwise repeat: the direction of imports, circles of files, the files
//! with unsafe code, the lengths of lines and files, and content that never belongs into the tree.
//! The tests read the sources as text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

mod circles;
mod code;
mod items;
mod manual;
mod modules;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use code::{before_tests, code_of, paths_after};
use tree::{File, files, ignored, root, rust_files, sources};

/// The top-level modules by floor. A module imports from lower floors and its own children.
const FLOORS: [(u8, &[&str]); 10] = [
    (0, &["frame", "id", "invariant", "text", "time", "version"]),
    (1, &["memory", "protocol", "rate", "ring", "websocket"]),
    (2, &["apps", "bus", "counters"]),
    (3, &["channels", "plane", "refusals"]),
    (4, &["front", "webhooks"]),
    (5, &["shard"]),
    (6, &["cluster"]),
    (7, &["config"]),
    (8, &["server"]),
    (9, &["cli", "manual", "testing"]),
];

/// The packages in `src` beside the gateway. Their files name themselves by `crate`.
const PACKAGES: [&str; 2] = ["ring", "storm"];

/// The files that may name a package: the gateway has the ring as its module `ring`, on floor 1,
/// and its key among its identifiers; the load generator is a command and no part of the server.
const PACKAGE_USERS: [(&str, &[&str]); 2] = [
    ("ringwave_ring", &["src/id.rs", "src/lib.rs", "src/storm/"]),
    ("ringwave_storm", &["src/cli/storm.rs"]),
];

/// The only files with unsafe code: memory shared with the kernel, system calls, and a call of the
/// allocator.
const UNSAFE_FILES: [&str; 4] =
    ["src/memory/allocator.rs", "src/ring/buffers.rs", "src/ring/sockets.rs", "src/ring/uring.rs"];

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
        if file.is_in_tests_directory() || PACKAGES.contains(&own) {
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
fn packages_are_used_where_they_belong() {
    let mut wrong = Wrong::default();
    for file in sources() {
        for (package, users) in PACKAGE_USERS {
            if users.iter().any(|user| file.path.starts_with(user)) {
                continue;
            }
            for (line, name) in paths_after(&code_of(&file.text), &format!("{package}::")) {
                wrong.add(&file, line, &format!("{package}::{name}"));
            }
        }
    }
    wrong.none("the ring is `crate::ring` in the gateway, and only a command runs a storm");
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
        if module == "storm" {
            // Beside the floors: nothing of the server uses it.
            continue;
        }
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
    let declared: Vec<_> = lib.lines().filter_map(declared_module).collect();
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

fn declared_module(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    line.strip_prefix("mod ").or_else(|| line.strip_prefix("use ringwave_ring as "))
}

fn floors() -> BTreeMap<&'static str, u8> {
    let of = |&(floor, modules): &(u8, &'static [&'static str])| {
        modules.iter().map(move |&module| (module, floor))
    };
    FLOORS.iter().flat_map(of).collect()
}

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

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::{\n    a::{self, b},\n    c,\n};\nuse crate::d;\n\
        fn f(_: crate::e::G) {}\nuse super::super::front::X; use super::y;";
    let file = File { path: "src/plane/send.rs".into(), text: text.into() };
    let found = imports(&file).into_iter();
    let names: Vec<_> = found.map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["1 a", "1 c", "5 d", "6 e", "7 front"]);
}

// ---- unsafe code --------------------------------------------------------------------------------

#[test]
fn unsafe_code_is_allowed_in_few_files_only() {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let allows =
        |file: &File| code_of(&file.text).split(|c| !is_name(c)).any(|name| name == "unsafe_code");
    let with: Vec<_> = rust_files().into_iter().filter(allows).map(|file| file.path).collect();
    assert_eq!(with, UNSAFE_FILES);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\nunsafe_code = \"deny\"\n"));
    for package in [".", "src/ring", "src/storm"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{package}");
    }
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
