//! `ringwave.toml`: any text, and any values of all settings. Any error is a sentence without a
//! secret.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::config::fuzzing::{keys, toml};
use ringwave_fuzz::{Json, MARKER};
use serde_json::Value;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a str),
    Settings { values: Vec<(u8, Given<'a>)>, more: &'a str },
}

#[derive(Arbitrary, Debug)]
enum Given<'a> {
    Number(i64),
    Small(u8),
    Truth(bool),
    Text(&'a str),
    Unit(u16, u8),
    List(Vec<&'a str>),
    Any(Json),
}

impl Given<'_> {
    fn toml(&self) -> ::toml::Value {
        const UNITS: [&str; 8] = ["ms", "s", "m", "h", "B", "KiB", "MiB", "%"];
        match self {
            Self::Number(number) => (*number).into(),
            Self::Small(number) => i64::from(*number).into(),
            Self::Truth(truth) => (*truth).into(),
            Self::Text(text) => (*text).into(),
            Self::Unit(number, unit) => {
                format!("{number}{}", UNITS[usize::from(*unit) % UNITS.len()]).into()
            }
            Self::List(items) => items.clone().into(),
            Self::Any(Json(json)) => of_json(json),
        }
    }
}

fn of_json(json: &Value) -> ::toml::Value {
    match json {
        Value::Null => "null".into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| number.as_f64().unwrap_or(0.0).into(), ::toml::Value::Integer),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(of_json).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let table = fields.iter().map(|(name, value)| (name.clone(), of_json(value)));
            ::toml::Value::Table(table.collect())
        }
    }
}

/// Sets the value of `a.b.c` in nested tables.
fn set(table: &mut ::toml::Table, key: &str, value: ::toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((outer, rest)) => {
            let inner = table.entry(outer).or_insert_with(|| ::toml::Table::new().into());
            if let Some(inner) = inner.as_table_mut() {
                set(inner, rest, value);
            }
        }
    }
}

fn file(values: &[(u8, Given<'_>)]) -> String {
    let known: Vec<_> = keys().collect();
    let (mut root, mut app) = (::toml::Table::new(), ::toml::Table::new());
    for (key, value) in values {
        let key = known[usize::from(*key) % known.len()];
        match key.strip_prefix("app.") {
            Some(key) if !key.starts_with("webhooks.") => set(&mut app, key, value.toml()),
            Some(key) => {
                let webhooks = app.entry("webhooks").or_insert_with(|| {
                    vec![::toml::Table::from_iter([("url".to_owned(), "http://a/".into())])].into()
                });
                let first = webhooks.as_array_mut().and_then(|list| list.first_mut());
                if let Some(webhook) = first.and_then(::toml::Value::as_table_mut) {
                    set(webhook, &key["webhooks.".len()..], value.toml());
                }
            }
            None => set(&mut root, key, value.toml()),
        }
    }
    for (key, value) in [("app_id", "1"), ("key", "k"), ("secret", MARKER)] {
        app.entry(key).or_insert_with(|| value.into());
    }
    root.insert("apps".to_owned(), vec![app].into());
    root.to_string()
}

fn check(text: &str) {
    match toml(text) {
        Ok(config) => {
            assert!(config.apps.iter().next().is_some(), "never none");
            let shown = format!("{config:?}");
            assert!(!shown.contains(MARKER), "{shown}");
            for resolved in &config.resolved {
                assert!(!format!("{resolved:?}").contains(MARKER));
            }
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty() && !sentence.contains(MARKER), "{sentence}");
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(text) => check(text),
        Input::Settings { values, more } => check(&format!("{}{more}", file(&values))),
    }
});
