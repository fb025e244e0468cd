//! Floor 9. `ringwave reload`: makes the running server read its configuration again, and prints
//! the outcome.

use std::process::ExitCode;

use crate::server::admin::{AdminCommand, AskError, ask};

use super::exit::{EXIT_CONFIG, fail, unanswered};
use super::settings::ServerArgs;

pub(super) fn run(server: ServerArgs) -> ExitCode {
    match ask(&server.inputs(), AdminCommand::Reload) {
        Ok(report) => {
            println!("Configuration reloaded: {report}");
            ExitCode::SUCCESS
        }
        Err(error @ AskError::Refused(_)) => fail(&error, EXIT_CONFIG),
        Err(error) => unanswered(&error),
    }
}
