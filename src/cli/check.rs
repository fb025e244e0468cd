//! Floor 9. `ringwave check`: reads the configuration as `start` would, and shows the values. Does
//! not check the host.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{Config, Resolved};

use super::exit::refuse;
use super::settings::SettingsArgs;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    let loaded = settings.inputs().load();
    let config = match loaded.and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    match show(&config, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints aligned columns (key, value, where it comes from), then the notes.
fn show(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let width = |column: fn(&Resolved) -> usize| {
        config.resolved.iter().map(column).max().unwrap_or_default()
    };
    let key_width = width(|line| line.key.chars().count());
    // One long value must not push the last column off the screen for all others.
    let value_width = width(|line| line.value.chars().count()).min(32);
    for Resolved { key, value, source, .. } in &config.resolved {
        let value = if value.is_empty() { "-" } else { value };
        writeln!(out, "{key:key_width$}  {value:value_width$}  {source}")?;
    }
    writeln!(out)?;
    for note in &config.notes {
        writeln!(out, "Note: {note}")?;
    }
    let apps = config.apps.iter().count();
    let places: Vec<_> = config.server.listeners.iter().map(ToString::to_string).collect();
    let s = if apps == 1 { "" } else { "s" };
    writeln!(out, "The configuration is valid: {apps} app{s} on {}.", places.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Environment, Flags, load};

    use super::*;

    #[test]
    fn values_are_shown_with_their_sources_and_secrets_are_not() {
        let environment: Environment = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "k"),
            ("REVERB_APP_SECRET", "tops3cret"),
            ("REVERB_SCALING_ENABLED", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let nowhere = Path::new("/nonexistent");
        let config = load(&Flags::default(), &environment, nowhere).unwrap();
        let mut out = Vec::new();
        show(&config, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let fields = |key: &str| {
            let line = out.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fields("server.port"), "8080 default");
        assert_eq!(fields("server.path"), "- default");
        assert_eq!(fields("apps[0].key"), "k REVERB_APP_KEY of the environment");
        assert_eq!(fields("apps[0].secret"), "[withheld] REVERB_APP_SECRET of the environment");
        assert!(out.contains("Note: Scaling over Redis"));
        assert!(out.ends_with("The configuration is valid: 1 app on 0.0.0.0:8080.\n"));
        assert!(!out.contains("tops3cret"));
    }
}
