//! Floor 9. `ringwave start`: serves until a signal stops it.

use std::process::ExitCode;

use crate::server;

use super::exit::refuse;
use super::settings::SettingsArgs;

pub(super) fn run(settings: SettingsArgs) -> ExitCode {
    let inputs = settings.inputs();
    match inputs.load().and_then(|config| config.holds().map(|()| config)) {
        Ok(config) => server::run(config, &inputs),
        Err(error) => refuse(&error),
    }
}
