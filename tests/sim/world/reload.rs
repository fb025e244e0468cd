//! Reloads in the middle of everything: an app is switched off and on again, and the bound on
//! backlogs changes with it.

use std::sync::Arc;

use ringwave::testing::apps::{App, Apps};
use ringwave::testing::id::AppIndex;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::protocol::rules::{AppRules, Standing};
use ringwave::testing::shard::{InForce, ShardMessage};
use tokio::sync::oneshot;

use super::{World, app};

/// The app that is switched off at times.
pub(crate) const SWITCHED: usize = 1;

impl World {
    /// Switches the app off, or on again. Shards hear of it one after another, or not at all until
    /// [`everywhere_on`](Self::everywhere_on), as if each were as late as can be.
    pub(super) fn switch(&mut self) {
        let off = self.is_on(&self.apps);
        self.switched_off |= off;
        let backlog = BacklogLimits {
            connection: self.plan.backlog.connection / self.dice.one_of(&[1, 2, 4]),
            shard: self.plan.backlog.shard / self.dice.one_of(&[1, 2, 4]),
        };
        self.hand_out(if off { Standing::Disabled } else { Standing::Enabled }, backlog);
    }

    /// Whether a shard's front lets clients and publishers of this app in.
    pub(super) fn admits(&self, shard: usize, app: usize) -> bool {
        app != SWITCHED || self.is_on(self.loops.shards[shard].apps())
    }

    /// Switches the app on, and waits until all shards have heard of it.
    pub(super) fn everywhere_on(&mut self) {
        if !self.switched_off {
            return;
        }
        self.hand_out(Standing::Enabled, self.plan.backlog);
        self.rest();
        while !self.control.flush().is_empty() {
            self.rest();
        }
        self.rest();
        let late = self.loops.shards.iter().filter(|shard| !Arc::ptr_eq(shard.apps(), &self.apps));
        assert_eq!(late.count(), 0, "shards that were never told");
    }

    fn is_on(&self, apps: &Apps) -> bool {
        let app = apps.get(AppIndex(SWITCHED as u16));
        app.is_some_and(|app| app.rules.is_enabled())
    }

    /// A shard whose mailbox is full hears of the reload later, or only of the next one.
    fn hand_out(&mut self, standing: Standing, backlog: BacklogLimits) {
        let read = |index| match usize::from(index) {
            SWITCHED => {
                let app = app(index, &self.plan);
                App { rules: AppRules { standing, ..app.rules }, ..app }
            }
            _ => app(index, &self.plan),
        };
        let read = Apps::new((0..2).map(read).collect());
        self.apps = Arc::new(self.apps.followed_by(&read).expect("few apps"));
        let in_force = Arc::new(InForce {
            apps: Arc::clone(&self.apps),
            backlog,
            front: Arc::default(),
            shutdown_window: None,
        });
        self.control
            .broadcast(|| ShardMessage::InForce(Arc::clone(&in_force), oneshot::channel().0));
    }
}
