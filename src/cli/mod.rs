//! Floor 8. The commands of the binary, one file each. This file reads the command line and turns
//! what a command returns into the exit code: 0 for success, 64 for a command line that is none, 65
//! for input that is none, 69 for a server that is not there, 70 for a defect of ours, 73 for a
//! file that cannot be made, 78 for a configuration or a host that cannot be served (the numbers of
//! `sysexits.h`).

mod budget;
mod check;
mod doctor;
mod import;
mod reload;
mod settings;
mod start;
mod status;
mod storm;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{ConfigError, Environment};
use crate::server::admin::AskError;
use crate::version;

use self::settings::{ServerArgs, SettingsArgs};

/// The command line is not one of ours (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// No server is there to ask (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// The configuration cannot be served (`EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// An `io_uring` WebSocket gateway that replaces Laravel Reverb
#[derive(Parser)]
#[command(name = "ringwave", version = version::TEXT)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; SIGHUP reads the configuration anew
    Start(SettingsArgs),
    /// Check the configuration and show every value with where it came from
    Check(SettingsArgs),
    /// Have the server of this directory read its configuration anew
    Reload(ServerArgs),
    /// Tell how the server of this directory is: since when it serves, and whom
    Status(status::StatusArgs),
    /// Make a ringwave.toml of the configuration of Reverb, soketi, sockudo or laravel-websockets
    Import(import::ImportArgs),
    /// The same as `import reverb`
    ImportReverb(import::FileArgs),
    /// Tell whether this host can run it, and how to mend what can't
    Doctor,
    /// Put a server under load and measure what it stands
    Storm(Box<storm::StormArgs>),
}

/// Runs the command of the command line.
#[must_use]
pub fn run() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(command_line) => command_line.command,
        Err(error) => return explain(&error),
    };
    match command {
        None => print_help(),
        Some(Command::Start(settings)) => start::run(settings),
        Some(Command::Check(settings)) => check::run(settings),
        Some(Command::Reload(server)) => reload::run(server),
        Some(Command::Status(arguments)) => status::run(arguments),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::ImportReverb(files)) => import::run_reverb(&files),
        Some(Command::Doctor) => doctor::run(),
        Some(Command::Storm(arguments)) => storm::run(*arguments),
    }
}

/// Prints an error of clap. The texts of `--help` and `--version` are errors in clap's terms.
fn explain(error: &clap::Error) -> ExitCode {
    // With stdout or stderr closed there is no place left to report to.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

fn print_help() -> ExitCode {
    match CommandLine::command().print_help() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The server that was asked did not do it.
fn unanswered(error: &AskError) -> ExitCode {
    eprintln!("ringwave: {error}.");
    ExitCode::from(EXIT_UNAVAILABLE)
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("ringwave: {error}.");
    ExitCode::from(EXIT_CONFIG)
}

/// The variables of the process. Values that are not UTF-8 are no values of ours.
fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{self, LogFormat};

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_of_a_setting_has_its_help() {
        let command = CommandLine::command();
        command.clone().debug_assert();
        let start = command.find_subcommand("start").unwrap();
        for argument in start.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "--{}", argument.get_id());
        }
    }

    #[test]
    fn the_flags_that_reverb_has_are_taken_in_its_spelling() {
        let line = "ringwave check --host=0.0.0.0 --port=8081 --path=ws --hostname=x.test --debug \
            --shards 2 --listen tcp://127.0.0.1:1 --listen unix:///s --dev --log-format json";
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).ok().unwrap();
        let Some(Command::Check(settings)) = parsed.command else { panic!("not check") };
        let inputs = settings.inputs();
        assert!(inputs.flags.dev);
        let flags = inputs.flags;
        let config = config::load(&flags, &Environment::new(), Path::new("/nonexistent")).unwrap();
        let server = &config.server;
        let listeners: Vec<_> = server.listeners.iter().map(ToString::to_string).collect();
        assert_eq!(listeners, ["127.0.0.1:1", "unix:///s"]);
        assert_eq!((server.path.as_str(), server.hostname.as_str()), ("/ws", "x.test"));
        assert_eq!((server.shards, server.debug), (2, true));
        assert_eq!(server.log_format, LogFormat::Json);
        let of_flag = |key: &str, flag: &str| {
            let line = config.resolved.iter().find(|line| line.key == key).unwrap();
            assert_eq!(line.source.to_string(), flag);
        };
        of_flag("server.host", "--host");
        of_flag("server.port", "--port");
    }
}
