//! The flags that set settings, which derive from the declarations of the settings, and the flags
//! that name the files with all others.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{ConfigInputs, FlagArgument, FlagValues, Flags, SettingFlag, setting_flags};

use super::environment::environment;

/// The flags of `start` and `check`.
#[derive(Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    settings: SettingFlags,
    #[command(flatten)]
    files: ConfigFiles,
    /// Serve the development app (100001, app-key, app-secret), on any address
    #[arg(long)]
    dev: bool,
}

impl SettingsArgs {
    /// The configuration as seen from the current directory.
    pub(super) fn inputs(self) -> ConfigInputs {
        let Self { settings: SettingFlags(settings), files, dev } = self;
        files.inputs(Flags { settings, dev, ..Flags::default() })
    }
}

/// The files by which `reload`, `status` and `log` find a running server, besides the directory.
#[derive(Args)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    files: ConfigFiles,
}

impl ServerArgs {
    /// The configuration of the server, if it was started from here.
    pub(super) fn inputs(self) -> ConfigInputs {
        self.files.inputs(Flags::default())
    }
}

/// The files of a configuration.
#[derive(Args)]
struct ConfigFiles {
    /// Read this file instead of .env; `reload`, `status` and `log` find the server by it
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Read this file instead of ringwave.toml; `reload`, `status` and `log` find the server by it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFiles {
    fn inputs(self, flags: Flags) -> ConfigInputs {
        let flags = Flags { env: self.env, config: self.config, ..flags };
        let directory = PathBuf::from(".");
        ConfigInputs { flags, environment: environment(), directory }
    }
}

/// The flags that settings declare. clap's derive cannot read a table, so this is written out.
struct SettingFlags(FlagValues);

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(setting_flags().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = FlagValues::default();
        setting_flags().for_each(|flag| take(&flag, matches, &mut settings));
        Ok(Self(settings))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A flag in clap's terms.
fn argument(flag: SettingFlag) -> Arg {
    let id = id(&flag);
    let argument = Arg::new(id).long(id).help(flag.help);
    match flag.argument {
        FlagArgument::Switch => argument.action(ArgAction::SetTrue),
        FlagArgument::One(name) => argument.action(ArgAction::Set).value_name(name),
        FlagArgument::Many(name) => argument.action(ArgAction::Append).value_name(name),
    }
}

/// Takes a flag over from the command line, if it is there.
fn take(flag: &SettingFlag, matches: &ArgMatches, settings: &mut FlagValues) {
    match flag.argument {
        FlagArgument::Switch => {
            if matches.get_flag(id(flag)) {
                settings.turn_on(flag);
            }
        }
        FlagArgument::One(_) => {
            if let Some(value) = matches.get_one::<String>(id(flag)) {
                settings.set(flag, value);
            }
        }
        FlagArgument::Many(_) => {
            if let Some(values) = matches.get_many::<String>(id(flag)) {
                settings.set_all(flag, values.cloned().collect());
            }
        }
    }
}

/// The name of a flag without its dashes, by which clap knows it.
fn id(flag: &SettingFlag) -> &'static str {
    flag.name.trim_start_matches('-')
}
