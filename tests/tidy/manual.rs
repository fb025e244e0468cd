//! The front page and the manual: links lead somewhere, each chapter is found, and the front page
//! stays one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

const FRONT_PAGE: &str = "README.md";
const MANUAL: &str = "src/manual";
const TUNING: &str = "tuning";

/// A newcomer reads the front page to its end. Whatever goes beyond this belongs into a chapter.
const FRONT_PAGE_LINES_MAX: usize = 200;

#[test]
fn every_link_of_the_manual_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let mut wrong = Vec::new();
    for page in pages.values() {
        for label in page.labels_without_a_definition() {
            wrong.push(format!("{}: [{label}] is defined nowhere", page.path));
        }
        for target in page.targets() {
            if let Err(error) = resolve(&pages, page, target) {
                wrong.push(format!("{}: {target}: {error}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "relative links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_chapter_asks_a_question_and_is_in_both_tables_of_contents() {
    let pages = pages();
    let front_page = &pages[FRONT_PAGE].text;
    let module = fs::read_to_string(root().join(MANUAL).join("mod.rs")).unwrap();
    let (definitions, declared) = module.split_once("\nchapters! {").unwrap();
    let declared: Vec<_> = declared.split_whitespace().collect();
    for (path, page) in pages.iter().filter(|(path, _)| path.starts_with(MANUAL)) {
        let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let title = page.text.lines().next().unwrap().strip_prefix("# ").unwrap_or_default();
        assert!(title.ends_with('?'), "{path} begins with a heading that asks its question");
        let entry = format!("[{title}][{name}]");
        assert!(front_page.contains(&entry), "{FRONT_PAGE} lists {path} as {entry}");
        assert!(declared.contains(&name), "chapters! of {MANUAL}/mod.rs declares {name}");
        let definition = format!("/// [{name}]: crate::manual::{name}\n");
        assert!(definitions.contains(&definition), "{MANUAL}/mod.rs defines the link {name}");
    }
}

#[test]
fn the_front_page_stays_short() {
    let lines = pages()[FRONT_PAGE].text.lines().count();
    assert!(lines <= FRONT_PAGE_LINES_MAX, "{FRONT_PAGE} has {lines} lines");
}

// ---- pages --------------------------------------------------------------------------------------

/// A Markdown file.
struct Page {
    /// The path from the root of the repository.
    path: String,
    text: String,
    /// The text without code, whose brackets are no links.
    prose: String,
}

impl Page {
    /// The targets of all links to files: of `[text](target)` and of `[label]: target`.
    fn targets(&self) -> impl Iterator<Item = &str> {
        let inline = self.prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let inline = inline.map(|(target, _)| target);
        let all = inline.chain(self.definitions().map(|(_, target)| target));
        all.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
    }

    /// The lines `[label]: target`.
    fn definitions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.prose.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
    }

    /// The labels of links, `[text][label]` or `[label]` alone, that have no definition.
    fn labels_without_a_definition(&self) -> Vec<&str> {
        let mut missing = Vec::new();
        for (at, _) in self.prose.match_indices('[') {
            let Some((label, rest)) = self.prose[at + 1..].split_once(']') else { continue };
            // The text of a link is no label: its label or target follows.
            let is_text = rest.starts_with('(') || rest.starts_with('[');
            let is_known = self.definitions().any(|(known, _)| known.eq_ignore_ascii_case(label));
            if !is_text && !is_known {
                missing.push(label);
            }
        }
        missing
    }

    /// The anchors of the headings, as code hosts and rustdoc derive them.
    fn anchors(&self) -> impl Iterator<Item = String> {
        let headings = prose_lines(&self.text).filter(|line| line.starts_with('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim()))
    }
}

/// The front page, the chapters and the page of the tuning files, by their paths.
fn pages() -> BTreeMap<String, Page> {
    let mut paths = vec![PathBuf::from(FRONT_PAGE)];
    for directory in [MANUAL, TUNING] {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        paths.extend(names.map(|name| Path::new(directory).join(name)));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages = paths.into_iter().map(|path| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let prose = prose_of(&text);
        let path = path.to_str().unwrap().to_owned();
        (path.clone(), Page { path, text, prose })
    });
    pages.collect()
}

/// Follows a link from its page.
fn resolve(pages: &BTreeMap<String, Page>, from: &Page, target: &str) -> Result<(), String> {
    let (file, heading) = match target.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (target, None),
    };
    let path = match file {
        "" => from.path.clone(),
        _ => joined(Path::new(&from.path).parent().unwrap(), file),
    };
    if !root().join(&path).exists() {
        return Err(format!("there is no {path}"));
    }
    let Some(heading) = heading else { return Ok(()) };
    let page = pages.get(&path).ok_or_else(|| format!("{path} has no headings"))?;
    let found = page.anchors().any(|anchor| anchor == heading);
    if found { Ok(()) } else { Err(format!("{path} has no heading for #{heading}")) }
}

/// The path that a relative link names, seen from a directory.
fn joined(directory: &Path, relative: &str) -> String {
    let mut path = directory.to_owned();
    for component in Path::new(relative).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{relative} leaves the repository"),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_str().unwrap().to_owned()
}

// ---- reading Markdown ---------------------------------------------------------------------------

/// The lines outside of code blocks.
fn prose_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The text without code blocks and without `code` in lines.
fn prose_of(text: &str) -> String {
    let lines: Vec<_> = prose_lines(text).collect();
    let text = lines.join("\n");
    // Every second piece between backticks is code.
    text.split('`').step_by(2).collect()
}

/// Letters and digits in lower case, and a hyphen for each space.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|char| match char {
        ' ' | '-' => Some('-'),
        '_' => Some('_'),
        _ => char.is_alphanumeric().then(|| char.to_ascii_lowercase()),
    });
    kept.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn links_are_found_in_every_form() {
    let text =
        "# A `b`: c-d?\n[x](y.md#z) `[no]` [in\ntwo][l] [M]\n```sh\n[no](no)\n```\n[m]: n.md\n";
    let page = Page { path: String::new(), text: text.to_owned(), prose: prose_of(text) };
    assert_eq!(page.targets().collect::<Vec<_>>(), ["y.md#z", "n.md"]);
    assert_eq!(page.labels_without_a_definition(), ["l"]);
    assert_eq!(page.anchors().collect::<Vec<_>>(), ["a-b-c-d"]);
    assert_eq!(joined(Path::new("src/manual"), "../../README.md"), "README.md");
}
