//! Floor 8. The process, from a configuration to an exit code.
//!
//! The main thread becomes the control thread, which handles signals, reloads, the reports of
//! shards, and the listener for operators. Each shard has a thread of its own, pinned to a core if
//! the system allows it; webhooks have one that is not pinned. No listener is bound before the host
//! has passed the preflight, and before the Redis of a cluster has had the time to refuse this
//! node.

pub(crate) mod admin;
mod asking;
mod banner;
mod cluster_check;
mod control;
mod error;
mod housekeeping;
pub(crate) mod ledger;
pub(crate) mod limits;
mod listen;
mod listener_options;
pub(crate) mod logging;
mod mailboxes;
mod memory_watch;
mod monitor;
mod notify;
pub(crate) mod preflight;
mod proc_status;
mod reload;
mod shards;
mod shared;
pub(crate) mod signals;
mod sizes;
mod start;
pub(crate) mod status;
mod stop;
pub(crate) mod tcp_memory;
mod unix_socket;

use std::process::ExitCode;

use crate::config::{Config, ConfigInputs};

pub(crate) use shards::placement;
pub(crate) use sizes::budget;

/// Serves until a signal ends it. `inputs` is where `config` comes from, to be read again. Prints
/// the reason to stderr if the server cannot start or go on.
#[must_use]
pub(crate) fn run(config: Config, inputs: &ConfigInputs) -> ExitCode {
    match start::serve(config, inputs) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringwave: {}", error.text());
            ExitCode::from(error.exit_code())
        }
    }
}
