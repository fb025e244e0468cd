//! Floor 8. The commands of the binary, one file each. This file parses the command line and runs
//! the command. Exit codes are those of sysexits(3): 0 for success, 64 for a wrong command line, 65
//! for input that cannot be understood, 69 for a server that does not answer, 70 for a bug in
//! Ringwave, 73 for a file that cannot be written, 78 for a configuration or a host that cannot be
//! served.

mod budget;
mod check;
mod doctor;
mod environment;
mod exit;
mod import;
mod reload;
mod start;
mod status;
mod storm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, Flags, Origin};
use crate::version;

use environment::environment;
use exit::EXIT_USAGE;

/// An `io_uring` WebSocket gateway that replaces Laravel Reverb
#[derive(Parser)]
#[command(name = "ringwave", version = version::TEXT)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again
    Start(SettingsArgs),
    /// Check the configuration, and show every value and where it comes from
    Check(SettingsArgs),
    /// Make the server of this directory read its configuration again
    Reload(ServerArgs),
    /// Show the status of the server of this directory: uptime, connections, channels, shards
    Status(status::StatusArgs),
    /// Convert the configuration of Reverb, soketi, sockudo or laravel-websockets to ringwave.toml
    Import(import::ImportArgs),
    /// The same as `import reverb`
    ImportReverb(import::FileArgs),
    /// Check that this host can run Ringwave, and show how to fix what is missing
    Doctor,
    /// Put a server under load, and measure what it can take
    Storm(Box<storm::StormArgs>),
}

/// Flags that set settings, and say where the others are.
#[derive(Args)]
struct SettingsArgs {
    #[arg(long, help = config::help("--host"))]
    host: Option<String>,
    #[arg(long, help = config::help("--port"))]
    port: Option<String>,
    #[arg(long, help = config::help("--path"))]
    path: Option<String>,
    #[arg(long, help = config::help("--hostname"))]
    hostname: Option<String>,
    #[arg(long, value_name = "ADDRESS", help = config::help("--listen"))]
    listen: Vec<String>,
    #[arg(long, help = config::help("--shards"))]
    shards: Option<String>,
    #[arg(long, help = config::help("--debug"))]
    debug: bool,
    #[arg(long, value_name = "FORM", help = config::help("--log-format"))]
    log_format: Option<String>,
    /// Read this file instead of .env
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Read this file instead of ringwave.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve the development app (100001, app-key, app-secret), on any address
    #[arg(long)]
    dev: bool,
}

impl SettingsArgs {
    /// The configuration as seen from the current directory.
    fn origin(self) -> Origin {
        let flags = Flags {
            host: self.host,
            port: self.port,
            path: self.path,
            hostname: self.hostname,
            listen: self.listen,
            shards: self.shards,
            debug: self.debug,
            log_format: self.log_format,
            env: self.env,
            config: self.config,
            dev: self.dev,
        };
        Origin { flags, environment: environment(), directory: PathBuf::from(".") }
    }
}

/// The files by which a running server is known, besides the directory.
#[derive(Args)]
struct ServerArgs {
    /// The server was started with this --env
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// The server was started with this --config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ServerArgs {
    /// The origin of the server, if it was started from here.
    fn origin(self) -> Origin {
        let flags = Flags { env: self.env, config: self.config, ..Flags::default() };
        Origin { flags, environment: environment(), directory: PathBuf::from(".") }
    }
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
        Some(CliCommand::Check(settings)) => check::run(settings),
        Some(CliCommand::Reload(server)) => reload::run(server),
        Some(CliCommand::Status(arguments)) => status::run(arguments),
        Some(CliCommand::Import(arguments)) => import::run(&arguments),
        Some(CliCommand::ImportReverb(files)) => import::run_reverb(&files),
        Some(CliCommand::Doctor) => doctor::run(),
        Some(CliCommand::Storm(arguments)) => storm::run(*arguments),
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
            --shards 2 --listen tcp://127.0.0.1:1 --listen unix:///s --env e --config c --dev \
            --log-format json";
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).ok().unwrap();
        let Some(CliCommand::Start(settings)) = parsed.command else { panic!("not start") };
        assert_eq!(settings.port.as_deref(), Some("8081"));
        assert_eq!(settings.listen.len(), 2);
        assert!(settings.debug && settings.dev);
    }
}
