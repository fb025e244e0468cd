//! Floor 6. The differences between the configuration in force and one that was read anew, setting
//! by setting, in words for the operator. Apps are known by their ids, not by their places, and
//! webhooks by their URLs. Secrets are told to have changed, and never shown.

use std::collections::HashMap;

use super::reader::{Resolved, Subject};
use super::settings::{self, TakesEffect};

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
/// the one from before.
#[must_use]
pub(crate) fn in_force(before: &[Resolved], after: &[Resolved]) -> Vec<Resolved> {
    let fixed = |line: &Resolved| line.takes_effect == TakesEffect::OnRestart;
    let kept = |line: &Resolved| {
        let earlier = fixed(line).then(|| before.iter().find(|earlier| earlier.key == line.key));
        earlier.flatten().unwrap_or(line).clone()
    };
    after.iter().map(kept).collect()
}

impl Changes {
    /// Compares what is in force with what was read.
    #[must_use]
    pub(crate) fn between(before: &[Resolved], after: &[Resolved]) -> Self {
        let mut lines = Lines::default();
        let mut pending = Vec::new();
        for (was, is) in changed(&of_server(before), &of_server(after)) {
            match is.takes_effect {
                TakesEffect::OnReload => lines.add(format!("{}: {}", is.setting, shown(was, is))),
                TakesEffect::OnRestart => {
                    let [was, is_now] = [was, is].map(value);
                    let name = is.setting;
                    pending.push(format!("{name} ({was} in force, {is_now} configured)"));
                }
            }
        }
        let mut earlier: HashMap<_, _> =
            apps(before).into_iter().map(|app| (app.id, app)).collect();
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
#[derive(Default)]
struct AppLines<'a> {
    id: &'a str,
    settings: Vec<&'a Resolved>,
    webhooks: Vec<Vec<&'a Resolved>>,
}

fn of_server(lines: &[Resolved]) -> Vec<&Resolved> {
    lines.iter().filter(|line| line.subject == Subject::Server).collect()
}

/// By their places. Lines of one app stand together, and so do those of one webhook.
fn apps(lines: &[Resolved]) -> Vec<AppLines<'_>> {
    let mut apps: Vec<AppLines<'_>> = Vec::new();
    for line in lines {
        let (place, webhook) = match line.subject {
            Subject::Server => continue,
            Subject::App(app) => (app, None),
            Subject::Webhook { app, webhook } => (app, Some(webhook)),
        };
        if apps.len() <= place {
            apps.resize_with(place + 1, AppLines::default);
        }
        let Some(app) = apps.get_mut(place) else { continue };
        let Some(webhook) = webhook else {
            if line.setting == settings::APP_ID.declaration.key {
                app.id = &line.value;
            }
            app.settings.push(line);
            continue;
        };
        if app.webhooks.len() <= webhook {
            app.webhooks.resize_with(webhook + 1, Vec::new);
        }
        if let Some(webhook) = app.webhooks.get_mut(webhook) {
            webhook.push(line);
        }
    }
    apps
}

/// The lines of two lists that tell of one setting and differ.
fn changed<'a>(
    before: &[&'a Resolved],
    after: &[&'a Resolved],
) -> impl Iterator<Item = (&'a Resolved, &'a Resolved)> {
    after.iter().filter_map(|is| {
        let was = before.iter().find(|was| was.setting == is.setting)?;
        (was.fingerprint != is.fingerprint).then_some((*was, *is))
    })
}

/// `60 -> 30`, or that it changed where both look the same: what differs is withheld.
fn shown(was: &Resolved, is: &Resolved) -> String {
    match was.value == is.value {
        true => "changed".to_owned(),
        false => format!("{} -> {}", value(was), value(is)),
    }
}

fn value(line: &Resolved) -> String {
    match line.value.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}...", line.value.get(..end).unwrap_or_default()),
        None if line.value.is_empty() => "\"\"".to_owned(),
        None => line.value.clone(),
    }
}

/// The URL of a webhook.
fn url<'a>(webhook: &[&'a Resolved]) -> Option<&'a Resolved> {
    webhook.iter().copied().find(|line| line.setting == settings::WEBHOOK_URL.declaration.key)
}

/// The lines of a report. What changed in the same way for several apps is one line.
#[derive(Default)]
struct Lines<'a> {
    list: Vec<(Vec<&'a str>, String)>,
    /// By what it tells: the place of a line about apps.
    by_text: HashMap<String, usize>,
}

impl<'a> Lines<'a> {
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
            let name = is.setting.strip_prefix("app.").unwrap_or(is.setting);
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
            let name = is.setting.strip_prefix("app.webhooks.").unwrap_or(is.setting);
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
