//! The users whose home this shard is: the authoritative record of who is online, and of who
//! watches.

use crate::id::ShardId;

use super::Outbox;
use super::message::{Step, Steps};
use super::user_table::{Told, UserTable};

/// The users whose home is this shard: a state machine like [`Homes`](super::Homes).
///
/// Every change that a shard reports goes to [`handle`](Self::handle), in the order of arrival. Its
/// effects are in the [`Outbox`] afterwards, which the caller empties before the next call.
#[derive(Debug, Default)]
pub(crate) struct UserHomes {
    /// Users that are online or watched.
    users: UserTable,
}

impl UserHomes {
    /// Takes over the changes on a shard, oldest first, and tells each watching shard what is new
    /// to it.
    pub(crate) fn handle(&mut self, from: ShardId, steps: Steps, out: &mut Outbox) {
        let mut told = Told::default();
        for (key, step) in steps {
            let user = self.users.find_or_insert(&key);
            user.step(from, step);
            if step == Step::Watch {
                told.tell(from, user);
            }
            let online = !user.here.is_empty();
            if online != user.online {
                user.online = online;
                user.watchers.iter().for_each(|&watcher| told.tell(watcher, user));
            }
            self.users.drop_if_unused(&key);
        }
        told.send(out);
    }

    /// The number of users that are online or watched.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }
}
