//! Floor 7. The flags of `ringwave start` and `ringwave check`. Those that set settings derive from
//! the declarations of the settings: the command line is built from [`setting_flags`], and
//! [`FlagValues`] keeps the values by the same names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::raw_value::RawValue;
use super::setting::Declaration;
use super::settings::ALL;
use super::value_type::FlagArgument;

/// A flag that sets a setting.
pub(crate) struct SettingFlag {
    /// `--port`
    pub(crate) name: &'static str,
    /// The kind of argument that follows it.
    pub(crate) argument: FlagArgument,
    /// The text of `--help`.
    pub(crate) help: String,
}

/// The flags that set settings, in the order of the manual.
pub(crate) fn setting_flags() -> impl Iterator<Item = SettingFlag> {
    ALL.iter().filter_map(|setting| {
        let declaration = setting.declaration();
        let (name, argument) = (declaration.flag?, setting.argument());
        Some(SettingFlag { name, argument, help: help(declaration) })
    })
}

/// The meaning of a setting, its default and the variable that its flag overrides.
fn help(declaration: &Declaration) -> String {
    let mut text = declaration.doc.to_owned();
    if !declaration.default.is_empty() {
        text.push_str(&format!(" [default: {}]", declaration.default.trim_matches(['(', ')'])));
    }
    if let Some(env) = declaration.env {
        text.push_str(&format!(" [env: {env}]"));
    }
    text
}

/// The flags of a command line, unchecked.
#[derive(Clone, Default)]
pub struct Flags {
    /// The flags that set settings.
    pub settings: FlagValues,
    /// `--env`: the file to read instead of `.env`.
    pub env: Option<PathBuf>,
    /// `--config`: the file to read instead of `ringwave.toml`.
    pub config: Option<PathBuf>,
    /// `--dev`: serve the development app, on any address.
    pub dev: bool,
}

/// The values of the flags that set settings, by the names of the flags.
#[derive(Clone, Default)]
pub struct FlagValues(BTreeMap<&'static str, RawValue>);

impl FlagValues {
    /// Takes a flag that is a switch.
    pub(crate) fn turn_on(&mut self, flag: &SettingFlag) {
        self.0.insert(flag.name, RawValue::Bool(true));
    }

    /// Takes the value of a flag.
    pub(crate) fn set(&mut self, flag: &SettingFlag, value: &str) {
        self.0.insert(flag.name, RawValue::Text(value.to_owned()));
    }

    /// Takes all values of a flag that may be repeated.
    pub(crate) fn set_all(&mut self, flag: &SettingFlag, values: Vec<String>) {
        self.0.insert(flag.name, RawValue::List(values));
    }

    /// The value that this flag gave.
    pub(super) fn get(&self, name: &str) -> Option<RawValue> {
        self.0.get(name).cloned()
    }
}

#[cfg(test)]
impl Flags {
    /// These flags and one that sets a setting, as the command line would give it.
    pub(crate) fn with(mut self, name: &str, values: &[&str]) -> Self {
        let flag = setting_flags().find(|flag| flag.name == name).unwrap();
        match flag.argument {
            FlagArgument::Switch => self.settings.turn_on(&flag),
            FlagArgument::One(_) => self.settings.set(&flag, values[0]),
            FlagArgument::Many(_) => {
                let values = values.iter().map(|&value| value.to_owned());
                self.settings.set_all(&flag, values.collect());
            }
        }
        self
    }
}
