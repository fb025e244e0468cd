//! Floor 8. `ringwave start`: serves until a signal stops it.

use std::process::ExitCode;

use crate::server;

use super::SettingsArgs;
use super::exit::refuse;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    let origin = settings.origin();
    match origin.load().and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => server::run(config, &origin),
        Err(error) => refuse(&error),
    }
}
