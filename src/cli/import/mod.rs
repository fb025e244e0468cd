//! Floor 9. `ringwave import SOURCE`: turns the configuration of another server into a
//! `ringwave.toml`, on stdout or in a file. `ringwave import-reverb` is its older name for Reverb.

mod output;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::{self, INPUT_BYTES_MAX, Predecessor};

use super::environment::environment;
use super::exit::{EXIT_CANNOT_CREATE, fail, tell};

/// The input cannot be understood (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;

/// The server whose configuration to import, and where the configuration is.
#[derive(Args)]
#[command(after_help = "\
Where the configuration comes from:
  reverb      php artisan tinker --execute=\"echo json_encode(config('reverb'));\" \\
                | ringwave import reverb --output ringwave.toml
  websockets  php artisan tinker --execute=\"echo json_encode(config('websockets'));\" \\
                | ringwave import websockets --output ringwave.toml
  soketi      ringwave import soketi config.json --output ringwave.toml
  sockudo     ringwave import sockudo config.toml --output ringwave.toml")]
pub(super) struct ImportArgs {
    /// The server that the configuration belongs to
    source: ImportSource,
    #[command(flatten)]
    files: FileArgs,
}

/// The input and the output.
#[derive(Args)]
pub(super) struct FileArgs {
    /// The file with the configuration, or `-` for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Write the result to this file instead of stdout, if the input is understood
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The names of the servers on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum ImportSource {
    /// Laravel Reverb: the JSON of config('reverb')
    Reverb,
    /// soketi: its config.json
    Soketi,
    /// sockudo: its config.json or config.toml
    Sockudo,
    /// beyondcode/laravel-websockets: the JSON of config('websockets')
    Websockets,
}

impl From<ImportSource> for Predecessor {
    fn from(source: ImportSource) -> Self {
        match source {
            ImportSource::Reverb => Self::Reverb,
            ImportSource::Soketi => Self::Soketi,
            ImportSource::Sockudo => Self::Sockudo,
            ImportSource::Websockets => Self::LaravelWebsockets,
        }
    }
}

pub(super) fn run(arguments: &ImportArgs) -> ExitCode {
    import(arguments.source.into(), &arguments.files)
}

/// `ringwave import-reverb`.
pub(super) fn run_reverb(files: &FileArgs) -> ExitCode {
    import(Predecessor::Reverb, files)
}

fn import(from: Predecessor, files: &FileArgs) -> ExitCode {
    let text = match imported(from, &files.file) {
        Ok(text) => text,
        Err(ImportFailure::Config(error)) => return tell(&error, EXIT_DATA),
        Err(error) => return fail(&error, EXIT_DATA),
    };
    match &files.output {
        Some(path) if path.as_os_str() != "-" => match output::write(path, &files.file, &text) {
            Ok(written) => {
                eprintln!("ringwave: {written}. `ringwave check` shows its values.");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, EXIT_CANNOT_CREATE),
        },
        _ => match io::stdout().lock().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

/// The reason for which a configuration cannot be imported.
#[derive(Debug, thiserror::Error)]
enum ImportFailure {
    #[error("cannot read {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] config::ImportError),
}

fn imported(from: Predecessor, file: &Path) -> Result<String, ImportFailure> {
    let is_stdin = file.as_os_str() == "-";
    let input = read(file, is_stdin).map_err(|source| {
        let file = if is_stdin { PathBuf::from("stdin") } else { file.to_owned() };
        ImportFailure::Read { file, source }
    })?;
    Ok(config::import(from, &input, &environment())?)
}

/// Reads the input. One byte more than an input may have is enough to show that it is too long.
fn read(file: &Path, is_stdin: bool) -> io::Result<Vec<u8>> {
    let limit = INPUT_BYTES_MAX as u64 + 1;
    let mut input = Vec::new();
    if is_stdin {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            eprintln!("ringwave: reading the configuration from the terminal, up to Ctrl-D.");
        }
        stdin.lock().take(limit).read_to_end(&mut input)?;
    } else {
        File::open(file)?.take(limit).read_to_end(&mut input)?;
    }
    Ok(input)
}
