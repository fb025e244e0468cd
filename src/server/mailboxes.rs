//! Delivers messages of the control thread that found a shard's mailbox full, and logs which shard
//! takes none. Nothing waits for such a shard: neither a reload nor the memory watch nor a stop.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::bus::Outside;
use crate::id::ShardId;
use crate::shard::ShardMessage;

/// The pause before a full mailbox is tried again. A shard that runs makes room in each turn.
const RETRY: Duration = Duration::from_millis(10);

/// The time for which a mailbox may be full before the log says so. A busy shard needs
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Delivers the messages that wait, for as long as the process lives.
pub(super) async fn deliver_late(bus: Outside<ShardMessage>) {
    loop {
        bus.begun().await;
        let since = Instant::now();
        let mut named = Vec::new();
        loop {
            let full = bus.flush();
            if full.is_empty() {
                break;
            }
            if named.is_empty() && since.elapsed() >= PATIENCE {
                named = full;
                tracing::error!(
                    "{} took no message of the control thread for {} s: the thread hangs or has no \
                     CPU time; if this does not end, restart the server",
                    names(&named),
                    PATIENCE.as_secs()
                );
            }
            sleep(RETRY).await;
        }
        if !named.is_empty() {
            tracing::info!("{} takes messages again", names(&named));
        }
    }
}

/// `shard 1`, or `shards 1, 4`.
pub(super) fn names(shards: &[ShardId]) -> String {
    let ids: Vec<_> = shards.iter().map(|shard| shard.0.to_string()).collect();
    let s = if ids.len() == 1 { "" } else { "s" };
    format!("shard{s} {}", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus;
    use crate::memory::Headroom;
    use crate::shard::Drain;

    const DRAIN: Drain = Drain { window: Duration::ZERO, successor: false };

    // Paused time: a minute passes as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn messages_that_found_no_room_are_delivered_as_soon_as_there_is_some() {
        let mut ports = bus::connect::<ShardMessage>(2, 1).unwrap();
        let outside = ports[0].outside();
        let delivering = tokio::spawn(deliver_late(outside.clone()));
        for _ in 0..2 {
            outside.broadcast(|| ShardMessage::Memory(Headroom::Short));
            outside.broadcast(|| ShardMessage::Drain(DRAIN));
            outside.broadcast(|| ShardMessage::Stop);
            for port in &mut ports {
                assert!(matches!(port.receive(), Some(ShardMessage::Memory(Headroom::Short))));
                sleep(Duration::from_secs(60)).await;
                assert!(matches!(port.receive(), Some(ShardMessage::Drain(_))));
                sleep(Duration::from_secs(1)).await;
                assert!(matches!(port.receive(), Some(ShardMessage::Stop)));
                assert!(port.receive().is_none());
            }
        }
        delivering.abort();
    }

    #[test]
    fn shards_are_named() {
        assert_eq!(names(&[ShardId(3)]), "shard 3");
        assert_eq!(names(&[ShardId(0), ShardId(4)]), "shards 0, 4");
    }
}
