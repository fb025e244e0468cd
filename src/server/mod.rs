//! Floor 7. The process, from a configuration to an exit code.
//!
//! The main thread becomes the control thread, which handles signals, reloads, and the reports of
//! shards. Each shard has a thread of its own, pinned to a core if the system allows it; webhooks
//! have one that is not pinned. No listener is bound before the host has passed the preflight.

pub mod admin;
mod banner;
mod control;
mod error;
mod housekeeping;
pub mod ledger;
pub mod limits;
mod listen;
mod listener_options;
pub mod logging;
mod mailboxes;
mod memory_watch;
mod notify;
pub mod preflight;
mod proc_status;
mod reload;
mod shards;
mod shared;
pub mod signals;
mod sizes;
mod start;
pub mod status;
mod stop;
pub mod tcp_memory;
mod unix_socket;

use std::process::ExitCode;

use crate::config::{Config, ConfigInputs};

pub use shards::placement;
pub use sizes::budget;

/// Serves until a signal ends it. `inputs` is where `config` comes from, to be read again. Prints the
/// reason to stderr if the server cannot start or go on.
#[must_use]
pub fn run(config: Config, inputs: &ConfigInputs) -> ExitCode {
    match start::serve(config, inputs) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringwave: {}", error.text());
            ExitCode::from(error.exit_code())
        }
    }
}
