//! Floor 8. `ringwave start`: serves until told to stop.

use std::process::ExitCode;

use crate::server;

use super::SettingsArgs;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    let origin = settings.origin();
    match origin.load().and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => server::run(config, &origin),
        Err(error) => super::refuse(&error),
    }
}
