//! Regular work of the control thread, in tasks that live as long as the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::front::AddressTable;
use crate::refusals::Refusals;
use crate::time::{Clock, Millis};

/// The interval at which idle addresses are forgotten, as [`AddressTable::forget_idle`] asks for.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(1);

/// The least time between two warnings that addresses are not counted.
const UNCOUNTED_PAUSE: Duration = Duration::from_secs(60);

/// The interval at which the counts of refusals are looked through, as [`Refusals`] asks for.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);

/// Forgets the addresses that have no connection any more, and warns if some were not counted.
pub(super) async fn forget_addresses(addresses: Arc<AddressTable>, clock: Clock) {
    let mut every = interval(ADDRESSES_INTERVAL);
    let (mut uncounted, mut warned) = (0_u64, None::<Millis>);
    loop {
        every.tick().await;
        uncounted = uncounted.saturating_add(addresses.forget_idle(clock.now_nanos()));
        let now = clock.now();
        if uncounted > 0 && warned.is_none_or(|warned| now.since(warned) >= UNCOUNTED_PAUSE) {
            tracing::warn!(
                uncounted,
                "the table of client addresses is full: connections and requests of more addresses \
                 are admitted without limits (server.max_connections_per_address, \
                 server.max_requests_per_address)"
            );
            (uncounted, warned) = (0, Some(now));
        }
    }
}

/// Logs the counts of refusals, minute by minute.
pub(super) async fn log_refusals(refusals: Arc<Refusals>, clock: Clock) {
    let mut every = interval(REFUSALS_INTERVAL);
    loop {
        every.tick().await;
        // 32 bits last for 136 years.
        refusals.log_counts(u32::try_from(clock.now().0 / 1000).unwrap_or(u32::MAX));
    }
}
