//! Floor 7. One setting: its declaration, the type of its values, and both together as the listings
//! need them.

use super::raw_value::RawValue;
use super::value_type::{FlagArgument, ValueType};

/// The names, the default and the meaning of a setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// `server.port`: table and key of `ringwave.toml`. Keys of `app` also stand in `[[apps]]`.
    pub(crate) key: &'static str,
    /// The environment variable, in the process environment or in `.env`.
    pub(crate) env: Option<&'static str>,
    /// The environment variable that names a file with the value, for settings that may be read
    /// from one. In `ringwave.toml` the file is named by the key with `_file` behind it.
    pub(crate) file_env: Option<&'static str>,
    /// The flag of `ringwave start` and `ringwave check`, with its dashes.
    pub(crate) flag: Option<&'static str>,
    /// The default as an operator would write it; in brackets where it depends on the host.
    pub(crate) default: &'static str,
    /// The step that puts a new value in force.
    pub(crate) takes_effect: TakesEffect,
    /// One sentence.
    pub(crate) doc: &'static str,
}

/// The step that puts a new value of a setting in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakesEffect {
    /// A reload: [`Setting::in_force`] takes the new value.
    OnReload,
    /// A restart: until then the value that the process was started with is in force.
    OnRestart,
}

impl TakesEffect {
    /// The word of the manual's table.
    #[cfg(test)]
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::OnReload => "reload",
            Self::OnRestart => "restart",
        }
    }
}

/// A setting whose values are of the type `T`.
pub(super) struct Setting<T> {
    pub(super) declaration: Declaration,
    pub(super) value_type: T,
}

impl<T> Setting<T> {
    /// The value that is in force after a reload, of the one before it and the one that was read.
    pub(super) fn in_force<V: Clone>(&self, before: &V, read: &V) -> V {
        match self.declaration.takes_effect {
            TakesEffect::OnReload => read.clone(),
            TakesEffect::OnRestart => before.clone(),
        }
    }
}

/// A setting of any type, as the listings need it.
pub(super) trait Declared: Sync {
    /// The names, the default and the meaning.
    fn declaration(&self) -> &Declaration;
    /// The values that the setting takes, in words.
    fn expected(&self) -> String;
    /// Whether the setting takes this value.
    fn accepts(&self, raw: &RawValue) -> bool;
    /// The argument that follows the flag, for settings that have one.
    fn argument(&self) -> FlagArgument;
}

impl<T: ValueType> Declared for Setting<T> {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn expected(&self) -> String {
        self.value_type.expected()
    }

    fn accepts(&self, raw: &RawValue) -> bool {
        self.value_type.parse(raw).is_ok()
    }

    fn argument(&self) -> FlagArgument {
        T::ARGUMENT
    }
}
