//! The subscriptions of one connection: most connections have one, which takes no allocation.

use std::collections::HashMap;
use std::sync::Arc;

use crate::memory::number;
use crate::protocol::auth::Member;

/// Marks the position of a subscription as the ticket of a join that has not been answered.
pub(super) const JOINING: u32 = 1 << 31;

/// Connections with more subscriptions than this find them by hash.
const SCAN_SUBSCRIPTIONS: usize = 16;

/// One subscription, pending or not.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The number of the topic.
    pub(super) topic: u32,
    /// The position among the topic's subscribers, or `JOINING` and a ticket.
    pub(super) position: u32,
    /// The member, on presence channels.
    pub(super) member: Option<Arc<Member>>,
}

impl Subscription {
    /// The ticket of the join, if its answer is still on the way.
    pub(super) fn ticket(&self) -> Option<u32> {
        (self.position & JOINING != 0).then_some(self.position & !JOINING)
    }
}

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    /// The subscriptions, two at least.
    list: Vec<Subscription>,
    /// The bytes that the subscriptions hold, as weighed when they were added.
    bytes: usize,
    /// Positions in `list` by topic. `None` if the list is short enough to be searched.
    index: Option<HashMap<u32, u32>>,
}

impl Subscriptions {
    pub(super) fn list(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(many) => &many.list,
        }
    }

    pub(super) fn list_mut(&mut self) -> &mut [Subscription] {
        match self {
            Self::None => &mut [],
            Self::One(only) => std::slice::from_mut(only),
            Self::Many(many) => &mut many.list,
        }
    }

    /// The position of the subscription to a topic.
    pub(super) fn find(&self, topic: u32) -> Option<u32> {
        let index = match self {
            Self::Many(many) => many.index.as_ref(),
            _ => None,
        };
        match index {
            Some(index) => index.get(&topic).copied(),
            None => self.list().iter().position(|of| of.topic == topic).map(number),
        }
    }

    /// Adds a subscription. `weigh` returns the bytes that a subscription holds, always the same
    /// for the same subscription.
    pub(super) fn push(
        &mut self,
        subscription: Subscription,
        weigh: impl Fn(&Subscription) -> usize,
    ) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(subscription),
            Self::One(first) => {
                let bytes = weigh(&first) + weigh(&subscription);
                Self::Many(Box::new(Many { list: vec![first, subscription], bytes, index: None }))
            }
            Self::Many(mut many) => {
                many.bytes += weigh(&subscription);
                many.push(subscription);
                Self::Many(many)
            }
        };
    }

    /// The bytes that the subscriptions hold. A single one counts as 0, because it holds less than
    /// its connection.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Many(many) => many.bytes,
        }
    }

    /// Removes the subscription at this position, and moves the last one there. The list must not
    /// be empty.
    pub(super) fn swap_remove(
        &mut self,
        at: u32,
        weigh: impl Fn(&Subscription) -> usize,
    ) -> Option<Subscription> {
        match std::mem::take(self) {
            Self::None => None,
            Self::One(only) => Some(only),
            Self::Many(mut many) => {
                let removed = many.swap_remove(at);
                many.bytes = many.bytes.saturating_sub(weigh(&removed));
                *self = match many.list.len() {
                    1 => many.list.pop().map_or(Self::None, Self::One),
                    _ => Self::Many(many),
                };
                Some(removed)
            }
        }
    }
}

#[cfg(test)]
impl Subscriptions {
    /// Asserts the invariants of a list, which hold between any two calls.
    pub(super) fn assert_indexed(&self) {
        let Self::Many(many) = self else { return };
        assert!(many.list.len() > 1);
        match &many.index {
            Some(index) => assert_eq!(index.len(), many.list.len()),
            None => assert!(many.list.len() <= SCAN_SUBSCRIPTIONS),
        }
    }
}

impl Many {
    fn push(&mut self, subscription: Subscription) {
        if let Some(index) = &mut self.index {
            index.insert(subscription.topic, number(self.list.len()));
        }
        self.list.push(subscription);
        if self.index.is_none() && self.list.len() > SCAN_SUBSCRIPTIONS {
            let places = self.list.iter().zip(0..).map(|(of, at)| (of.topic, at));
            self.index = Some(places.collect());
        }
    }

    fn swap_remove(&mut self, at: u32) -> Subscription {
        let removed = self.list.swap_remove(at as usize);
        if let Some(index) = &mut self.index {
            index.remove(&removed.topic);
            if let Some(moved) = self.list.get(at as usize) {
                index.insert(moved.topic, at);
            }
        }
        removed
    }
}
