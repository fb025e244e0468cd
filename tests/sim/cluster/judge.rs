//! The facts that must hold when a cluster has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringwave::testing::front::gateway::GatewayCommand;
use ringwave::testing::id::AppIndex;
use tokio::sync::oneshot;

use super::world::Cluster;
use crate::client::Client;

impl Cluster {
    /// Ends an epoch, in which everything has come to rest: all must agree.
    pub(super) fn judge(&mut self) {
        let members_max = if self.overfull { usize::MAX } else { self.plan.node.members_max };
        for client in &self.clients {
            client.assert_at_rest(members_max, &self.ledger);
        }
        let clients = &self.clients;
        let heard = |client: usize| {
            // A process that dies loses what it has not told the cluster, and one that lives loses
            // what has waited for longer than its patience.
            self.is_heard(client) && (clients[client].is_open() || clients[client].heard_out)
        };
        let heard: Vec<bool> = (0..clients.len()).map(heard).collect();
        self.ledger.settle_whispers(|client| heard[client]);
        self.ledger.excused = self.clients_that_may_lose();
        self.ledger.judge();
        self.judge_presence();
        self.judge_counts();
        self.judge_watchers();
        self.judge_notices();
        self.judge_answers();
        (self.ledger.disordered, self.ledger.divided) = (false, false);
        self.terminated.clear();
        for process in self.processes.iter_mut().flatten() {
            process.may_lose = false;
        }
    }

    /// Checks that all subscribers of a presence channel see the same members: those that are
    /// there.
    fn judge_presence(&self) {
        for (index, channel) in self.channels.iter().enumerate().filter(|(_, of)| of.presence) {
            let there = self.users_of(index);
            for client in self.subscribers(index) {
                let seen = client.members(index).unwrap();
                assert_eq!(seen, &there, "client {} of {}", client.id, channel.name);
            }
        }
    }

    fn judge_counts(&self) {
        for (index, channel) in self.channels.iter().enumerate().filter(|(_, of)| of.counted) {
            let there = self.subscribers(index).count() as u64;
            for client in self.subscribers(index) {
                let heard = client.count(index);
                assert_eq!(heard, Some(there), "client {} of {}", client.id, channel.name);
            }
        }
    }

    fn judge_watchers(&self) {
        let signed_in: BTreeSet<_> = self
            .clients
            .iter()
            .filter(|client| client.watches().is_some())
            .map(|client| (client.app, &client.user))
            .collect();
        for client in &self.clients {
            let Some((watching, online)) = client.watches() else { continue };
            let there = watching.iter().filter(|user| signed_in.contains(&(client.app, *user)));
            assert!(there.eq(online), "client {} believes that {online:?} are online", client.id);
        }
    }

    /// Checks that webhooks were told of as many beginnings as ends, and one more of what lasts.
    fn judge_notices(&mut self) {
        let mut lasting = BTreeMap::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let key = |user: String| (channel.app, channel.name.clone(), user);
            if self.subscribers(index).next().is_some() {
                lasting.insert(key(String::new()), 1);
            }
            if channel.presence {
                lasting.extend(self.users_of(index).into_iter().map(|user| (key(user), 1)));
            }
        }
        self.noticed.retain(|_, sum| *sum != 0);
        assert!(self.notices_lost || self.noticed == lasting, "{:?} {lasting:?}", self.noticed);
        self.noticed = lasting;
    }

    fn subscribers(&self, channel: usize) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.is_subscribed(channel))
    }

    fn users_of(&self, channel: usize) -> BTreeSet<String> {
        self.subscribers(channel).map(|of| of.user.clone()).collect()
    }

    /// Checks that the answers of the API agree with the actual state, whichever node is asked.
    fn judge_answers(&mut self) {
        for app in 0..2 {
            let live: Vec<_> = self.processes.iter_mut().flatten().collect();
            let asked = self.dice.below(live.len());
            let process = live.into_iter().nth(asked).expect("a process");
            let of = Arc::clone(process.apps.get(AppIndex(app as u16)).unwrap());
            let (reply, mut list) = oneshot::channel();
            let prefix = "".into();
            process.loops.commands[0].push(GatewayCommand::Channels {
                app: of.clone(),
                prefix,
                reply,
            });
            let (reply, mut connections) = oneshot::channel();
            process.loops.commands[0].push(GatewayCommand::Connections { app: of, reply });
            self.come_to_rest();
            let open = self.clients.iter().filter(|of| of.is_open() && of.app == app).count();
            assert_eq!(connections.try_recv(), Ok(open as u32), "connections of app {app}");
            let list = list.try_recv().expect("the list of channels");
            let occupied: BTreeSet<_> = list
                .into_iter()
                .map(|(name, of)| (name.to_string(), of.subscription_count, of.user_count))
                .collect();
            let of_app = self.channels.iter().enumerate().filter(|(_, of)| of.app == app);
            let expected: BTreeSet<_> = of_app
                .map(|(at, channel)| {
                    let users = if channel.presence { self.users_of(at).len() } else { 0 };
                    (channel.name.clone(), self.subscribers(at).count() as u32, users as u32)
                })
                .filter(|(_, subscribers, _)| *subscribers > 0)
                .collect();
            assert_eq!(occupied, expected, "what the API is told of app {app}");
        }
    }
}
