//! Floor 7. Secrets in files of their own, as Docker, Kubernetes and systemd hand them out: the
//! setting `KEY_file` or the variable `NAME_FILE` names a file whose content is the value of `KEY`
//! or `NAME`.
//!
//! The content counts without the line feed at its end, which editors and `echo` write. It is read
//! with the rest of the configuration, so a reload reads it again, and it appears in no message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, FileError, FileFault};
use super::secret_text::{CREDENTIALS_DIRECTORY, SecretFault, secret};
use super::setting::Declaration;
use super::settings::ALL;
use super::text_file;
use super::value_source::ValueSource;

/// The ways to write the directory of systemd's credentials at the beginning of a path.
const REFERENCES: [&str; 2] = ["$CREDENTIALS_DIRECTORY/", "${CREDENTIALS_DIRECTORY}/"];

/// The settings whose value may stand in a file of its own.
pub(super) fn declarations() -> impl Iterator<Item = &'static Declaration> {
    ALL.iter().map(|setting| setting.declaration()).filter(|it| it.file_env.is_some())
}

/// Whether a key, such as `app.secret_file`, names the file of a setting.
pub(super) fn is_key(key: &str) -> bool {
    key.strip_suffix(KEY_SUFFIX).is_some_and(|key| declarations().any(|it| it.key == key))
}

/// The end of the keys of `ringwave.toml` that name files.
pub(super) const KEY_SUFFIX: &str = "_file";

/// Reads files of secrets.
pub(super) struct SecretReader<'a> {
    /// The directory that relative paths are seen from.
    directory: &'a Path,
    /// The directory of the credentials of systemd, if the unit has any.
    credentials: Option<&'a Path>,
}

impl<'a> SecretReader<'a> {
    /// One that sees relative paths from `directory`.
    pub(super) fn new(directory: &'a Path, environment: &'a BTreeMap<String, String>) -> Self {
        let credentials = environment.get(CREDENTIALS_DIRECTORY).filter(|path| !path.is_empty());
        Self { directory, credentials: credentials.map(Path::new) }
    }

    /// Returns the content of a file, without the line feed at its end. `named_by` is the setting
    /// or the variable with the path, as the operator knows it.
    pub(super) fn read(&self, path: &str, named_by: &str) -> Result<String, FileError> {
        let fault = |fault| FileError {
            path: PathBuf::from(path),
            named_by: Some(named_by.to_owned()),
            fault: FileFault::Secret(fault),
        };
        let full = self.full(path).ok_or_else(|| fault(SecretFault::NoCredentials))?;
        let bytes =
            text_file::read(&full).map_err(|cause| fault(SecretFault::Unreadable(cause)))?;
        secret(bytes).map_err(fault)
    }

    /// The path in full. `None` if it is one of credentials, and there are none.
    fn full(&self, path: &str) -> Option<PathBuf> {
        match REFERENCES.iter().find_map(|reference| path.strip_prefix(reference)) {
            Some(name) => Some(self.credentials?.join(name)),
            None => Some(self.directory.join(path)),
        }
    }
}

/// The variables whose values are in files, by their names.
#[derive(Default)]
pub(super) struct SecretVariables(BTreeMap<&'static str, (String, ValueSource)>);

impl SecretVariables {
    /// Reads the files that variables name. `find` returns the value of a variable, and where it
    /// is set, if it is not empty. A variable that is set in a stronger place hides the file of a
    /// weaker one.
    pub(super) fn read(
        reader: &SecretReader<'_>,
        find: impl Fn(&'static str) -> Option<(String, ValueSource)>,
    ) -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for declaration in declarations() {
            let (Some(name), Some(file)) = (declaration.env, declaration.file_env) else {
                continue;
            };
            let Some((path, source)) = find(file) else { continue };
            if let Some((_, other)) = find(name) {
                match (&other, &source) {
                    (ValueSource::Env(_), ValueSource::DotEnv { .. }) => continue,
                    (ValueSource::DotEnv { .. }, ValueSource::Env(_)) => {}
                    _ => return Err(twice(&other, &source)),
                }
            }
            let secret = reader.read(&path, &source.to_string())?;
            variables.insert(name, (secret, source));
        }
        Ok(Self(variables))
    }

    /// The content of the file that stands for a variable.
    pub(super) fn get(&self, name: &str) -> Option<&(String, ValueSource)> {
        self.0.get(name)
    }
}

/// The error of a secret that is given both as a value and as a file.
pub(super) fn twice(value: &ValueSource, file: &ValueSource) -> ConfigError {
    ConfigError::SecretTwice { value: value.clone(), file: file.clone() }
}
