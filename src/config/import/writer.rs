//! The `ringwave.toml` as far as it is written: settings, and comments in the place of others.

use crate::config::raw_value::RawValue;
use crate::config::setting::Declared;
use crate::config::settings::ALL;

use super::error::{FieldFault, ImportError};
use super::loose::{Field, Object, whole};

/// Writes tables in the order of the calls. Settings are named as they are declared: `server.port`.
pub(super) struct TomlWriter(String);

impl TomlWriter {
    /// A file that begins with a comment on where it comes from.
    pub(super) fn new(made_of: &str) -> Self {
        let mut out = Self(String::new());
        out.comment(&format!("Made of {made_of} by `ringwave import`."));
        out.comment(
            "It has the secrets of the apps: keep it as you keep .env. Where a variable of",
        );
        out.comment(".env is set, it wins over this file.");
        out
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Begins a table: `[server]`.
    pub(super) fn table(&mut self, header: &str) {
        self.0.push_str(&format!("\n{header}\n"));
    }

    /// A line of its own. Control characters, which could end it, are escaped.
    pub(super) fn comment(&mut self, text: &str) {
        self.0.push_str("# ");
        for char in text.chars() {
            if char.is_control() {
                self.0.extend(char.escape_default());
            } else {
                self.0.push(char);
            }
        }
        self.0.push('\n');
    }

    pub(super) fn text(&mut self, declared: &str, text: &str) {
        self.value(declared, &RawValue::Text(text.to_owned()));
    }

    pub(super) fn truth(&mut self, declared: &str, truth: bool) {
        self.value(declared, &RawValue::Bool(truth));
    }

    pub(super) fn number(&mut self, declared: &str, number: i64) {
        self.value(declared, &RawValue::Integer(number));
    }

    /// A time that restricts nothing, within what the setting takes.
    pub(super) fn milliseconds(&mut self, declared: &str, milliseconds: f64) {
        let raw = whole(milliseconds.floor());
        let _taken = self.take(declared, &raw);
    }

    /// Writes a value that its setting accepts. Returns whether it does.
    #[must_use]
    fn take(&mut self, declared: &str, raw: &RawValue) -> bool {
        let accepted = setting(declared).is_some_and(|setting| setting.accepts(raw));
        if accepted {
            self.value(declared, raw);
        }
        accepted
    }

    pub(super) fn value(&mut self, declared: &str, raw: &RawValue) {
        self.0.push_str(&format!("{} = {}\n", key(declared), toml(raw)));
    }

    /// A setting that restricts nothing. One that cannot be served becomes a comment.
    pub(super) fn setting(&mut self, declared: &str, field: &Field<'_>) {
        let Some(raw) = field.raw() else { return };
        match setting(declared) {
            Some(setting) if setting.accepts(&raw) => self.value(declared, &raw),
            Some(setting) => {
                let (name, takes) = (field.name(), setting.expected());
                self.comment(&format!("{name} cannot be {}: it takes {takes}.", field.shown()));
            }
            None => self.comment(&format!("{} has no counterpart.", field.name())),
        }
    }

    /// A setting that limits something.
    ///
    /// # Errors
    /// It cannot be served; without it, there would be no limit.
    pub(super) fn limit(&mut self, declared: &str, field: &Field<'_>) -> Result<(), ImportError> {
        match field.raw() {
            Some(raw) => self.limit_to(declared, &raw, field),
            None => Ok(()),
        }
    }

    /// As [`TomlWriter::limit`], with the value in another unit than `field` has it in.
    pub(super) fn limit_to(
        &mut self,
        declared: &str,
        raw: &RawValue,
        field: &Field<'_>,
    ) -> Result<(), ImportError> {
        if self.take(declared, raw) {
            return Ok(());
        }
        let value = field.shown();
        let converted = Some(raw.to_string()).filter(|converted| *converted != value);
        Err(field.refused(FieldFault::Limit {
            value,
            converted,
            setting: key(declared).to_owned(),
            expected: expected(declared),
        }))
    }

    /// Says that there is no such limit, where the setting has a word for it.
    pub(super) fn unlimited(&mut self, declared: &str) {
        let word = RawValue::Text("none".to_owned());
        let _taken = self.take(declared, &word);
    }

    /// Text that may be a secret, which no comment repeats.
    pub(super) fn secret(&mut self, declared: &str, field: &Field<'_>) {
        let Some(raw) = field.raw() else { return };
        if !self.take(declared, &raw) {
            self.comment(&format!("{} is not taken over: it is no text.", field.name()));
        }
    }

    /// The address of another server, which may hold a password.
    ///
    /// # Errors
    /// It cannot be served.
    pub(super) fn address(
        &mut self,
        declared: &str,
        raw: &RawValue,
        field: &Field<'_>,
    ) -> Result<(), ImportError> {
        if self.take(declared, raw) {
            return Ok(());
        }
        let expected = expected(declared);
        Err(field.refused(FieldFault::Address { setting: declared.to_owned(), expected }))
    }

    /// The address to listen on. A name instead, of which a start could not know what it means,
    /// must not become all addresses.
    pub(super) fn host(&mut self, field: &Field<'_>) {
        self.setting("server.host", field);
        let Some((raw, host)) = field.raw().zip(setting("server.host")) else { return };
        if !host.accepts(&raw) {
            self.text("server.host", "127.0.0.1");
        }
    }

    /// The id, key and secret of an app.
    pub(super) fn credentials(
        &mut self,
        id: &Field<'_>,
        key: &Field<'_>,
        secret: &Field<'_>,
    ) -> Result<(), ImportError> {
        for (declared, field) in [("app.app_id", id), ("app.key", key), ("app.secret", secret)] {
            let text = match field.value() {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(serde_json::Value::Number(number)) => number.to_string(),
                _ => String::new(),
            };
            let raw = RawValue::Text(text);
            let takes = setting(declared).filter(|setting| !setting.accepts(&raw));
            if let Some(setting) = takes {
                let expected = setting.expected();
                return Err(field.refused(FieldFault::Credential { expected }));
            }
            self.value(declared, &raw);
        }
        Ok(())
    }

    /// Names what is not taken over, in as many lines as it takes.
    pub(super) fn without_counterpart(&mut self, names: &[&str]) {
        let mut line = String::new();
        for (position, name) in names.iter().enumerate() {
            let end = if position + 1 == names.len() { "." } else { "," };
            let name = format!(" {name:?}{end}");
            if !line.is_empty() && line.len() + name.len() > COMMENT_COLUMNS {
                self.comment(&line);
                line = " ".to_owned();
            }
            if line.is_empty() {
                line.push_str("Without a counterpart:");
            }
            line.push_str(&name);
        }
        if !line.is_empty() {
            self.comment(&line);
        }
    }

    /// Names the fields that no importer took in a comment.
    ///
    /// # Errors
    /// One of them seems to be a restriction of origins under another name.
    pub(super) fn unknown(&mut self, object: &Object<'_>) -> Result<(), ImportError> {
        let is_origin = |name: &str| name.to_ascii_lowercase().contains("origin");
        if let Some((field, _)) =
            object.remaining().zip(object.names()).find(|(_, name)| is_origin(name))
        {
            return Err(field.refused(FieldFault::UnknownOrigins));
        }
        let names: Vec<_> = object.names().collect();
        self.without_counterpart(&names);
        Ok(())
    }
}

fn setting(declared: &str) -> Option<&'static dyn Declared> {
    ALL.iter().copied().find(|setting| setting.declaration().key == declared)
}

/// The values that a setting accepts.
fn expected(declared: &str) -> String {
    setting(declared).map_or_else(|| "no value".to_owned(), Declared::expected)
}

/// The name within its table.
fn key(declared: &str) -> &str {
    let tables = ["app.webhooks.", "app.", "cluster.", "server."];
    tables.iter().find_map(|table| declared.strip_prefix(table)).unwrap_or(declared)
}

fn toml(raw: &RawValue) -> toml::Value {
    match raw {
        RawValue::Bool(truth) => (*truth).into(),
        RawValue::Integer(number) => (*number).into(),
        RawValue::Text(text) => text.as_str().into(),
        RawValue::List(items) => items.clone().into(),
        RawValue::Tables(tables) => tables
            .iter()
            .map(|table| table.iter().map(|(key, value)| (key.clone(), toml(value))).collect())
            .collect::<Vec<toml::Table>>()
            .into(),
    }
}

/// Columns of a comment, unless one name is longer.
const COMMENT_COLUMNS: usize = 96;
