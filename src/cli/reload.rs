//! Floor 8. `ringwave reload`: has the running server read its configuration anew, and tells what
//! it says of that.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Flags, Origin};
use crate::server::admin::{AskError, ask_to_reload};

use super::{EXIT_CONFIG, EXIT_UNAVAILABLE, environment};

/// The files by which the server is known, besides the directory.
#[derive(Args)]
pub(super) struct ReloadArgs {
    /// The server was started with this --env
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// The server was started with this --config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: ReloadArgs) -> ExitCode {
    let flags = Flags { env: arguments.env, config: arguments.config, ..Flags::default() };
    let origin = Origin { flags, environment: environment(), directory: PathBuf::from(".") };
    match ask_to_reload(&origin) {
        Ok(report) => {
            println!("The configuration was read anew: {report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringwave: {error}.");
            ExitCode::from(match error {
                AskError::Refused(_) => EXIT_CONFIG,
                AskError::NoServer | AskError::Lost(_) => EXIT_UNAVAILABLE,
            })
        }
    }
}
