//! Floor 7. The settings as the table of the manual.

use super::setting::{Declaration, Declared};
use super::settings::ALL;

/// The table in Markdown. A test compares the chapter `src/manual/settings.md` with it.
#[must_use]
pub(crate) fn manual_table() -> String {
    let mut table = String::from(
        "| `ringwave.toml` | variable | flag | default | accepted | changes by | meaning |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for setting in ALL {
        table.push_str(&row(*setting));
    }
    table
}

fn row(setting: &dyn Declared) -> String {
    let Declaration { key, env, file_env, flag, default, takes_effect, doc } =
        setting.declaration();
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let default = match default.strip_prefix('(') {
        Some(words) => words.trim_end_matches(')').to_owned(),
        None => code(default),
    };
    let expected = setting.expected();
    let [env, flag] = [env, flag].map(|name| code(name.unwrap_or_default()));
    let when = takes_effect.word();
    let name = key.rsplit('.').next().unwrap_or_default();
    let file = file_env.map(|file| format!(" In a file: `{name}_file`, `{file}`."));
    let doc = format!("{doc}{}", file.unwrap_or_default());
    format!("| `{key}` | {env} | {flag} | {default} | {expected} | {when} | {doc} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_settings_as_they_are_declared() {
        let chapter = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/settings.md");
        let chapter = std::fs::read_to_string(chapter).unwrap();
        let (_, rest) = chapter.split_once("<!-- settings:begin -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- settings:end -->").unwrap();
        assert!(table == manual_table(), "the table has to be:\n{}", manual_table());
    }
}
