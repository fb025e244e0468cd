//! The facts about clients that must hold when everything has come to rest.

use std::collections::BTreeSet;

use crate::client::{Channel, Client};

/// All clients and channels of a world.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub clients: &'a [Client],
    pub channels: &'a [Channel],
}

impl<'a> Facts<'a> {
    /// Checks that clients know the members, numbers and users that they are told of.
    pub(crate) fn judge(self) {
        self.judge_presence();
        self.judge_counts();
        self.judge_watchers();
    }

    pub(crate) fn subscribers(self, channel: usize) -> impl Iterator<Item = &'a Client> {
        self.clients.iter().filter(move |client| client.is_subscribed(channel))
    }

    /// The users who are subscribed to a channel.
    pub(crate) fn users_of(self, channel: usize) -> BTreeSet<String> {
        self.subscribers(channel).map(|of| of.user.clone()).collect()
    }

    /// The occupied channels of an app as the API lists them, with the numbers of their
    /// subscriptions and users.
    pub(crate) fn occupied(self, app: usize) -> BTreeSet<(String, u32, u32)> {
        let of_app = self.channels.iter().enumerate().filter(|(_, of)| of.app == app);
        let listed = of_app.map(|(at, channel)| {
            let users = if channel.presence { self.users_of(at).len() } else { 0 };
            (channel.name.clone(), self.subscribers(at).count() as u32, users as u32)
        });
        listed.filter(|(_, subscribers, _)| *subscribers > 0).collect()
    }

    /// Checks that all subscribers of a presence channel see the same members: those that are
    /// there.
    fn judge_presence(self) {
        for (index, channel) in self.channels.iter().enumerate().filter(|(_, of)| of.presence) {
            let there = self.users_of(index);
            for client in self.subscribers(index) {
                let seen = client.members(index).unwrap();
                assert_eq!(seen, &there, "client {} of {}", client.id, channel.name);
            }
        }
    }

    /// Checks that all subscribers of a channel that is counted have got their number.
    fn judge_counts(self) {
        for (index, channel) in self.channels.iter().enumerate().filter(|(_, of)| of.counted) {
            let there = self.subscribers(index).count() as u64;
            for client in self.subscribers(index) {
                let heard = client.count(index);
                assert_eq!(heard, Some(there), "client {} of {}", client.id, channel.name);
            }
        }
    }

    /// Checks that a client that watches users knows which of them are signed in, whatever happened
    /// before.
    fn judge_watchers(self) {
        let signed_in: BTreeSet<_> = self
            .clients
            .iter()
            .filter(|client| client.watches().is_some())
            .map(|client| (client.app, &client.user))
            .collect();
        for client in self.clients {
            let Some((watching, online)) = client.watches() else { continue };
            let there = watching.iter().filter(|user| signed_in.contains(&(client.app, *user)));
            assert!(there.eq(online), "client {} believes that {online:?} are online", client.id);
        }
    }
}
