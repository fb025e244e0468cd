//! Configurations of other servers: whatever comes, the result can be served, no restriction of
//! origins becomes wider, and no message tells a secret.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::config::fuzzing::toml;
use ringwave::testing::config::{Environment, Predecessor, import};
use ringwave_fuzz::{Json, MARKER, NAMES};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    from: u8,
    what: What<'a>,
}

#[derive(Arbitrary, Debug)]
enum What<'a> {
    Raw(&'a [u8]),
    Json(Json),
    App { fields: Vec<(u8, Json)>, origins: Option<Vec<Origin<'a>>>, beside: Vec<(u8, Json)> },
}

/// An entry that lets no page of `evil.test` in, whatever the server.
#[derive(Arbitrary, Debug)]
enum Origin<'a> {
    Nothing,
    Truth,
    Host(&'a str),
    Pattern(u8),
}

impl Origin<'_> {
    fn json(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Truth => false.into(),
            Self::Host(name) => {
                let name: String = name.chars().filter(char::is_ascii_lowercase).collect();
                format!("{name}.example").into()
            }
            Self::Pattern(number) => {
                let patterns = ["https://*.example", " *", "null", "http*", "* ", "a b", "//"];
                patterns[usize::from(*number) % patterns.len()].into()
            }
        }
    }
}

const SERVERS: [Predecessor; 4] = [
    Predecessor::Reverb,
    Predecessor::Soketi,
    Predecessor::Sockudo,
    Predecessor::LaravelWebsockets,
];

fn fields_of(fields: &[(u8, Json)]) -> impl Iterator<Item = (&'static str, &Value)> {
    fields.iter().map(|(name, Json(value))| (NAMES[usize::from(*name) % NAMES.len()], value))
}

fn configuration(
    from: Predecessor,
    fields: &[(u8, Json)],
    origins: Option<&Value>,
    beside: &[(u8, Json)],
) -> Value {
    let mut app = json!({});
    // sockudo's has another list of origins inside.
    let fields = fields_of(fields).filter(|(name, _)| *name != "policy" || origins.is_none());
    fields.for_each(|(name, value)| app[name] = value.clone());
    let id = if from == Predecessor::Reverb { "app_id" } else { "id" };
    let own = [(id, "1"), ("key", "k"), ("secret", MARKER)];
    own.into_iter().for_each(|(name, value)| app[name] = value.into());
    app["enabled"] = true.into();
    if let Some(origins) = origins {
        app["allowed_origins"] = origins.clone();
    }
    let mut root = match from {
        Predecessor::Reverb => json!({ "apps": { "apps": [app] } }),
        Predecessor::Soketi => json!({ "appManager.array.apps": [app] }),
        Predecessor::Sockudo => json!({ "app_manager": { "array": { "apps": [app] } } }),
        Predecessor::LaravelWebsockets => json!({ "apps": [app] }),
    };
    for (name, value) in fields_of(beside) {
        if root.get(name).is_none() {
            root[name] = value.clone();
        }
    }
    root
}

fn check(from: Predecessor, input: &[u8], restricted: bool) {
    let environment = Environment::from([("A".to_owned(), "filled".to_owned())]);
    let text = match import(from, input, &environment) {
        Ok(text) => text,
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty() && !sentence.contains(MARKER), "{sentence}");
            return;
        }
    };
    assert_eq!(import(from, input, &environment).ok().as_ref(), Some(&text), "twice the same");
    let comments = text.lines().filter(|line| line.starts_with('#'));
    comments.for_each(|line| assert!(!line.contains(MARKER), "{line}"));
    let config = toml(&text).expect("the result can be served");
    if restricted {
        for app in config.apps.iter() {
            for origin in [Some("https://evil.test"), Some("null"), Some("x"), None] {
                assert!(app.allowed_origins.check(origin).is_err(), "{origin:?}:\n{text}");
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let from = SERVERS[usize::from(input.from) % SERVERS.len()];
    match &input.what {
        What::Raw(bytes) => check(from, bytes, false),
        What::Json(Json(json)) => check(from, json.to_string().as_bytes(), false),
        What::App { fields, origins, beside } => {
            let entries: Option<Vec<_>> =
                origins.as_ref().map(|origins| origins.iter().map(Origin::json).collect());
            // soketi has no such list, and for some servers an empty list restricts nothing.
            let restricted =
                from != Predecessor::Soketi && entries.as_ref().is_some_and(|it| !it.is_empty());
            let entries = entries.map(Value::from);
            let json = configuration(from, fields, entries.as_ref(), beside);
            check(from, json.to_string().as_bytes(), restricted);
        }
    }
});
