//! The memory budget: one line per holder, declared by the modules that hold the memory, and sums.

use crate::config::SEND_BUFFER;
use crate::memory::{Holder, Per};
use crate::{channels, plane, server, shard};

/// All holders, in the order in which they are printed.
pub(super) fn holders() -> Vec<Holder> {
    let connection = [&plane::BUDGET[..], &shard::BUDGET[..]].concat();
    [connection, channels::budget(), server::budget()].concat()
}

/// The table of holders, and the sums.
pub(super) fn text(holders: &[Holder]) -> String {
    let width = holders.iter().map(|holder| holder.name.len()).max().unwrap_or_default();
    let mut text = format!("{:width$}  {:>9}  per\n", "memory", "bytes");
    for Holder { name, bytes, per } in holders {
        text += &format!("{name:width$}  {bytes:>9}  {}\n", word(*per));
    }
    let sum = |of: &[Per]| -> usize {
        holders.iter().filter(|holder| of.contains(&holder.per)).map(|holder| holder.bytes).sum()
    };
    let shared = sum(&[Per::Connection, Per::Subscription]);
    text + &format!(
        "\nAn idle connection takes {shared} B on a channel that many share, {} B on a channel of \
         its own,\n{} B as a presence member, and a shard takes {} KiB without any. The kernel's \
         memory is not\nincluded; of it, a client that stops reading holds up to {} KiB \
         (server.send_buffer).\n",
        shared + sum(&[Per::Channel]),
        shared + sum(&[Per::Member]),
        sum(&[Per::Shard]) / 1024,
        SEND_BUFFER / 1024,
    )
}

const fn word(per: Per) -> &'static str {
    match per {
        Per::Shard => "shard",
        Per::Connection => "connection",
        Per::Subscription => "subscription",
        Per::Channel => "channel",
        Per::Member => "member",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_a_start_asks_for_is_that_of_the_table() {
        let holders = holders();
        let shard = holders.iter().filter(|holder| holder.per == Per::Shard);
        let shard: u64 = shard.map(|holder| holder.bytes as u64).sum();
        let off = shard.abs_diff(crate::config::SHARD_BYTES);
        assert!(off < shard / 20, "{shard} B: change SHARD_BYTES");
    }

    /// A change that makes a record larger has to change this table, which shows its cost.
    #[test]
    fn no_record_grows_unnoticed() {
        let expected = "\
memory                                               bytes  per
record of the socket                                    40  connection
session                                                 40  connection
list of subscriptions, the first in it                  24  connection
place among the subscribers                              8  subscription
subscribers of a shard, the first two in it             64  channel
place in the shard's table                              10  channel
home, with its interest set of one shard                56  channel
place in the table of homes                             10  channel
place in the table of members                           50  member
name of a channel, if of 32 B                           48  channel
member with an id of 8 B and user_info of 100 B        198  member
receive buffers                                    1056768  shard
ring                                                540672  shard
mailbox                                             917504  shard

An idle connection takes 112 B on a channel that many share, 300 B on a channel of its own,
360 B as a presence member, and a shard takes 2456 KiB without any. The kernel's memory is not
included; of it, a client that stops reading holds up to 256 KiB (server.send_buffer).
";
        assert_eq!(text(&holders()), expected);
    }
}
