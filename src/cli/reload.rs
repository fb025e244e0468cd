//! Floor 8. `ringwave reload`: has the running server read its configuration anew, and tells what
//! it says of that.

use std::process::ExitCode;

use crate::server::admin::{AdminCommand, AskError, ask};

use super::{EXIT_CONFIG, ServerArgs};

pub(super) fn run(server: ServerArgs) -> ExitCode {
    match ask(&server.origin(), AdminCommand::Reload) {
        Ok(report) => {
            println!("The configuration was read anew: {report}");
            ExitCode::SUCCESS
        }
        Err(AskError::Refused(reason)) => {
            eprintln!("ringwave: {reason}.");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => super::unanswered(&error),
    }
}
