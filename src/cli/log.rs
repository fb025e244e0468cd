//! Floor 9. `ringwave log`: shows the filter that the log of the running server goes by, or changes
//! it until the next reload.

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::config::{LogDirective, log_level_words, log_target_words};
use crate::server::admin::{AdminCommand, ask};

use super::exit::unanswered;
use super::settings::ServerArgs;

/// The change of the filter, and the server to ask.
#[derive(Args)]
pub(super) struct LogArgs {
    /// Log what is at least this important; without TARGET it holds for everything
    #[arg(value_name = "LEVEL", value_parser = PossibleValuesParser::new(log_level_words()))]
    level: Option<String>,
    /// The part of the server that the level is for
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(log_target_words()))]
    target: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

impl LogArgs {
    /// The change. The command line has only words that a directive takes.
    fn change(&self) -> Option<LogDirective> {
        let level = self.level.as_deref()?;
        match &self.target {
            Some(target) => LogDirective::parse(&format!("{target}={level}")),
            None => LogDirective::parse(level),
        }
    }
}

pub(super) fn run(arguments: LogArgs) -> ExitCode {
    let command = AdminCommand::Log(arguments.change());
    match ask(&arguments.server.inputs(), command) {
        Ok(filter) => {
            println!("{filter}");
            ExitCode::SUCCESS
        }
        Err(error) => unanswered(&error),
    }
}
