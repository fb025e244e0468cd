//! Floor 7. Notes on variables without the effect that they seem to have: misspelt ones, those of
//! other servers, and values with references that nothing replaces.

use std::collections::BTreeMap;

use super::aliases::{Alias, OF_PROJECTS, OF_PUSHER};
use super::raw_value::RawValue;
use super::settings::{self, ALL};
use super::soketi::{self, VariableEffect};
use super::sources::Sources;
use super::spelling;

/// Variables that Reverb or Laravel reads and that are no setting here: they say where the app
/// publishes, or are looked at by name.
const OF_REVERB: [&str; 5] = [
    "REVERB_PORT",
    "REVERB_SCHEME",
    "REVERB_SERVER",
    "REVERB_PULSE_INGEST_INTERVAL",
    "REVERB_TELESCOPE_INGEST_INTERVAL",
];

/// The prefixes of Ringwave, Reverb and soketi: a setting is recognised under each of them.
const PREFIXES: [&str; 3] = ["RINGWAVE_", "REVERB_", soketi::PREFIX];

/// All notes, one sentence or two each.
pub(super) fn collect(sources: &Sources<'_>) -> Vec<String> {
    let mut notes = misspelt(sources);
    notes.extend(of_soketi(sources));
    notes.extend(webhooks_of_soketi(sources));
    notes.extend(overridden(sources));
    notes.extend(literal_references(sources));
    notes
}

/// The variables of settings and those that Reverb has beside them.
fn known() -> impl Iterator<Item = &'static str> {
    let declared = ALL.iter().map(|setting| setting.declaration());
    let declared = declared.flat_map(|it| it.env.into_iter().chain(it.file_env));
    declared.chain(OF_PROJECTS.iter().map(|alias| alias.name)).chain(OF_REVERB)
}

/// Variables with our prefix or Reverb's that no setting reads. One with Reverb's prefix that is
/// like no other may be the project's own.
fn misspelt(sources: &Sources<'_>) -> Vec<String> {
    let names = sources.variable_names().into_iter();
    let ours = names.filter(|name| ["RINGWAVE_", "REVERB_"].iter().any(|p| name.starts_with(p)));
    let mut notes = Vec::new();
    let mut foreign = Vec::new();
    for name in ours.filter(|name| !known().any(|known| known == *name)) {
        match nearest(name, known()) {
            Some(near) => notes.push(format!(
                "There is no variable {name}; the nearest is {near}. It has no effect."
            )),
            None if name.starts_with("REVERB_") => foreign.push(name),
            None => notes.push(format!("There is no variable {name}. It has no effect.")),
        }
    }
    if !foreign.is_empty() {
        notes.push(format!(
            "{} {} no effect on this server: neither Reverb nor Ringwave has such a variable, though \
             your app may.",
            foreign.join(", "),
            if foreign.len() == 1 { "has" } else { "have" },
        ));
    }
    notes
}

/// The variables of soketi that have no effect, one note for each reason.
fn of_soketi(sources: &Sources<'_>) -> Vec<String> {
    let names = sources.variable_names().into_iter();
    let names: Vec<_> = names.filter(|name| name.starts_with(soketi::PREFIX)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    if !sources.speaks_soketi() {
        return vec![format!(
            "{}: without effect, as the app is that of REVERB_APP_ID, REVERB_APP_KEY and \
             REVERB_APP_SECRET, and Reverb's variables then hold.",
            names.join(", ")
        )];
    }
    let mut notes = Vec::new();
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let Some(text) = sources.text(name) else { continue };
        match soketi::effect_of(name, &RawValue::Text(text.to_owned())) {
            VariableEffect::Understood => {}
            VariableEffect::NoEffect(reason) => by_reason.entry(reason).or_default().push(name),
            VariableEffect::Unknown => notes.push(unknown_to_soketi(name)),
        }
    }
    notes.extend(by_reason.into_iter().map(|(reason, names)| {
        let have = if names.len() == 1 { "has" } else { "have" };
        format!("{} {have} no effect: {reason}.", names.join(", "))
    }));
    notes
}

fn unknown_to_soketi(name: &str) -> String {
    // A restriction that its owner takes for one: say what would be.
    if name.contains("ORIGIN") {
        return format!(
            "{name} has no effect, in soketi neither: RINGWAVE_ALLOWED_ORIGINS lists the origins \
             that may connect."
        );
    }
    let near = nearest(name, soketi::names().chain(known()));
    let hint = near.map_or_else(String::new, |near| format!("; the nearest is {near}"));
    format!("soketi has no variable {name}{hint}. It has no effect.")
}

fn webhooks_of_soketi(sources: &Sources<'_>) -> Vec<String> {
    let Some((webhooks, source)) = sources.soketi_webhooks() else { return Vec::new() };
    webhooks.notes.iter().map(|note| format!("The webhooks of {source}: {note}.")).collect()
}

/// Variables that stand for a setting which another one gives.
fn overridden(sources: &Sources<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    // Laravel too passes over the others without a word where there is a `REDIS_URL`.
    let counts = |alias: &&Alias| alias.key != settings::CLUSTER_REDIS.declaration.key;
    for alias in sources.aliases().filter(counts) {
        let Some((raw, _)) = sources.aliased(alias) else { continue };
        let declaration = ALL.iter().map(|setting| setting.declaration());
        let declaration = declaration.into_iter().find(|declared| declared.key == alias.key);
        let Some((winner, source)) = declaration.and_then(|d| sources.declared(d)) else {
            continue;
        };
        let name = source.variable().filter(|&name| name != alias.name && winner != raw);
        notes.extend(name.map(|name| format!("{} has no effect: {name} counts.", alias.name)));
    }
    notes
}

/// References that stay as they are in the values of variables that are read.
fn literal_references(sources: &Sources<'_>) -> Vec<String> {
    let names = known().chain(soketi::names()).chain(OF_PUSHER.iter().map(|alias| alias.name));
    let of_redis =
        sources.aliases().map(|alias| alias.name).filter(|name| name.starts_with("REDIS_"));
    let literal = names.chain(of_redis).filter_map(|name| sources.literal_reference(name));
    let note = |(reference, source): (String, _)| {
        format!(
            "{reference} is literal text in the value of {source}: Laravel's .env replaces \
             `${{NAME}}` of a variable that is set, and knows no defaults."
        )
    };
    literal.map(note).collect()
}

/// The variable that is most like a misspelt one. Prefixes are left aside: they are long enough to
/// make any two names alike.
fn nearest(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    spelling::nearest(name, candidates, bare)
}

fn bare(name: &str) -> &str {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_is_found_under_any_prefix_and_a_foreign_one_is_not() {
        for (name, near) in [
            ("REVERB_SERVER_PROT", Some("REVERB_SERVER_PORT")),
            ("REVERB_APP_MAX_CONECTIONS", Some("REVERB_APP_MAX_CONNECTIONS")),
            ("RINGWAVE_SERVER_PORT", Some("REVERB_SERVER_PORT")),
            ("REVERB_LISTEN", Some("RINGWAVE_LISTEN")),
            ("RINGWAVE_SHARD", Some("RINGWAVE_SHARDS")),
            ("REVERB_INTERNAL_HOST", None),
            ("REVERB_ENABLED", None),
        ] {
            assert_eq!(nearest(name, known()), near, "{name}");
        }
    }
}
