//! The permits for connections that this node holds of the apps with a quota.
//!
//! Redis lends permits, so that all nodes together never hold more than the quota. A connection
//! needs a permit that no other one uses ([`AppCounters`](crate::apps::AppCounters)). A node that
//! has none left asks for more, and if nothing is free, the others are asked to return those that
//! they do not use.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::questions::ANSWER_TIMEOUT;
use crate::apps::{App, Apps};
use crate::channels::ReplyTo;
use crate::id::AppIndex;
use crate::time::Millis;

/// The time for which other nodes may return permits, from when there were none.
const RECALL_TIMEOUT: Duration = Duration::from_millis(500);

/// The interval at which Redis is asked again meanwhile.
const ASK_PERIOD: Duration = Duration::from_millis(100);

/// The permits beyond those in use that a node asks for and may keep, beside a quarter of those.
const SPARE: u32 = 8;

/// The connections that may wait for a permit at a time, per app.
const WAITING_MAX: usize = 4096;

/// The apps with a quota.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    apps: BTreeMap<AppIndex, Quota>,
}

/// The permits of an app.
#[derive(Debug, Default)]
struct Quota {
    /// The commands to Redis that it has not answered, oldest first.
    asked: VecDeque<Asked>,
    /// Connections that wait for a permit, each with the time since when.
    waiting: VecDeque<(ReplyTo, Millis)>,
    /// The time since which Redis has nothing to lend.
    short_since: Option<Millis>,
    /// The time at which Redis is asked again.
    ask_at: Option<Millis>,
}

/// A command to Redis about permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Lend at most so many.
    More(u32),
    /// Take so many back.
    Return(u32),
    /// So many are held, whatever Redis knows.
    Claim(u32),
}

/// The answers to connections that wait.
pub(super) type Answers = Vec<(ReplyTo, Place)>;

/// Whether there is a place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There is a place.
    Granted,
    /// All nodes together have as many connections as the app may have.
    Full,
    /// Redis has not said.
    Unknown,
}

/// Lends nothing yet to apps that have a quota and had none. To be called before shards get them:
/// what they let in meanwhile could be more than Redis lends.
pub(crate) fn lend_nothing(apps: &Apps) {
    let new = |app: &&Arc<App>| app.max_connections.is_some() && app.counters.permits() == u32::MAX;
    apps.iter().filter(new).for_each(|app| app.counters.permit_open_ones());
}

impl Quotas {
    /// Takes an app as it is configured now. Returns what is to be told to Redis.
    pub(super) fn adopt(&mut self, app: &App) -> Option<Asked> {
        let counters = &app.counters;
        if app.max_connections.is_none() {
            let known = self.apps.remove(&app.index).is_some();
            let held = counters.permits();
            counters.permit(u32::MAX);
            return known.then_some(Asked::Return(held));
        }
        if self.apps.contains_key(&app.index) {
            return None;
        }
        // Connections from before the app had a quota keep their places.
        counters.permit_open_ones();
        let mut quota = Quota::default();
        let claim = (counters.permits() > 0).then(|| quota.claim(counters.permits()));
        self.apps.insert(app.index, quota);
        claim
    }

    /// The claim for an app of a partition that the node has entered.
    pub(super) fn entered(&mut self, app: &App) -> Option<Asked> {
        let quota = self.apps.get_mut(&app.index)?;
        Some(quota.claim(app.counters.permits()))
    }

    /// A connection asks for a place. Returns what is to be told to Redis, and answers.
    pub(super) fn more_places(
        &mut self,
        app: &App,
        reply_to: ReplyTo,
        now: Millis,
    ) -> (Option<Asked>, Answers) {
        let Some(total) = app.max_connections else {
            return (None, vec![(reply_to, Place::Granted)]);
        };
        let open = app.counters.connections();
        if open < app.counters.permits().min(total) {
            return (None, vec![(reply_to, Place::Granted)]);
        }
        let quota = self.apps.entry(app.index).or_default();
        if open >= total {
            return (None, vec![(reply_to, Place::Full)]);
        }
        if quota.waiting.len() >= WAITING_MAX {
            return (None, vec![(reply_to, Place::Unknown)]);
        }
        quota.waiting.push_back((reply_to, now));
        (quota.ask(app), Vec::new())
    }

    /// Redis tells how many permits it has lent to the node. While not all nodes have registered,
    /// it lends nothing, whatever is free.
    pub(super) fn held(
        &mut self,
        app: &App,
        held: u32,
        all_registered: bool,
        now: Millis,
    ) -> (Option<Asked>, Answers) {
        let Some(quota) = self.apps.get_mut(&app.index) else { return Default::default() };
        if let Some(Asked::Claim(claimed)) = quota.asked.front()
            && *claimed != held
        {
            // The answer to something from before the claim.
            return Default::default();
        }
        let answered = quota.asked.pop_front();
        let permits = held.saturating_sub(quota.returning());
        app.counters.permit(permits);
        let free = permits.saturating_sub(app.counters.connections());
        let granted = quota.waiting.len().min(usize::try_from(free).unwrap_or(usize::MAX));
        let answers: Answers =
            quota.waiting.drain(..granted).map(|(to, _)| (to, Place::Granted)).collect();
        if granted > 0 || quota.waiting.is_empty() {
            quota.short_since = None;
        } else if matches!(answered, Some(Asked::More(_))) {
            if all_registered {
                quota.short_since.get_or_insert(now);
            }
            quota.ask_at = Some(now + ASK_PERIOD);
            return (None, answers);
        }
        (if quota.waiting.is_empty() { None } else { quota.ask(app) }, answers)
    }

    /// Another node needs permits: returns those that no connection uses.
    pub(super) fn recalled(&mut self, app: &App) -> Option<Asked> {
        self.apps.get_mut(&app.index)?.give_up(app, 0)
    }

    /// Asks again for connections that wait, refuses those that have waited for too long, and gives
    /// back what is not needed. `every_second`: whether a second is over since it last did that.
    pub(super) fn tick(
        &mut self,
        app: &App,
        now: Millis,
        every_second: bool,
    ) -> (Option<Asked>, Answers) {
        let Some(quota) = self.apps.get_mut(&app.index) else { return Default::default() };
        let short = quota.short_since.is_some_and(|since| now.since(since) >= RECALL_TIMEOUT);
        let place = if short { Place::Full } else { Place::Unknown };
        let too_long = |since: Millis| short || now.since(since) >= ANSWER_TIMEOUT;
        let expired = quota.waiting.iter().take_while(|(_, since)| too_long(*since)).count();
        let answers = quota.waiting.drain(..expired).map(|(to, _)| (to, place)).collect();
        if quota.waiting.is_empty() {
            (quota.short_since, quota.ask_at) = (None, None);
            let open = app.counters.connections();
            let spare = SPARE + open / 4;
            let surplus = app.counters.permits().saturating_sub(open) > 2 * spare;
            let surplus = every_second && surplus && quota.asked.is_empty();
            return (surplus.then(|| quota.give_up(app, spare)).flatten(), answers);
        }
        let due = quota.ask_at.take_if(|at| *at <= now).is_some();
        (due.then(|| quota.ask(app)).flatten(), answers)
    }

    /// Lets each app have its whole quota, because this node is alone.
    pub(super) fn go_alone(&mut self, app: &App) -> Answers {
        let Some(quota) = self.apps.get_mut(&app.index) else { return Vec::new() };
        app.counters.permit(app.max_connections.unwrap_or(u32::MAX));
        quota.asked.clear();
        std::mem::take(&mut quota.waiting).into_iter().map(|(to, _)| (to, Place::Granted)).collect()
    }

    /// Keeps the permits in use, because this node is alone no more.
    pub(super) fn return_from_alone(&self, app: &App) {
        if self.apps.contains_key(&app.index) {
            app.counters.give_up(0);
        }
    }

    /// Whether a connection waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.apps.values().any(|quota| !quota.waiting.is_empty())
    }
}

impl Quota {
    /// Asks for more, unless it has been asked.
    fn ask(&mut self, app: &App) -> Option<Asked> {
        if self.ask_at.is_some() || self.asked.iter().any(|asked| matches!(asked, Asked::More(_))) {
            return None;
        }
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let spare = SPARE + app.counters.connections() / 4;
        let more = Asked::More(waiting.saturating_add(spare));
        self.asked.push_back(more);
        Some(more)
    }

    fn claim(&mut self, permits: u32) -> Asked {
        // Answers to earlier commands may never come.
        self.asked.clear();
        self.ask_at = None;
        let claim = Asked::Claim(permits);
        self.asked.push_back(claim);
        claim
    }

    fn give_up(&mut self, app: &App, spare: u32) -> Option<Asked> {
        let given_up = app.counters.give_up(spare);
        let back = (given_up > 0).then_some(Asked::Return(given_up))?;
        self.asked.push_back(back);
        Some(back)
    }

    /// The permits that are on their way back.
    fn returning(&self) -> u32 {
        let returns = self.asked.iter().filter_map(|asked| match asked {
            Asked::Return(count) => Some(*count),
            Asked::More(_) | Asked::Claim(_) => None,
        });
        returns.fold(0, u32::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{Admission, test_app};
    use crate::id::ShardId;

    const NOW: Millis = Millis(1000);

    fn app(total: u32) -> App {
        App { max_connections: Some(total), ..test_app() }
    }

    fn reply(request: u32) -> ReplyTo {
        ReplyTo { shard: ShardId(0), request, index: 0 }
    }

    #[test]
    fn a_connection_waits_until_redis_lends_a_permit() {
        let (app, mut quotas) = (app(20), Quotas::default());
        assert_eq!(quotas.adopt(&app), None);
        assert!(Admission::take(&app).is_none(), "no permit yet");
        assert_eq!(quotas.more_places(&app, reply(1), NOW), (Some(Asked::More(9)), vec![]));
        assert_eq!(quotas.more_places(&app, reply(2), NOW), (None, vec![]), "one asks for all");
        assert_eq!(
            quotas.held(&app, 1, true, NOW),
            (Some(Asked::More(9)), vec![(reply(1), Place::Granted)])
        );
        let _first = Admission::take(&app).unwrap();
        assert!(Admission::take(&app).is_none());
        assert_eq!(quotas.held(&app, 9, true, NOW), (None, vec![(reply(2), Place::Granted)]));
        let (asked, answers) = quotas.more_places(&app, reply(3), NOW);
        assert_eq!((asked, answers), (None, vec![(reply(3), Place::Granted)]), "there are some");
    }

    #[test]
    fn an_app_whose_quota_is_new_has_no_places_before_redis_lends_some() {
        let apps = Apps::new(vec![app(20)]);
        let app = apps.iter().next().unwrap();
        lend_nothing(&apps);
        assert!(Admission::take(app).is_none());
        app.counters.permit(5);
        lend_nothing(&apps);
        assert_eq!(app.counters.permits(), 5, "the quota is not new any more");
    }

    #[test]
    fn it_is_refused_only_when_no_node_has_returned_a_permit_in_time() {
        let (app, mut quotas) = (app(20), Quotas::default());
        quotas.adopt(&app);
        let more = Some(Asked::More(9));
        quotas.more_places(&app, reply(1), NOW);
        assert_eq!(quotas.held(&app, 0, true, NOW), (None, vec![]));
        assert_eq!(quotas.tick(&app, NOW, false), (None, vec![]));
        let again = NOW + ASK_PERIOD;
        assert_eq!(quotas.tick(&app, again, false), (more, vec![]));
        assert_eq!(quotas.held(&app, 0, true, again), (None, vec![]));
        let late = NOW + RECALL_TIMEOUT;
        assert_eq!(quotas.tick(&app, late, false), (None, vec![(reply(1), Place::Full)]));
        assert!(!quotas.is_waiting());
        assert_eq!(quotas.more_places(&app, reply(2), late).0, more);
        assert_eq!(quotas.held(&app, 1, true, late), (None, vec![(reply(2), Place::Granted)]));
    }

    #[test]
    fn a_redis_that_is_away_or_does_not_know_all_nodes_does_not_say_that_an_app_is_full() {
        let (app, mut quotas) = (app(20), Quotas::default());
        quotas.adopt(&app);
        let late = NOW + ANSWER_TIMEOUT;
        quotas.more_places(&app, reply(1), NOW);
        assert_eq!(quotas.tick(&app, late, false).1, [(reply(1), Place::Unknown)]);
        quotas.more_places(&app, reply(2), NOW);
        quotas.held(&app, 0, false, NOW);
        assert_eq!(quotas.tick(&app, NOW + RECALL_TIMEOUT, false).1, []);
        assert_eq!(quotas.tick(&app, late, false).1, [(reply(2), Place::Unknown)]);
    }

    #[test]
    fn permits_on_their_way_back_are_not_used_meanwhile() {
        let (app, mut quotas) = (app(20), Quotas::default());
        quotas.adopt(&app);
        quotas.more_places(&app, reply(1), NOW);
        quotas.held(&app, 10, true, NOW);
        let _one = Admission::take(&app).unwrap();
        assert_eq!(quotas.recalled(&app), Some(Asked::Return(9)));
        assert_eq!(quotas.recalled(&app), None);
        assert_eq!(quotas.more_places(&app, reply(2), NOW).0, Some(Asked::More(9)));
        assert_eq!(quotas.held(&app, 1, true, NOW).1, []);
        assert_eq!(app.counters.permits(), 1);
        assert_eq!(quotas.held(&app, 3, true, NOW).1, [(reply(2), Place::Granted)]);
        assert_eq!(app.counters.permits(), 3);
    }

    #[test]
    fn an_answer_from_before_a_return_does_not_bring_the_permits_back() {
        let (app, mut quotas) = (app(40), Quotas::default());
        quotas.adopt(&app);
        quotas.more_places(&app, reply(1), NOW);
        quotas.held(&app, 10, true, NOW);
        let open: Vec<_> = (0..10).map(|_| Admission::take(&app).unwrap()).collect();
        quotas.more_places(&app, reply(2), NOW);
        drop(open);
        assert_eq!(quotas.recalled(&app), Some(Asked::Return(10)));
        quotas.held(&app, 12, true, NOW);
        assert_eq!(app.counters.permits(), 2, "Redis had not taken ten back");
        quotas.held(&app, 2, true, NOW);
        assert_eq!(app.counters.permits(), 2);
    }

    #[test]
    fn an_app_gives_back_what_it_does_not_need_and_claims_what_it_has() {
        let (app, mut quotas) = (app(1000), Quotas::default());
        quotas.adopt(&app);
        quotas.more_places(&app, reply(1), NOW);
        quotas.held(&app, 100, true, NOW);
        assert_eq!(quotas.tick(&app, NOW, false), (None, vec![]));
        assert_eq!(quotas.tick(&app, NOW, true), (Some(Asked::Return(92)), vec![]));
        quotas.held(&app, 8, true, NOW);
        assert_eq!(quotas.tick(&app, NOW, true), (None, vec![]), "a few are kept");
        assert_eq!(quotas.entered(&app), Some(Asked::Claim(8)));
        let unbounded = App { max_connections: None, ..app.clone() };
        assert_eq!(quotas.adopt(&unbounded), Some(Asked::Return(8)));
        assert_eq!(app.counters.permits(), u32::MAX);
    }

    #[test]
    fn an_answer_from_before_an_entrance_is_no_answer_to_the_claim() {
        let (app, mut quotas) = (app(20), Quotas::default());
        quotas.adopt(&app);
        quotas.more_places(&app, reply(1), NOW);
        quotas.held(&app, 1, true, NOW);
        let _one = Admission::take(&app).unwrap();
        quotas.more_places(&app, reply(2), NOW);
        assert_eq!(quotas.entered(&app), Some(Asked::Claim(1)));
        assert_eq!(quotas.held(&app, 10, true, NOW), (None, vec![]));
        assert_eq!(app.counters.permits(), 1, "Redis takes the claim for all there is");
        assert_eq!(quotas.held(&app, 1, true, NOW), (Some(Asked::More(9)), vec![]));
    }

    #[test]
    fn a_node_that_is_alone_has_the_whole_quota_and_then_claims_what_it_uses() {
        let (app, mut quotas) = (app(3), Quotas::default());
        quotas.adopt(&app);
        quotas.more_places(&app, reply(1), NOW);
        assert_eq!(quotas.go_alone(&app), [(reply(1), Place::Granted)]);
        let _two = [Admission::take(&app).unwrap(), Admission::take(&app).unwrap()];
        quotas.return_from_alone(&app);
        assert_eq!(quotas.entered(&app), Some(Asked::Claim(2)));
    }
}
