//! Floor 7. The differences between the configuration in force and one that was read anew, setting
//! by setting, in words for the operator. Apps are compared by their ids, not by their positions,
//! and webhooks by their URLs. Of a secret the report says that it has changed, and never shows it.

use std::collections::HashMap;

use super::reader::{Resolved, SettingOwner};
use super::setting::TakesEffect;
use super::settings;

/// Lines that a report has at most: one for each setting whose value changed in the same way.
const LINES_MAX: usize = 100;

/// Ids of apps that a line has at most: a change of `[app]` may concern thousands.
const IDS_MAX: usize = 10;

/// Characters of a value that are shown: a list of origins may be pages long.
const VALUE_MAX: usize = 120;

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Those that a reload puts in force, a line each: `server.debug: false -> true`. Apps that are
    /// new or gone are not among them.
    pub(crate) in_force: Vec<String>,
    /// One sentence with those that need a restart, if there are any.
    pub(crate) pending: Option<String>,
}

/// The values that are in force behind a reload: the new ones, but where a setting needs a restart
/// the one from before. The new configuration may lack such a setting or have more of them, because
/// those of a cluster are read where there is one.
#[must_use]
pub(crate) fn in_force(before: &[Resolved], after: &[Resolved]) -> Vec<Resolved> {
    let fixed = |line: &&Resolved| line.declaration.takes_effect == TakesEffect::OnRestart;
    let kept = before.iter().filter(fixed);
    kept.chain(after.iter().filter(|line| !fixed(line))).cloned().collect()
}

impl Changes {
    /// Compares what is in force with what was read.
    #[must_use]
    pub(crate) fn between(before: &[Resolved], after: &[Resolved]) -> Self {
        let mut lines = ChangeLines::default();
        let mut pending = Vec::new();
        for (was, is) in changed(&of_server(before), &of_server(after)) {
            match is.declaration.takes_effect {
                TakesEffect::OnReload => {
                    lines.add(format!("{}: {}", is.declaration.key, shown(was, is)))
                }
                TakesEffect::OnRestart => {
                    let [was, is_now] = [was, is].map(value);
                    let name = is.declaration.key;
                    pending.push(format!("{name} ({was} in force, {is_now} configured)"));
                }
            }
        }
        let mut earlier: HashMap<_, _> = apps(before).map(|app| (app.id, app)).collect();
        for app in apps(after) {
            if let Some(earlier) = earlier.remove(app.id) {
                lines.compare_apps(&earlier, &app);
            }
        }
        let s = if pending.len() == 1 { "s" } else { "" };
        let sentence = || format!("{} change{s} with a restart only.", pending.join(", "));
        Self { in_force: lines.into_text(), pending: (!pending.is_empty()).then(sentence) }
    }
}

/// One app of a configuration.
struct AppLines<'a> {
    id: &'a str,
    settings: Vec<&'a Resolved>,
    webhooks: Vec<Vec<&'a Resolved>>,
}

impl<'a> AppLines<'a> {
    /// The app that all of these lines belong to.
    fn of(lines: &'a [Resolved]) -> Self {
        let id = lines.iter().find(|line| line.is_of(&settings::APP_ID));
        let is_webhook = |line: &Resolved| matches!(line.owner, SettingOwner::Webhook { .. });
        let webhooks = lines.chunk_by(|a, b| a.owner == b.owner);
        Self {
            id: id.map_or("", |line| &line.value),
            settings: lines.iter().filter(|line| !is_webhook(line)).collect(),
            webhooks: webhooks
                .filter(|lines| lines.iter().all(is_webhook))
                .map(|lines| lines.iter().collect())
                .collect(),
        }
    }
}

fn of_server(lines: &[Resolved]) -> Vec<&Resolved> {
    lines.iter().filter(|line| line.owner == SettingOwner::Server).collect()
}

/// The apps of a configuration. The lines of one app follow each other, and so do those of one
/// webhook, because the reader takes one after the other.
fn apps(lines: &[Resolved]) -> impl Iterator<Item = AppLines<'_>> {
    let by_app = lines.chunk_by(|a, b| a.owner.app() == b.owner.app());
    by_app.filter(|lines| lines.iter().all(|line| line.owner.app().is_some())).map(AppLines::of)
}

/// The pairs of lines of two lists that are about one setting and differ.
fn changed<'a>(
    before: &[&'a Resolved],
    after: &[&'a Resolved],
) -> impl Iterator<Item = (&'a Resolved, &'a Resolved)> {
    after.iter().filter_map(|is| {
        let was = before.iter().find(|was| was.declaration == is.declaration)?;
        (was.fingerprint != is.fingerprint).then_some((*was, *is))
    })
}

/// `60 -> 30`, or `changed` where both look the same because the difference is withheld.
fn shown(was: &Resolved, is: &Resolved) -> String {
    match was.value == is.value {
        true => "changed".to_owned(),
        false => format!("{} -> {}", value(was), value(is)),
    }
}

fn value(line: &Resolved) -> String {
    match line.value.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}...", line.value.split_at(end).0),
        None if line.value.is_empty() => "\"\"".to_owned(),
        None => line.value.clone(),
    }
}

/// The name of a setting within its table.
fn name_in(line: &Resolved, table: &str) -> &'static str {
    let key = line.declaration.key;
    key.strip_prefix(table).unwrap_or(key)
}

/// The URL of a webhook.
fn url<'a>(webhook: &[&'a Resolved]) -> Option<&'a Resolved> {
    webhook.iter().copied().find(|line| line.is_of(&settings::WEBHOOK_URL))
}

/// The lines of a report. A change that several apps have in common is one line.
#[derive(Default)]
struct ChangeLines<'a> {
    list: Vec<(Vec<&'a str>, String)>,
    /// The index of each line about apps, by its text.
    by_text: HashMap<String, usize>,
}

impl<'a> ChangeLines<'a> {
    fn add(&mut self, text: String) {
        self.list.push((Vec::new(), text));
    }

    fn add_for(&mut self, app: &'a str, text: String) {
        let next = self.list.len();
        let at = *self.by_text.entry(text.clone()).or_insert(next);
        match self.list.get_mut(at) {
            Some((apps, _)) => apps.push(app),
            None => self.list.push((vec![app], text)),
        }
    }

    fn compare_apps(&mut self, before: &AppLines<'a>, after: &AppLines<'a>) {
        for (was, is) in changed(&before.settings, &after.settings) {
            let name = name_in(is, "app.");
            self.add_for(after.id, format!(": {name} {}", shown(was, is)));
        }
        let [mut gone, mut new] = [&before.webhooks, &after.webhooks].map(|list| {
            let list = list.iter().map(Some);
            list.collect::<Vec<_>>()
        });
        let same_url = |was: &[&Resolved], is: &[&Resolved]| {
            url(was).map(|url| url.fingerprint) == url(is).map(|url| url.fingerprint)
        };
        // First those whose URL stayed, then the others in their order: their URL has changed.
        for same in [same_url, |_: &[&Resolved], _: &[&Resolved]| true] {
            for is in &mut new {
                let Some(webhook) = *is else { continue };
                let of = |was: &&mut Option<&Vec<_>>| was.is_some_and(|was| same(was, webhook));
                if let Some(was) = gone.iter_mut().find(of).and_then(Option::take) {
                    self.compare_webhooks(after.id, was, webhook);
                    *is = None;
                }
            }
        }
        for (list, what) in [(new, "added"), (gone, "removed")] {
            for url in list.into_iter().flatten().filter_map(|webhook| url(webhook)) {
                self.add_for(after.id, format!(": webhook {} {what}", value(url)));
            }
        }
    }

    fn compare_webhooks(&mut self, app: &'a str, was: &[&Resolved], is: &[&Resolved]) {
        let of = url(was).map(value).unwrap_or_default();
        for (was, is) in changed(was, is) {
            let name = name_in(is, "app.webhooks.");
            self.add_for(app, format!(", webhook {of}: {name} {}", shown(was, is)));
        }
    }

    fn into_text(self) -> Vec<String> {
        let further = self.list.len().saturating_sub(LINES_MAX);
        let line = |(apps, text): (Vec<&str>, String)| match apps.len() {
            0 => text,
            1 => format!("app {}{text}", apps.join("")),
            _ => format!("apps {}{text}", several(&apps)),
        };
        let mut text: Vec<_> = self.list.into_iter().take(LINES_MAX).map(line).collect();
        if further > 0 {
            text.push(format!("further changes: {further}"));
        }
        text
    }
}

fn several(ids: &[&str]) -> String {
    let shown = ids.iter().take(IDS_MAX).copied().collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(IDS_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
