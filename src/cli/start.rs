//! Floor 8. `ringwave start`: serves until told to stop.

use std::process::ExitCode;

use crate::server;

use super::settings::SettingsArgs;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    let inputs = settings.inputs();
    match inputs.load().and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => server::run(config, &inputs),
        Err(error) => super::refuse(&error),
    }
}
