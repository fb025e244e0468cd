//! Floor 8. `ringwave import-reverb`: turns the JSON of Laravel's `config('reverb')` into a
//! `ringwave.toml` on stdout.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::import_reverb;

/// The input is not what it has to be (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;

/// Where the JSON is.
#[derive(Args)]
#[command(after_help = "\
In the project of the app:
  php artisan tinker --execute=\"echo json_encode(config('reverb'));\" \\
    | ringwave import-reverb > ringwave.toml")]
pub(super) struct ImportArgs {
    /// The file with the JSON, or `-` for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

pub(super) fn run(arguments: &ImportArgs) -> ExitCode {
    let shown = arguments.file.display();
    let imported = read(arguments)
        .map_err(|error| format!("{shown} cannot be read: {error}"))
        .and_then(|json| import_reverb(&json).map_err(|error| error.to_string()));
    match imported {
        Ok(text) => match io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("ringwave: {error}.");
            ExitCode::from(EXIT_DATA)
        }
    }
}

fn read(arguments: &ImportArgs) -> io::Result<String> {
    if arguments.file.as_os_str() != "-" {
        return std::fs::read_to_string(&arguments.file);
    }
    let mut json = String::new();
    io::stdin().lock().read_to_string(&mut json)?;
    Ok(json)
}
