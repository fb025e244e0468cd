//! The facts that must hold when a cluster has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringwave::testing::front::gateway::GatewayCommand;
use ringwave::testing::id::AppIndex;
use tokio::sync::oneshot;

use super::world::Cluster;
use crate::facts::Facts;

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
        self.facts().judge();
        self.judge_notices();
        self.judge_answers();
        (self.ledger.disordered, self.ledger.divided) = (false, false);
        self.terminated.clear();
        for process in self.processes.iter_mut().flatten() {
            process.may_lose = false;
        }
    }

    /// Checks that webhooks were told of as many beginnings as ends, and one more of what lasts.
    fn judge_notices(&mut self) {
        let mut lasting = BTreeMap::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let key = |user: String| (channel.app, channel.name.clone(), user);
            if self.facts().subscribers(index).next().is_some() {
                lasting.insert(key(String::new()), 1);
            }
            if channel.presence {
                lasting.extend(self.facts().users_of(index).into_iter().map(|user| (key(user), 1)));
            }
        }
        self.noticed.retain(|_, sum| *sum != 0);
        assert!(self.notices_lost || self.noticed == lasting, "{:?} {lasting:?}", self.noticed);
        self.noticed = lasting;
    }

    fn facts(&self) -> Facts<'_> {
        Facts { clients: &self.clients, channels: &self.channels }
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
            assert_eq!(connections.try_recv(), Ok(Ok(open as u32)), "connections of app {app}");
            let list = list.try_recv().expect("an answer").expect("the list of channels");
            let occupied: BTreeSet<_> = list
                .into_iter()
                .map(|(name, of)| (name.to_string(), of.subscription_count, of.user_count))
                .collect();
            assert_eq!(occupied, self.facts().occupied(app), "what the API is told of app {app}");
        }
    }
}
