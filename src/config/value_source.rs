//! Floor 7. The source that a value of the configuration comes from, as operators know it.

use std::fmt;
use std::path::PathBuf;

/// The source that a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// This flag.
    Flag(&'static str),
    /// This variable of the process environment.
    Env(&'static str),
    /// This variable of a `.env` file.
    DotEnv {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// This key of `ringwave.toml`.
    Toml {
        /// The file.
        path: PathBuf,
        /// `server.port`, `apps[0].key`.
        key: String,
    },
    /// No source gave a value.
    Default,
    /// No source gave one, and the server whose variables are in force has another default.
    DefaultOf(&'static str),
}

impl ValueSource {
    /// The variable that it is.
    pub(super) const fn variable(&self) -> Option<&'static str> {
        match self {
            Self::Env(name) | Self::DotEnv { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it names a file that has the value, which is then a secret or has one in it.
    pub(super) fn names_file(&self) -> bool {
        match self {
            Self::Env(name) | Self::DotEnv { name, .. } => name.ends_with("_FILE"),
            Self::Toml { key, .. } => key.ends_with("_file"),
            Self::Flag(_) | Self::Default | Self::DefaultOf(_) => false,
        }
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(name) => write!(f, "{name} of the environment"),
            Self::DotEnv { name, path, line } => {
                write!(f, "{name} in {} line {line}", path.display())
            }
            Self::Toml { path, key } => write!(f, "{key} in {}", path.display()),
            Self::Default => f.write_str("default"),
            Self::DefaultOf(server) => write!(f, "default of {server}"),
        }
    }
}
