//! The exit codes that several commands share (sysexits(3)), and the errors that they stand for.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::server::admin::AskError;
use crate::text::WithCauses;

/// The command line is wrong (`EX_USAGE`).
pub(super) const EXIT_USAGE: u8 = 64;
/// No server answers (`EX_UNAVAILABLE`).
pub(super) const EXIT_UNAVAILABLE: u8 = 69;
/// A file cannot be written (`EX_CANTCREAT`).
pub(super) const EXIT_CANNOT_CREATE: u8 = 73;
/// The configuration cannot be served (`EX_CONFIG`).
pub(super) const EXIT_CONFIG: u8 = 78;

/// Prints an error with its causes, as a sentence.
pub(super) fn fail(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    eprintln!("ringwave: {}.", WithCauses(error));
    ExitCode::from(code)
}

/// Prints why a running server did not do what it was asked.
pub(super) fn unanswered(error: &AskError) -> ExitCode {
    fail(error, EXIT_UNAVAILABLE)
}

/// Prints why a configuration cannot be served.
pub(super) fn refuse(error: &ConfigError) -> ExitCode {
    tell(error, EXIT_CONFIG)
}

/// Prints an error whose text is a whole sentence with its causes, as those of the configuration
/// are.
pub(super) fn tell(error: &impl Display, code: u8) -> ExitCode {
    eprintln!("ringwave: {error}.");
    ExitCode::from(code)
}
