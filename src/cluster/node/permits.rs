//! The way between the quotas of apps and Redis.

use std::sync::Arc;

use super::Node;
use super::quotas::{Answers, Asked, Place};
use crate::apps::{App, Apps};
use crate::channels::{Answer, ReplyTo};
use crate::cluster::wire::Command;
use crate::id::AppIndex;
use crate::protocol::Standing;
use crate::time::Millis;

impl Node {
    pub(super) fn adopt_quotas(&mut self, apps: &Arc<Apps>, now: Millis) {
        for app in apps.iter() {
            if let Some(asked) = self.quotas.adopt(app) {
                self.tell_redis(app, asked, now);
            }
        }
    }

    /// A shard asks for a place for a connection.
    pub(super) fn more_places(&mut self, reply_to: ReplyTo, app: AppIndex, now: Millis) {
        match self.configured(app) {
            Some(app) => {
                let (asked, answers) = self.quotas.more_places(&app, reply_to, now);
                self.settle(&app, asked, answers, now);
            }
            None => self.effects.answer(reply_to, Answer::Full),
        }
    }

    /// Redis tells how many permits of an app it has lent to this node.
    pub(super) fn permits(&mut self, partition: u16, text: &str, held: u32, now: Millis) {
        let all_registered = self.member(partition).is_some_and(|member| member.settled);
        if let Some(app) = self.app_of_text(text) {
            let (asked, answers) = self.quotas.held(&app, held, all_registered, now);
            self.settle(&app, asked, answers, now);
        }
    }

    /// Another node needs permits of an app.
    pub(super) fn recalled(&mut self, text: &str, now: Millis) {
        if let Some(app) = self.app_of_text(text) {
            let asked = self.quotas.recalled(&app);
            self.settle(&app, asked, Vec::new(), now);
        }
    }

    /// Tells a partition that was entered which permits this node holds.
    pub(super) fn claim_permits(&mut self, partition: u16, now: Millis) {
        for app in self.apps_of(partition) {
            if let Some(asked) = self.quotas.entered(&app) {
                self.tell_redis(&app, asked, now);
            }
        }
    }

    pub(super) fn tick_quotas(&mut self, now: Millis, every_second: bool) {
        for app in self.directory.apps().clone().iter() {
            let (asked, answers) = self.quotas.tick(app, now, every_second);
            self.settle(app, asked, answers, now);
        }
    }

    /// Connections are admitted by this node alone.
    pub(super) fn lift_quotas(&mut self) {
        for app in self.directory.apps().clone().iter() {
            let answers = self.quotas.go_alone(app);
            self.answer_places(answers);
        }
    }

    /// Connections need permits again.
    pub(super) fn restore_quotas(&self) {
        self.directory.apps().iter().for_each(|app| self.quotas.return_from_alone(app));
    }

    fn settle(&mut self, app: &App, asked: Option<Asked>, answers: Answers, now: Millis) {
        self.answer_places(answers);
        if let Some(asked) = asked {
            self.tell_redis(app, asked, now);
        }
    }

    fn answer_places(&mut self, answers: Answers) {
        for (reply_to, place) in answers {
            let answer = match place {
                Place::Granted => Answer::Barrier,
                Place::Full => Answer::Full,
                Place::Unknown => Answer::Away,
            };
            self.effects.answer(reply_to, answer);
        }
    }

    fn tell_redis(&mut self, app: &App, asked: Asked, now: Millis) {
        let Some((text, partition)) = self.directory.app_text(app.index) else { return };
        let total = app.max_connections.unwrap_or(u32::MAX);
        match asked {
            Asked::More(wanted) => {
                self.push(partition, Command::Permits { app: text, wanted, total }, None, now);
            }
            Asked::Return(count) => {
                self.push(partition, Command::Return { app: text, count }, None, now);
            }
            Asked::Claim(wanted) => {
                if let Some(member) = self.member(partition) {
                    member.partition.register(Command::Permits { app: text, wanted, total });
                }
            }
        }
    }

    fn apps_of(&self, partition: u16) -> Vec<Arc<App>> {
        let is_of = |app: &&Arc<App>| {
            self.directory.app_text(app.index).is_some_and(|(_, of)| of == partition)
        };
        self.directory.apps().iter().filter(is_of).cloned().collect()
    }

    fn app_of_text(&self, text: &str) -> Option<Arc<App>> {
        self.configured(self.directory.app_of_text(text)?)
    }

    fn configured(&self, app: AppIndex) -> Option<Arc<App>> {
        let app = self.directory.app(app)?;
        (app.rules.standing != Standing::Removed).then(|| Arc::clone(app))
    }
}
