//! Floor 8. `ringwave start`: serves until told to stop.

use std::process::ExitCode;

use crate::server;

use super::SettingsArgs;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    match settings.load() {
        Ok(config) => server::run(config),
        Err(error) => super::refuse(&error),
    }
}
