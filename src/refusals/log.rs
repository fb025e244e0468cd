//! The counters of refusals, and the lines that the log gets of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::apps::App;
use crate::id::AppIndex;

use super::cause::Cause;
use super::client::RefusedClient;
use super::refusal::Refusal;

/// The counters of all refusals of the process. Shards call [`note`](Self::note), the control
/// thread calls the others; the module says when.
#[derive(Debug)]
pub struct Refusals {
    /// The counters of apps, by the upper byte of an app's index, then by the lower one. Pages and
    /// counters are made when an app first needs them.
    apps: Box<[OnceLock<Page>]>,
    /// The counters of refusals that belong to no app.
    without_app: RefusalCounters,
    /// The lines about refused connections in this second, by cause. Raised by the threads that
    /// refuse, cleared by the control thread.
    lines: [AtomicU32; Cause::ALL.len()],
}

/// The counters of up to 256 apps, by the lower byte of their index.
type Page = Box<[OnceLock<Box<RefusalCounters>>]>;

impl Default for Refusals {
    fn default() -> Self {
        let lines = std::array::from_fn(|_| AtomicU32::new(0));
        Self { apps: empty_page(), without_app: RefusalCounters::new(None, ""), lines }
    }
}

/// An empty cell for each value of a byte.
fn empty_page<T>() -> Box<[OnceLock<T>]> {
    (0..=u8::MAX).map(|_| OnceLock::new()).collect()
}

impl Refusals {
    /// Logs a refusal or counts it. `app` is the app that it belongs to, if there is one.
    pub(crate) fn note(&self, app: Option<&App>, client: RefusedClient, refusal: &Refusal<'_>) {
        let counters = match app {
            Some(app) => self.of_app(app.index, &app.id),
            None => &self.without_app,
        };
        let cause = refusal.cause();
        let (app, socket_id) = (counters.app_field(), client.socket_id_field());
        let (client, request_id) = (client.client_field(), refusal.request_id_field());
        let words = cause.words();
        if counters.of(cause).is_first() {
            tracing::warn!(app, client, socket_id, request_id, cause = words, "{refusal}");
        } else if refusal.is_of_connection() && self.has_line(cause) {
            tracing::info!(app, client, socket_id, request_id, cause = words, "{refusal}");
        } else {
            tracing::debug!(app, client, socket_id, request_id, "{refusal}");
        }
    }

    /// Whether there may be another line about a refused connection in this second. If so, it is
    /// counted.
    pub(super) fn has_line(&self, cause: Cause) -> bool {
        let lines = &self.lines[cause.index()];
        // The load alone keeps a flood from writing to memory that all shards share.
        lines.load(Ordering::Relaxed) < LINES_MAX
            && lines.fetch_add(1, Ordering::Relaxed) < LINES_MAX
    }

    /// Begins another second, and logs the counts of minutes that are over. `now_s` is in seconds
    /// since any fixed moment.
    pub(crate) fn log_counts(&self, now_s: u32) {
        self.lines.iter().for_each(|lines| lines.store(0, Ordering::Relaxed));
        self.log(|counter| counter.due(now_s));
    }

    /// Logs all counts, because the process ends.
    pub(crate) fn log_rest(&self) {
        self.log(Counter::rest);
    }

    fn log(&self, count: impl Fn(&Counter) -> Option<u64>) {
        for counters in self.all() {
            for (counter, cause) in counters.by_cause.iter().zip(Cause::ALL) {
                if let Some(count) = count(counter) {
                    let (app, cause) = (counters.app_field(), cause.words());
                    tracing::warn!(app, cause, count, "{cause}: refused {count} times more");
                }
            }
        }
    }

    /// The numbers of refusals so far, by app and cause, without zeros. The index is `None` for
    /// refusals that belong to no app.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (Option<AppIndex>, &'static str, u64)> {
        self.all().flat_map(|counters| {
            let causes = counters.by_cause.iter().zip(Cause::ALL);
            causes.filter_map(|(counter, cause)| {
                let total = counter.total();
                (total > 0).then_some((counters.index, cause.words(), total))
            })
        })
    }

    fn all(&self) -> impl Iterator<Item = &RefusalCounters> {
        let pages = self.apps.iter().filter_map(OnceLock::get);
        let of_apps = pages.flatten().filter_map(OnceLock::get).map(|counters| &**counters);
        of_apps.chain([&self.without_app])
    }

    /// The counters of an app, which are made now if this is its first refusal.
    pub(super) fn of_app(&self, index: AppIndex, id: &str) -> &RefusalCounters {
        let [upper, lower] = index.0.to_be_bytes().map(usize::from);
        let page = self.apps.get(upper).map(|page| page.get_or_init(empty_page));
        let cell = page.and_then(|page| page.get(lower));
        // A page has a cell for every byte.
        debug_assert!(cell.is_some(), "no counters for the app {}", index.0);
        cell.map_or(&self.without_app, |cell| {
            cell.get_or_init(|| Box::new(RefusalCounters::new(Some(index), id)))
        })
    }

    #[cfg(test)]
    pub(super) fn apps_with_counters(&self) -> usize {
        let pages = self.apps.iter().filter_map(OnceLock::get);
        pages.flatten().filter(|cell| cell.get().is_some()).count()
    }
}

/// The counters of one app.
#[derive(Debug)]
pub(super) struct RefusalCounters {
    /// The app's id, which stays the same for as long as the process lives. Empty for refusals that
    /// belong to no app.
    app: Box<str>,
    /// The app's index. `None` for refusals that belong to no app.
    index: Option<AppIndex>,
    by_cause: [Counter; Cause::ALL.len()],
}

impl RefusalCounters {
    fn new(index: Option<AppIndex>, app: &str) -> Self {
        Self { app: app.into(), index, by_cause: std::array::from_fn(|_| Counter::default()) }
    }

    /// The counter of a cause.
    fn of(&self, cause: Cause) -> &Counter {
        &self.by_cause[cause.index()]
    }

    /// The value of the log field `app`.
    pub(super) fn app_field(&self) -> Option<&str> {
        Some(&*self.app).filter(|app| !app.is_empty())
    }
}

/// The counter of one cause of one app.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// A refusal was logged, and its minute is not over. Set by the threads that refuse, cleared by
    /// the control thread.
    logged: AtomicBool,
    /// The number of refusals so far. Written by the threads that refuse.
    total: AtomicU64,
    /// Those among them that the log has, each by its own line or in a count.
    logged_total: AtomicU64,
    /// The time at which the control thread first saw `logged` set, in its seconds; 0 while it has
    /// not seen that. Written by the control thread alone.
    since_s: AtomicU32,
}

impl Counter {
    /// Whether this refusal is to be logged. If not, it is counted.
    pub(super) fn is_first(&self) -> bool {
        let is_first =
            !self.logged.load(Ordering::Relaxed) && !self.logged.swap(true, Ordering::Relaxed);
        if is_first {
            // This comes first, so that a count in between is never too high.
            self.logged_total.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        is_first
    }

    /// The number of refusals so far.
    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The number of refusals that the log does not have.
    fn withheld(&self) -> u64 {
        self.total().saturating_sub(self.logged_total.load(Ordering::Relaxed))
    }

    /// The count, if a minute is over in which there was any refusal.
    pub(super) fn due(&self, now_s: u32) -> Option<u64> {
        if !self.logged.load(Ordering::Relaxed) && self.withheld() == 0 {
            return None;
        }
        // 0 means that no minute has begun.
        let now_s = now_s.max(1);
        let since_s = self.since_s.load(Ordering::Relaxed);
        if since_s == 0 {
            self.since_s.store(now_s, Ordering::Relaxed);
            return None;
        }
        if now_s.saturating_sub(since_s) < MINUTE_S {
            return None;
        }
        let count = self.rest();
        // If a count is logged now, the next minute begins. After a quiet minute, the next refusal
        // is logged at once.
        self.since_s.store(if count.is_some() { now_s } else { 0 }, Ordering::Relaxed);
        self.logged.store(count.is_some(), Ordering::Relaxed);
        count
    }

    /// The number of refusals that have not been logged, if there are any.
    pub(super) fn rest(&self) -> Option<u64> {
        let count = self.withheld();
        self.logged_total.fetch_add(count, Ordering::Relaxed);
        Some(count).filter(|&count| count > 0)
    }
}

/// Seconds in which a cause has one warning per app.
const MINUTE_S: u32 = 60;

/// Lines at INFO about refused connections that a cause has in a second. A person reads no more of
/// them, and the log of a flood stays below a megabyte a minute and cause.
pub(super) const LINES_MAX: u32 = 10;
