//! The stage of a node in a partition: outside, entering, serving, or gone for good.

use super::registering::Registering;
use crate::cluster::wire::Command;
use crate::time::Millis;

/// The stage, with what exists in it only.
#[derive(Debug)]
pub(super) enum Stage {
    /// The node has no connection with which it has entered.
    Outside {
        /// The time since which commands do not reach Redis.
        since: Millis,
        /// Whether the node served with the connection before.
        served: bool,
    },
    /// It has entered, and registers and repeats what Redis has forgotten.
    Entering {
        /// The time since which commands do not reach Redis.
        since: Millis,
        session: Session,
    },
    /// Its entrance is complete: [`Command::Ready`] was executed.
    Serving(Session),
    /// It has left the partition, and is not to enter it again.
    Left,
}

/// The calls of a connection with which the node has entered.
#[derive(Debug)]
pub(super) struct Session {
    /// The time at which the lease is to be renewed.
    pub(super) tend_due: Millis,
    /// The call whose answer is due, and the time at which it was sent.
    pub(super) sent: Option<(Sent, Millis)>,
}

/// A call whose answer is due.
#[derive(Debug)]
pub(super) enum Sent {
    /// A lease or a burial, which is due again by itself.
    Chore,
    /// Registrations.
    Registrations(Vec<Command>),
    /// The end of an entrance.
    Ready,
    /// The last call.
    Quit,
    /// The next batch.
    Batch,
}

impl Stage {
    /// The calls of the connection, if the node has entered with it.
    pub(super) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Entering { session, .. } | Self::Serving(session) => Some(session),
            Self::Outside { .. } | Self::Left => None,
        }
    }

    /// The same, to change it.
    pub(super) const fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::Entering { session, .. } | Self::Serving(session) => Some(session),
            Self::Outside { .. } | Self::Left => None,
        }
    }

    /// The node has entered.
    pub(super) fn enter(&mut self, now: Millis) {
        let session = Session { tend_due: now, sent: None };
        let since = self.away_since().unwrap_or(now);
        *self = Self::Entering { since, session };
    }

    /// The entrance is complete. Returns the time since which commands did not reach Redis.
    pub(super) fn serve(&mut self) -> Option<Millis> {
        let away_since = self.away_since();
        match std::mem::replace(self, Self::Left) {
            Self::Entering { session, .. } => *self = Self::Serving(session),
            other => *self = other,
        }
        away_since
    }

    /// The connection has ended. Registrations whose answer will not come are put back.
    pub(super) fn lose(&mut self, registering: &mut Registering, now: Millis) {
        let (since, session, served) = match std::mem::replace(self, Self::Left) {
            Self::Entering { since, session } => (since, session, false),
            Self::Serving(session) => (now, session, true),
            outside => return *self = outside,
        };
        match session.sent {
            // It would have to enter again only to say it again. Otherwise the others bury it.
            Some((Sent::Quit, _)) => return,
            Some((Sent::Registrations(commands), _)) => registering.put_back(commands),
            Some((Sent::Chore | Sent::Ready | Sent::Batch, _)) | None => {}
        }
        *self = Self::Outside { since, served };
    }

    /// The time since which commands do not reach Redis; `None` while they do.
    pub(super) const fn away_since(&self) -> Option<Millis> {
        match self {
            Self::Outside { since, .. } | Self::Entering { since, .. } => Some(*since),
            Self::Serving(_) | Self::Left => None,
        }
    }
}
