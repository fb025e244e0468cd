//! Floor 6. The settings as the table of the README.

use super::settings::{ALL, Declaration, Declared};

/// The table in Markdown; a test holds the README to it.
fn readme_table() -> String {
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
    let Declaration { key, env, flag, default, takes_effect, doc } = setting.declaration();
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let default = match default.strip_prefix('(') {
        Some(words) => words.trim_end_matches(')').to_owned(),
        None => code(default),
    };
    let accepted = setting.accepted();
    let [env, flag] = [env, flag].map(|name| code(name.unwrap_or_default()));
    let when = takes_effect.word();
    format!("| `{key}` | {env} | {flag} | {default} | {accepted} | {when} | {doc} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_settings_as_they_are_declared() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let (_, rest) = readme.split_once("<!-- settings:begin -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- settings:end -->").unwrap();
        assert!(table == readme_table(), "the table has to be:\n{}", readme_table());
    }
}
