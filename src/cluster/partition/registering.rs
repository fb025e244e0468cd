//! The registrations behind an entrance: shards are asked for what they have, and batches wait
//! until all have answered.

use std::collections::VecDeque;

use crate::cluster::wire::Command;

/// The registrations that are due anew.
#[derive(Debug, Default)]
pub(super) struct Registering {
    /// The answers of shards that are missing.
    owed: usize,
    /// Whether shards have to be asked once more when all have answered.
    again: bool,
    /// The registrations that were not sent.
    commands: VecDeque<Command>,
}

impl Registering {
    /// Expects an answer of so many shards. Returns whether they are to be asked now: otherwise
    /// they still answer an earlier question.
    pub(super) const fn ask(&mut self, shards: usize) -> bool {
        self.again = self.owed > 0;
        if !self.again {
            self.owed = shards;
        }
        !self.again
    }

    /// Notes the last part of a shard's answer. Returns whether shards are to be asked once more.
    pub(super) fn answered(&mut self) -> bool {
        self.owed = self.owed.saturating_sub(1);
        self.owed == 0 && std::mem::take(&mut self.again)
    }

    /// Whether answers of shards are missing.
    pub(super) const fn is_owed(&self) -> bool {
        self.owed > 0
    }

    /// Takes a registration.
    pub(super) fn push(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    /// Drops all registrations, because there will be other ones.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
    }

    /// Drops the claims of permits, because the node makes them anew at each entrance.
    pub(super) fn drop_claims(&mut self) {
        self.commands.retain(|command| !matches!(command, Command::Permits { .. }));
    }

    /// Takes out the registrations of a call: at most `most`, of at most `bytes` but at least one.
    /// `None` if there are none.
    pub(super) fn take(&mut self, most: usize, bytes: usize) -> Option<Vec<Command>> {
        let mut weight = 0;
        let fitting = self.commands.iter().take(most).take_while(|command| {
            weight += command.weight();
            weight <= bytes
        });
        let count = fitting.count().max(1).min(self.commands.len());
        (count > 0).then(|| self.commands.drain(..count).collect())
    }

    /// Puts the registrations of a call back, because its answer will not come.
    pub(super) fn put_back(&mut self, commands: Vec<Command>) {
        for command in commands.into_iter().rev() {
            self.commands.push_front(command);
        }
    }
}
