//! The modules of the sources, and the files that the paths in them lead to.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use crate::code::{code_of, without_tests};
use crate::items::{Items, Path};
use crate::tree::{File, root};

/// All modules that are files, tests aside.
pub(crate) struct Modules {
    list: Vec<Module>,
    by_path: HashMap<ModulePath, usize>,
}

/// A module that is a file.
pub(crate) struct Module {
    /// From the root of the repository.
    pub(crate) file: String,
    path: ModulePath,
    items: Items,
}

/// The directory of the package's root module, and the names that lead from there to a module.
type ModulePath = (String, Vec<String>);

/// The end of a path.
#[derive(Clone, Copy)]
enum Target {
    /// A module, by its index.
    Module(usize),
    /// A name that this module defines.
    Item(usize),
}

impl Modules {
    pub(crate) fn of(files: &[File]) -> Self {
        let packages = Package::all(files);
        let list: Vec<_> = files.iter().filter_map(|file| Module::of(file, &packages)).collect();
        let paths = list.iter().enumerate();
        let by_path = paths.map(|(index, module)| (module.path.clone(), index)).collect();
        Self { list, by_path }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|module| module.file.as_str())
    }

    /// The imports of all modules from others than their own descendants: the importing file, the
    /// imported one, and the path with its line.
    pub(crate) fn imports(&self) -> impl Iterator<Item = (&str, &str, &Path)> {
        let of = move |(index, module)| {
            let Module { file, items, .. }: &Module = module;
            let uses = items.uses.iter().map(|import| &import.path);
            uses.chain(&items.paths).filter_map(move |path| {
                let target = self.resolve(index, &path.names, &mut BTreeSet::new())?;
                let (Target::Module(to) | Target::Item(to)) = target;
                let to = &self.list[to];
                (!to.is_within(module)).then_some((file.as_str(), to.file.as_str(), path))
            })
        };
        self.list.iter().enumerate().flat_map(of)
    }

    /// The module or name that a path in a module leads to; `None` outside of the package.
    fn resolve(&self, from: usize, path: &[String], seen: &mut Seen) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let (package, names) = &self.list[from].path;
        let mut target = match first.as_str() {
            "crate" => self.module(package, &[])?,
            "self" => Target::Module(from),
            "super" => self.module(package, names.split_last()?.1)?,
            name => self.look_up(from, name, seen)?,
        };
        for name in rest {
            let Target::Module(module) = target else { break };
            target = match name.as_str() {
                "super" => self.resolve(module, std::slice::from_ref(name), seen)?,
                // An enum's variant, or an item that a macro makes.
                name => self.look_up(module, name, seen).unwrap_or(Target::Item(module)),
            };
        }
        Some(target)
    }

    /// The meaning of a name in a module.
    fn look_up(&self, module: usize, name: &str, seen: &mut Seen) -> Option<Target> {
        // Two globs may lead to each other.
        if !seen.insert((module, name.to_owned())) {
            return None;
        }
        let Module { path: (package, names), items, .. } = &self.list[module];
        if items.children.contains(name) {
            return self.module(package, &[names.as_slice(), &[name.to_owned()]].concat());
        }
        if items.defined.contains(name) {
            return Some(Target::Item(module));
        }
        let named = items.uses.iter().filter(|import| import.name == name);
        let named = named.map(|import| self.resolve(module, &import.path.names, seen));
        if let Some(target) = named.flatten().next() {
            return Some(target);
        }
        let globs = items.uses.iter().filter(|import| import.name == "*");
        let mut globs = globs.filter_map(|import| {
            match self.resolve(module, &import.path.names, &mut BTreeSet::new())? {
                Target::Module(other) if other != module => self.look_up(other, name, seen),
                _ => None,
            }
        });
        globs.next()
    }

    fn module(&self, package: &str, names: &[String]) -> Option<Target> {
        let path = (package.to_owned(), names.to_vec());
        self.by_path.get(&path).copied().map(Target::Module)
    }
}

/// The names that a resolution has looked up so far, with their modules.
type Seen = BTreeSet<(usize, String)>;

impl Module {
    /// Whether this is `other` or a descendant of it.
    fn is_within(&self, other: &Self) -> bool {
        self.path.0 == other.path.0 && self.path.1.starts_with(&other.path.1)
    }

    /// `None` for tests, and for the roots of programs, which nothing imports.
    fn of(file: &File, packages: &[Package]) -> Option<Self> {
        let package = packages.iter().find(|package| file.path.starts_with(&package.directory))?;
        let inside = file.path.strip_prefix(&package.sources)?.strip_suffix(".rs")?;
        if file.is_test() || inside == "main" {
            return None;
        }
        let names = match inside {
            _ if file.path == package.root => Vec::new(),
            inside => {
                let names = inside.strip_suffix("/mod").unwrap_or(inside).split('/');
                names.map(str::to_owned).collect()
            }
        };
        let items = Items::of(&without_tests(&code_of(&file.text)));
        Some(Self { file: file.path.clone(), path: (package.sources.clone(), names), items })
    }
}

/// A package with its library, by paths from the root of the repository. Directories end in `/`.
struct Package {
    directory: String,
    /// The file of the root module.
    root: String,
    /// The directory of the root module.
    sources: String,
}

impl Package {
    /// The gateway's, and those below `src` that have a `Cargo.toml`: these first.
    fn all(files: &[File]) -> Vec<Self> {
        let inside = files.iter().filter_map(|file| {
            let (directory, _) = file.path.strip_prefix("src/")?.split_once('/')?;
            Some(format!("src/{directory}/"))
        });
        let mut packages: Vec<_> =
            inside.collect::<BTreeSet<_>>().into_iter().filter_map(Self::of).collect();
        let [root, sources] = ["src/lib.rs", "src/"].map(str::to_owned);
        packages.push(Self { directory: sources.clone(), root, sources });
        packages
    }

    /// The package of a directory, if it is one. Its manifest may name the root module.
    fn of(directory: String) -> Option<Self> {
        let manifest = fs::read_to_string(root().join(&directory).join("Cargo.toml")).ok()?;
        let (_, lib) = manifest.split_once("[lib]").unwrap_or_default();
        let lib = lib.split("\n[").next().unwrap_or_default();
        let path = lib.lines().find_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
        let root = format!("{directory}{}", path.unwrap_or("src/lib.rs"));
        let sources = root[..=root.rfind('/')?].to_owned();
        Some(Self { directory, root, sources })
    }
}
