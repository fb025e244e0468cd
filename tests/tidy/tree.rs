//! The files of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the tree.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The top-level module that the file belongs to; none for `lib.rs` and `main.rs`.
    pub(crate) fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        match inside.split_once('/') {
            Some((module, _)) => Some(module),
            None => inside.strip_suffix(".rs").filter(|name| !["lib", "main"].contains(name)),
        }
    }

    /// Whether this file is a top-level module's own: `src/time.rs`, `src/bus/mod.rs`.
    pub(crate) fn is_top_of_module(&self) -> bool {
        match self.path.split('/').collect::<Vec<_>>()[..] {
            [_, _] => true,
            [_, _, file] => ["mod.rs", "lib.rs"].contains(&file),
            _ => false,
        }
    }

    pub(crate) fn is_in_tests_directory(&self) -> bool {
        self.path.contains("/tests/")
    }

    pub(crate) fn is_test(&self) -> bool {
        self.is_in_tests_directory() || self.path.ends_with("/tests.rs")
    }

    /// How many `super` lead from this file to the crate.
    pub(crate) fn depth(&self) -> usize {
        let names = self.path.split('/').count() - 1;
        names - usize::from(self.path.ends_with("/mod.rs"))
    }
}

/// Everything below `src`.
pub(crate) fn sources() -> Vec<File> {
    rust_files().into_iter().filter(|file| file.path.starts_with("src/")).collect()
}

pub(crate) fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// All text files of the repository, in the order of their paths.
pub(crate) fn files() -> Vec<File> {
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

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The names that `.gitignore` lists. It has names only, no patterns.
pub(crate) fn ignored() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(".gitignore")).unwrap();
    let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: BTreeSet<_> = names.map(|name| name.trim_matches('/').to_owned()).collect();
    assert!(!names.iter().any(|name| name.contains(['*', '?', '/', '!'])), "{names:?}");
    names
}
