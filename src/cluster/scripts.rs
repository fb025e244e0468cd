//! The two scripts in Redis: the home of what all nodes of a cluster share. [`wire`](super::wire)
//! is their contract.
//!
//! The script of a call is put together from one file per verb, in such an order that functions
//! stand before their users. Every file stands on `prelude.lua`; each names at its top what else it
//! takes from which file, and a test compares that with what it uses.
//!
//! Lua makes all functions anew in each call. A call that only publishes does not need most of
//! them, so they are made by a function of their own when another verb is met.
//!
//! The scripts run on Redis 6.2 and later. They take the time from Redis, so they rely on the
//! replication of effects, which is the default from Redis 5 on. If Redis is out of memory, it
//! refuses the first change of a script, and executes the rest once that was accepted: a call takes
//! effect as a whole or not at all.

#[cfg(test)]
mod tests;

/// The script of a call.
pub const CALL: &str = concat!(
    include_str!("scripts/clock.lua"),
    include_str!("scripts/prelude.lua"),
    include_str!("scripts/publish.lua"),
    "local function define_other_verbs()\n",
    include_str!("scripts/shared.lua"),
    include_str!("scripts/join.lua"),
    include_str!("scripts/leave.lua"),
    include_str!("scripts/count.lua"),
    include_str!("scripts/enter.lua"),
    include_str!("scripts/part.lua"),
    include_str!("scripts/keep.lua"),
    include_str!("scripts/users.lua"),
    include_str!("scripts/online.lua"),
    include_str!("scripts/offline.lua"),
    include_str!("scripts/watch.lua"),
    include_str!("scripts/unwatch.lua"),
    include_str!("scripts/ask.lua"),
    include_str!("scripts/state.lua"),
    include_str!("scripts/answer.lua"),
    include_str!("scripts/permits.lua"),
    include_str!("scripts/return.lua"),
    include_str!("scripts/bury.lua"),
    include_str!("scripts/quit.lua"),
    include_str!("scripts/tend.lua"),
    include_str!("scripts/ready.lua"),
    "end\n",
    include_str!("scripts/run.lua"),
);

/// The script of an entrance.
pub const ENTER: &str =
    concat!(include_str!("scripts/clock.lua"), include_str!("scripts/entrance.lua"));
