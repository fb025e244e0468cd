//! Floor 9. `ringwave man`: the manual pages of all commands as files, for a package, or the page
//! of the program, to read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Args, Command};
use clap_mangen::{Man, generate_to};

use super::exit::{EXIT_CANNOT_CREATE, fail};

/// The place of the pages.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Write the pages of all commands into this directory, instead of one to stdout
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArgs, command: Command) -> ExitCode {
    // The long version names the kernel of this host, which is nothing to the readers of a package.
    let command = command.long_version(Resettable::Reset).disable_help_subcommand(true);
    match &arguments.directory {
        Some(directory) => write_all(command, directory),
        None => print(command),
    }
}

fn write_all(command: Command, directory: &Path) -> ExitCode {
    let written = fs::create_dir_all(directory).and_then(|()| generate_to(command, directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            let error = CannotWrite { directory: directory.to_owned(), cause };
            fail(&error, EXIT_CANNOT_CREATE)
        }
    }
}

fn print(command: Command) -> ExitCode {
    let mut page = Vec::new();
    let mut out = io::stdout().lock();
    let printed = Man::new(command).render(&mut page).and_then(|()| out.write_all(&page));
    match printed.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The pages cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual pages into {}", directory.display())]
struct CannotWrite {
    directory: PathBuf,
    #[source]
    cause: io::Error,
}
