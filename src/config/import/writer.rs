//! The `ringwave.toml` as far as it is written: settings, and comments in the place of others.

use crate::config::ConfigError;
use crate::config::form::Given;
use crate::config::settings::{ALL, Declared};

use super::loose::{Field, Object, whole};

/// Writes tables in the order of the calls. Settings are named as they are declared: `server.port`.
pub(super) struct Writer(String);

impl Writer {
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
        self.value(declared, &Given::Text(text.to_owned()));
    }

    pub(super) fn truth(&mut self, declared: &str, truth: bool) {
        self.value(declared, &Given::Truth(truth));
    }

    pub(super) fn number(&mut self, declared: &str, number: i64) {
        self.value(declared, &Given::Number(number));
    }

    /// A time that restricts nothing, within what the setting takes.
    pub(super) fn milliseconds(&mut self, declared: &str, milliseconds: f64) {
        let given = whole(milliseconds.floor());
        if setting(declared).is_some_and(|setting| setting.accepts(&given)) {
            self.value(declared, &given);
        }
    }

    pub(super) fn value(&mut self, declared: &str, given: &Given) {
        self.0.push_str(&format!("{} = {}\n", key(declared), toml(given)));
    }

    /// A setting that restricts nothing. One that cannot be served becomes a comment.
    pub(super) fn setting(&mut self, declared: &str, field: &Field<'_>) {
        let Some(given) = field.given() else { return };
        match setting(declared) {
            Some(setting) if setting.accepts(&given) => self.value(declared, &given),
            Some(setting) => {
                let (name, takes) = (field.name(), setting.accepted());
                self.comment(&format!("{name} cannot be {}: it takes {takes}.", field.shown()));
            }
            None => self.comment(&format!("{} has no counterpart.", field.name())),
        }
    }

    /// A setting that limits something.
    ///
    /// # Errors
    /// It cannot be served; without it, there would be no limit.
    pub(super) fn limit(&mut self, declared: &str, field: &Field<'_>) -> Result<(), ConfigError> {
        match field.given() {
            Some(given) => self.limit_to(declared, &given, field),
            None => Ok(()),
        }
    }

    /// As [`Writer::limit`], with the value in another unit than `field` has it in.
    pub(super) fn limit_to(
        &mut self,
        declared: &str,
        given: &Given,
        field: &Field<'_>,
    ) -> Result<(), ConfigError> {
        let setting = setting(declared);
        if setting.is_some_and(|setting| setting.accepts(given)) {
            self.value(declared, given);
            return Ok(());
        }
        let takes = setting.map_or_else(|| "no value".to_owned(), Declared::accepted);
        let as_what = match given.to_string() {
            text if text == field.shown() => String::new(),
            text => format!(", here {text}"),
        };
        Err(field.refused(&format!(
            "is {}{as_what}, a limit that cannot be kept: {} takes {takes}",
            field.shown(),
            key(declared)
        )))
    }

    /// Says that there is no such limit, where the setting has a word for it.
    pub(super) fn unlimited(&mut self, declared: &str) {
        let word = Given::Text("none".to_owned());
        if setting(declared).is_some_and(|setting| setting.accepts(&word)) {
            self.value(declared, &word);
        }
    }

    /// The address to listen on. A name instead, of which a start could not know what it means,
    /// must not become all addresses.
    pub(super) fn host(&mut self, field: &Field<'_>) {
        self.setting("server.host", field);
        let Some((given, host)) = field.given().zip(setting("server.host")) else { return };
        if !host.accepts(&given) {
            self.text("server.host", "127.0.0.1");
        }
    }

    /// The id, key and secret of an app.
    pub(super) fn credentials(
        &mut self,
        id: &Field<'_>,
        key: &Field<'_>,
        secret: &Field<'_>,
    ) -> Result<(), ConfigError> {
        for (declared, field) in [("app.app_id", id), ("app.key", key), ("app.secret", secret)] {
            let text = match field.value() {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(serde_json::Value::Number(number)) => number.to_string(),
                _ => String::new(),
            };
            let given = Given::Text(text);
            let takes = setting(declared).filter(|setting| !setting.accepts(&given));
            if let Some(setting) = takes {
                return Err(field.refused(&format!(
                    "is missing in the input or cannot be served: it takes {}",
                    setting.accepted()
                )));
            }
            self.value(declared, &given);
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
    pub(super) fn unknown(&mut self, object: &Object<'_>) -> Result<(), ConfigError> {
        let is_origin = |name: &str| name.to_ascii_lowercase().contains("origin");
        if let Some((field, _)) =
            object.remaining().zip(object.names()).find(|(_, name)| is_origin(name))
        {
            return Err(field.refused(
                "is no setting of that server, so it is unclear what it should restrict: correct \
                 its name, or take it out",
            ));
        }
        let names: Vec<_> = object.names().collect();
        self.without_counterpart(&names);
        Ok(())
    }
}

fn setting(declared: &str) -> Option<&'static dyn Declared> {
    ALL.iter().copied().find(|setting| setting.declaration().key == declared)
}

/// The name within its table.
fn key(declared: &str) -> &str {
    let tables = ["app.webhooks.", "app.", "server."];
    tables.iter().find_map(|table| declared.strip_prefix(table)).unwrap_or(declared)
}

fn toml(given: &Given) -> toml::Value {
    match given {
        Given::Truth(truth) => (*truth).into(),
        Given::Number(number) => (*number).into(),
        Given::Text(text) => text.as_str().into(),
        Given::List(items) => items.clone().into(),
        Given::Tables(tables) => tables
            .iter()
            .map(|table| table.iter().map(|(key, value)| (key.clone(), toml(value))).collect())
            .collect::<Vec<toml::Table>>()
            .into(),
    }
}

/// Columns of a comment, unless one name is longer.
const COMMENT_COLUMNS: usize = 96;
