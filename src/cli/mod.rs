//! Floor 9. The commands of the binary, one file each. This file parses the command line and runs
//! the command. Exit codes are those of sysexits(3): 0 for success, 64 for a wrong command line, 65
//! for input that cannot be understood, 69 for a server that does not answer, 70 for a bug in
//! Ringwave, 73 for a file that cannot be written, 78 for a configuration or a host that cannot be
//! served.

mod budget;
mod check;
mod completions;
mod doctor;
mod environment;
mod exit;
mod import;
mod log;
mod man;
mod reload;
mod settings;
mod start;
mod status;
mod storm;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::version::TEXT;

use exit::EXIT_USAGE;
use settings::{ServerArgs, SettingsArgs};

/// An `io_uring` WebSocket gateway that replaces Laravel Reverb
#[derive(Parser)]
#[command(name = "ringwave", version = TEXT, long_version = version::long())]
struct CommandLine {
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again
    Start(SettingsArgs),
    /// Check the configuration, and show every value and where it comes from
    Check(check::CheckArgs),
    /// Make the server of this directory read its configuration again
    Reload(ServerArgs),
    /// Show the status of the server of this directory: uptime, connections, channels, shards
    Status(status::StatusArgs),
    /// Show or change the filter of the log of the server of this directory
    Log(log::LogArgs),
    /// Convert the configuration of Reverb, soketi, sockudo or laravel-websockets to ringwave.toml
    Import(import::ImportArgs),
    /// The same as `import reverb`
    ImportReverb(import::FileArgs),
    /// Check that this host can run Ringwave, and show how to fix what is missing
    Doctor,
    /// Put a server under load, and measure what it can take
    Storm(Box<storm::StormArgs>),
    /// Print the script by which a shell completes commands and flags
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write those of all commands into a directory
    Man(man::ManArgs),
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
        Some(CliCommand::Start(settings)) => start::run(settings),
        Some(CliCommand::Check(arguments)) => check::run(arguments),
        Some(CliCommand::Reload(server)) => reload::run(server),
        Some(CliCommand::Status(arguments)) => status::run(arguments),
        Some(CliCommand::Log(arguments)) => log::run(arguments),
        Some(CliCommand::Import(arguments)) => import::run(&arguments),
        Some(CliCommand::ImportReverb(files)) => import::run_reverb(&files),
        Some(CliCommand::Doctor) => doctor::run(),
        Some(CliCommand::Storm(arguments)) => storm::run(*arguments),
        Some(CliCommand::Completions(arguments)) => {
            completions::run(&arguments, CommandLine::command())
        }
        Some(CliCommand::Man(arguments)) => man::run(&arguments, CommandLine::command()),
    }
}

/// Prints an error of clap, which are also the texts of `--help` and `--version`.
fn explain(error: &clap::Error) -> ExitCode {
    // If stdout or stderr is closed, there is nowhere to report it.
    let _closed = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

fn print_help() -> ExitCode {
    match CommandLine::command().print_help() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{self, Environment, LogFormat};

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
        let line = "ringwave start --host=0.0.0.0 --port=8081 --path=ws --hostname=x.test --debug \
            --shards 2 --listen tcp://127.0.0.1:1 --listen unix:///s --dev --log-format json";
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).ok().unwrap();
        let Some(CliCommand::Start(settings)) = parsed.command else { panic!("not start") };
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
