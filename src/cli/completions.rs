//! Floor 9. `ringwave completions`: the script by which a shell completes commands and flags.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

/// The shell to complete in.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell that runs the script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArgs, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    // The generator panics when it cannot write, which it always can into memory.
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, name, &mut script);
    let mut out = io::stdout().lock();
    match out.write_all(&script).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
