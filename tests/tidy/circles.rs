//! Circles of files: files that import from each other, directly or by way of others. They can only
//! be understood all together, so there are none.
//!
//! An import leads to the file that defines the name, through any `use` in between; where the text
//! does not tell, as with the items that a macro makes, it leads to the last file that the path
//! names. A file and its child modules are one module to everyone else: a file that uses its own
//! children imports nothing, a child that uses its parent does. Tests do not count, because they
//! look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::modules::Modules;
use crate::tree::{File, sources};

#[test]
fn files_import_in_one_direction() {
    let modules = Modules::of(&sources());
    let graph = Graph::of(&modules);
    let circles = graph.circles();
    let mut report = String::new();
    for circle in &circles {
        writeln!(report, "a circle of {} files:\n{}", circle.len(), graph.shown(circle)).unwrap();
    }
    assert!(report.is_empty(), "files import in one direction only:\n{report}");
}

/// The imports between files. Each has the lines and paths that make it.
struct Graph<'a> {
    imports: BTreeMap<&'a str, BTreeMap<&'a str, Vec<String>>>,
}

impl<'a> Graph<'a> {
    fn of(modules: &'a Modules) -> Self {
        let mut imports: BTreeMap<_, BTreeMap<_, Vec<_>>> =
            modules.files().map(|file| (file, BTreeMap::new())).collect();
        for (from, to, path) in modules.imports() {
            let shown = format!("line {}: {}", path.line, path.names.join("::"));
            imports.entry(from).or_default().entry(to).or_default().push(shown);
        }
        Self { imports }
    }

    /// The files of each circle, in the order of their paths: the strongly connected components
    /// with more than one file.
    fn circles(&self) -> Vec<Vec<&'a str>> {
        let reached: BTreeMap<_, _> =
            self.imports.keys().map(|&file| (file, self.reached_from(file))).collect();
        let circle_of = |(file, others): (&&'a str, &BTreeSet<&'a str>)| -> Vec<&'a str> {
            others.iter().copied().filter(|other| reached[other].contains(file)).collect()
        };
        let circles: BTreeSet<_> = reached.iter().map(circle_of).collect();
        circles.into_iter().filter(|circle| circle.len() > 1).collect()
    }

    fn reached_from(&self, file: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(file) = open.pop() {
            open.extend(self.imports[file].keys().filter(|&&next| reached.insert(next)));
        }
        reached
    }

    /// The imports within a circle, a line each.
    fn shown(&self, circle: &[&str]) -> String {
        let mut text = String::new();
        for from in circle {
            for (to, paths) in self.imports[from].iter().filter(|(to, _)| circle.contains(to)) {
                writeln!(text, "  {from} -> {to} ({})", paths.join(", ")).unwrap();
            }
        }
        text
    }
}

#[test]
fn a_circle_is_found_through_reexports_and_none_between_a_module_and_its_children() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let files = [
        file("src/lib.rs", "mod a;"),
        file("src/a/mod.rs", "mod b; mod c; mod d; pub use b::B; pub use c::C as D; pub struct A;"),
        // `b` and `c` import each other by the names that their parent gives them.
        file("src/a/b.rs", "use super::D; pub struct B;"),
        file("src/a/c.rs", "pub struct C(crate::a::B);"),
        // `d` imports both and its parent, and is imported by a test alone.
        file("src/a/d.rs", "use super::{A, b, c}; fn f(_: b::B) {}"),
        file("src/a/b/e.rs", "#[cfg(test)] mod tests { use crate::a::d; }"),
    ];
    let modules = Modules::of(&files);
    assert_eq!(Graph::of(&modules).circles(), [["src/a/b.rs", "src/a/c.rs"]]);
}
