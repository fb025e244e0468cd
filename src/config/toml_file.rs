//! Floor 7. `ringwave.toml`: tables `[server]`, `[cluster]`, `[app]` (what holds for every app) and
//! `[[apps]]` (one app each, which may differ from `[app]`) with its `[[apps.webhooks]]`. A key
//! that is no setting is an error, because a misspelt setting would otherwise be off without a
//! word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::{ConfigError, FileError, FileFault};
use super::raw_value::RawValue;
use super::secret_files::{self, KEY_SUFFIX, SecretReader};
use super::settings::ALL;
use super::spelling::nearest;
use super::value_source::ValueSource;

/// A file whose keys are all known.
pub(super) struct TomlFile {
    pub(super) path: PathBuf,
    root: Table,
    apps: Vec<Table>,
    /// The keys, such as `apps[0].secret`, whose values come from files.
    from_files: BTreeSet<String>,
}

/// Keys that belong to one app alone, hence not in `[app]`.
const CREDENTIALS: [&str; 6] = ["app_id", "key", "secret", "secret_file", "keys", WEBHOOKS];

/// Key of the list of tables in an app.
const WEBHOOKS: &str = "webhooks";

impl TomlFile {
    /// Reads the text of a file.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut root: Table = text.parse().map_err(|error| syntax_error(path, text, &error))?;
        let apps = match root.remove("apps") {
            None => Vec::new(),
            Some(apps) => app_tables(apps)
                .ok_or_else(|| FileError::new(path, FileFault::NotTables("apps")))?,
        };
        check_keys(path, &root)?;
        for app in &apps {
            check_table(path, "apps", app)?;
        }
        Ok(Self { path: path.to_owned(), root, apps, from_files: BTreeSet::new() })
    }

    /// Reads the files that keys such as `secret_file` name, and puts their contents in the places
    /// of the values.
    pub(super) fn read_secrets(&mut self, reader: &SecretReader<'_>) -> Result<(), ConfigError> {
        let Self { path, root, apps, from_files } = self;
        let mut read = |table: &mut Table, within: &str, name: &str| {
            let file = format!("{name}{KEY_SUFFIX}");
            let Some(value) = table.remove(&file) else { return Ok(()) };
            let source = |name: &str| ValueSource::Toml {
                path: path.clone(),
                key: format!("{within}.{name}"),
            };
            if table.contains_key(name) {
                return Err(secret_files::twice(&source(name), &source(&file)));
            }
            let secret = reader.read(raw(&value).as_text().as_str(), &source(&file).to_string())?;
            table.insert(name.to_owned(), Value::String(secret));
            from_files.insert(format!("{within}.{name}"));
            Ok(())
        };
        for (within, name) in secret_files::declarations().filter_map(|it| it.key.split_once('.')) {
            match root.get_mut(within) {
                _ if within == "app" => {
                    for (index, app) in apps.iter_mut().enumerate() {
                        read(app, &format!("apps[{index}]"), name)?;
                    }
                }
                Some(Value::Table(table)) => read(table, within, name)?,
                _ => {}
            }
        }
        for (index, app) in apps.iter_mut().enumerate() {
            let pairs = app.get_mut("keys").and_then(Value::as_array_mut);
            for (at, pair) in pairs.into_iter().flatten().enumerate() {
                if let Some(pair) = pair.as_table_mut() {
                    read(pair, &format!("apps[{index}].keys[{at}]"), "secret")?;
                }
            }
        }
        Ok(())
    }

    /// The key that gives a value: that of a file, if the value is from one.
    pub(super) fn giving(&self, key: String) -> String {
        if self.from_files.contains(&key) { format!("{key}{KEY_SUFFIX}") } else { key }
    }

    /// The number of `[[apps]]`.
    pub(super) fn apps_len(&self) -> usize {
        self.apps.len()
    }

    /// The value of a key such as `server.port` or `app.rate_limiting.enabled`.
    pub(super) fn value(&self, key: &str) -> Option<RawValue> {
        find(&self.root, key).map(raw)
    }

    /// The value of the key of an app in the entry at `index` of `[[apps]]`, with the key as the
    /// operator knows it.
    pub(super) fn app_value(&self, index: usize, key: &str) -> Option<(RawValue, String)> {
        let key = key.strip_prefix("app.")?;
        let value = find(self.apps.get(index)?, key)?;
        Some((raw(value), self.giving(format!("apps[{index}].{key}"))))
    }

    /// The number of `[[apps.webhooks]]` of the entry at `app` of `[[apps]]`.
    pub(super) fn webhooks_len(&self, app: usize) -> usize {
        self.webhooks(app).map_or(0, <[Value]>::len)
    }

    /// The value of the key of a webhook in the entry at `index` of an app's `[[apps.webhooks]]`.
    pub(super) fn webhook_value(
        &self,
        app: usize,
        index: usize,
        key: &str,
    ) -> Option<(RawValue, String)> {
        let key = key.strip_prefix("app.webhooks.")?;
        let value = self.webhooks(app)?.get(index)?.as_table()?.get(key)?;
        Some((raw(value), format!("apps[{app}].webhooks[{index}].{key}")))
    }

    fn webhooks(&self, app: usize) -> Option<&[Value]> {
        self.apps.get(app)?.get(WEBHOOKS)?.as_array().map(Vec::as_slice)
    }
}

fn app_tables(apps: Value) -> Option<Vec<Table>> {
    let Value::Array(apps) = apps else { return None };
    let table = |app| if let Value::Table(table) = app { Some(table) } else { None };
    apps.into_iter().map(table).collect()
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> FileError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    FileError::new(path, FileFault::NotToml { line, message })
}

fn check_keys(path: &Path, root: &Table) -> Result<(), FileError> {
    for (name, value) in root {
        match (name.as_str(), value) {
            (name @ ("server" | "cluster" | "app"), Value::Table(table)) => {
                check_table(path, name, table)?;
            }
            ("server" | "cluster" | "app", _) => {
                return Err(FileError::new(path, FileFault::NotATable(name.clone())));
            }
            _ => return Err(unknown(path, name)),
        }
    }
    let credential = CREDENTIALS.iter().find(|key| find(root, &format!("app.{key}")).is_some());
    credential.map_or(Ok(()), |key| Err(FileError::new(path, FileFault::CredentialForAll(key))))
}

fn check_table(path: &Path, prefix: &str, table: &Table) -> Result<(), FileError> {
    for (name, value) in table {
        let key = format!("{prefix}.{name}");
        let declared = key.replacen("apps.", "app.", 1);
        let inner = format!("{declared}.");
        let mut keys = ALL.iter().map(|setting| setting.declaration().key);
        match value {
            // Refused with the credentials.
            _ if key == "app.webhooks" => {}
            _ if key == "apps.webhooks" => {
                for webhook in webhook_tables(path, value)? {
                    check_table(path, &key, webhook)?;
                }
            }
            Value::Table(table) if keys.any(|key| key.starts_with(&inner)) => {
                check_table(path, &key, table)?;
            }
            _ if ALL.iter().any(|setting| setting.declaration().key == declared) => {}
            _ if secret_files::is_key(&declared) => {}
            _ => return Err(unknown(path, &key)),
        }
    }
    Ok(())
}

fn webhook_tables<'a>(path: &Path, value: &'a Value) -> Result<Vec<&'a Table>, FileError> {
    let tables: Option<Vec<_>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_table).collect());
    tables.ok_or_else(|| FileError::new(path, FileFault::NotTables("apps.webhooks")))
}

fn unknown(path: &Path, key: &str) -> FileError {
    let in_entry = key.starts_with("apps.");
    let known = ALL.iter().map(|setting| setting.declaration().key);
    let nearest = nearest(&key.replacen("apps.", "app.", 1), known, |key| key)
        .map(|known| if in_entry { known.replacen("app.", "apps.", 1) } else { known.to_owned() });
    FileError::new(path, FileFault::UnknownSetting { key: key.to_owned(), nearest })
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((outer, rest)) => find(table.get(outer)?.as_table()?, rest),
    }
}

fn raw(value: &Value) -> RawValue {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Boolean(truth) => RawValue::Bool(*truth),
        Value::Integer(number) => RawValue::Integer(*number),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            RawValue::Tables(items.iter().filter_map(Value::as_table).map(entries).collect())
        }
        Value::Array(items) => RawValue::List(items.iter().map(text).collect()),
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            RawValue::Text(text(value))
        }
    }
}

fn entries(table: &Table) -> BTreeMap<String, RawValue> {
    table.iter().map(|(key, value)| (key.clone(), raw(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        TomlFile::parse(Path::new("r.toml"), text).err().unwrap().to_string()
    }

    #[test]
    fn values_are_found_by_the_keys_of_the_settings() {
        let text = "[server]\nport = 9000\n[app]\nrate_limiting.enabled = true\n\
            [[apps]]\napp_id = \"1\"\n[[apps]]\nkey = \"k\"\n\
            [apps.rate_limiting]\nmax_attempts = 3";
        let file = TomlFile::parse(Path::new("r.toml"), text).unwrap();
        assert!(file.value("server.port") == Some(RawValue::Integer(9000)));
        assert!(file.value("app.rate_limiting.enabled") == Some(RawValue::Bool(true)));
        assert!(file.value("app.key").is_none());
        assert_eq!(file.apps_len(), 2);
        let (value, key) = file.app_value(1, "app.rate_limiting.max_attempts").unwrap();
        assert!(value == RawValue::Integer(3));
        assert_eq!(key, "apps[1].rate_limiting.max_attempts");
        assert!(file.app_value(0, "app.key").is_none());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        for (text, message) in [
            (
                "[server]\nprot = 1",
                "r.toml: there is no setting \"server.prot\"; the nearest is `server.port`",
            ),
            (
                "[[apps]]\npingg_interval = 1",
                "r.toml: there is no setting \"apps.pingg_interval\"; \
                 the nearest is `apps.ping_interval`",
            ),
            ("[zzzzzzzzzzzzzzzzzzzz]", "r.toml: there is no setting \"zzzzzzzzzzzzzzzzzzzz\""),
            ("server = 1", "r.toml: server has to be a table"),
            ("[apps]\nkey = 1", "r.toml: apps has to be a list of `[[apps]]`"),
        ] {
            assert_eq!(refused(text), message);
        }
        assert!(refused("[app]\nsecret = \"tops3cret\"").contains("[[apps]]"));
        assert!(refused("[[app.webhooks]]\nurl = \"http://a\"").contains("[[apps]]"));
    }

    #[test]
    fn webhooks_are_tables_of_their_app() {
        let text = "[[apps]]\n[[apps]]\n[[apps.webhooks]]\nurl = \"http://a\"\n\
            [[apps.webhooks]]\nheaders = [\"A: b\"]";
        let file = TomlFile::parse(Path::new("r.toml"), text).unwrap();
        assert_eq!((file.webhooks_len(0), file.webhooks_len(1)), (0, 2));
        let (value, key) = file.webhook_value(1, 0, "app.webhooks.url").unwrap();
        assert!(value == RawValue::Text("http://a".into()) && key == "apps[1].webhooks[0].url");
        assert!(file.webhook_value(1, 1, "app.webhooks.url").is_none());
        for (text, message) in [
            (
                "[[apps]]\n[[apps.webhooks]]\nurrl = \"\"",
                "r.toml: there is no setting \"apps.webhooks.urrl\"; \
                 the nearest is `apps.webhooks.url`",
            ),
            (
                "[[apps]]\n[apps.webhooks]\nurl = \"\"",
                "r.toml: apps.webhooks has to be a list of `[[apps.webhooks]]`",
            ),
        ] {
            assert_eq!(refused(text), message);
        }
    }

    #[test]
    fn a_syntax_error_names_the_line_and_hides_its_text() {
        let message = refused("[[apps]]\nkey = \"k\"\nsecret = \"tops3cret\n");
        assert!(message.starts_with("r.toml line 3 is not TOML: "), "{message}");
        assert!(!message.contains("tops3cret"), "{message}");
    }
}
