//! Floor 7. The configuration: the settings of the operator, from flags, the environment, `.env`
//! and `ringwave.toml`, as checked values for the floors below and the server.
//!
//! [`load`](load()) returns either a configuration that can be served or a [`ConfigError`]: one
//! sentence that names the setting, the source of its value and the values that it takes. It reads
//! files, but neither the clock nor the process environment. Secrets appear in no message and no
//! `Debug`.
//!
//! The files build on each other in this order, and a file imports only from earlier steps:
//! 1. `raw_value` holds a value as a source gave it; `values`, `log_filter` and `units` are what it
//!    may become.
//! 2. `value_type` and `value_types` parse raw values.
//! 3. `setting` and `settings` declare every setting once.
//! 4. `flags`, `text_file`, `secret_text`, `secret_files`, `dotenv`, `toml_file`, `aliases` and
//!    `soketi` each know one source; `sources` asks them in the order of their strength.
//! 5. `reader` takes settings out of the sources; `server`, `admin`, `cluster`, `apps` and
//!    `webhooks` are read by it.
//! 6. `notes`, `cluster_notes`, `publishing`, `variables`, `capacity` and `changes` compare and
//!    advise.
//! 7. `load` puts them together, and `import` checks its result by it.

mod admin;
mod aliases;
mod apps;
mod capacity;
mod changes;
mod cluster;
mod cluster_notes;
mod dotenv;
mod error;
mod flags;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
mod import;
mod load;
mod log_filter;
mod notes;
mod publishing;
mod raw_value;
mod reader;
mod secret_files;
mod secret_text;
mod server;
mod setting;
mod settings;
mod soketi;
mod sources;
mod spelling;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
mod text_file;
mod toml_file;
mod units;
mod value_source;
mod value_type;
mod value_types;
mod values;
mod variables;
mod webhooks;

pub(crate) use admin::{AdminSettings, AdminToken};
pub(crate) use apps::{Credentials, DEVELOPMENT};
pub(crate) use capacity::SEND_BUFFER;
#[cfg(test)]
pub(crate) use capacity::SHARD_BYTES;
pub(crate) use capacity::needed;
pub(crate) use changes::{Changes, in_force};
pub(crate) use error::ConfigError;
pub use flags::Flags;
pub(crate) use flags::{FlagValues, SettingFlag, setting_flags};
pub(crate) use import::{INPUT_BYTES_MAX, ImportError};
pub use import::{Predecessor, import};
pub use load::Config;
pub(crate) use load::ConfigInputs;
#[cfg(feature = "testing")]
pub use load::load;
pub(crate) use log_filter::{
    LogDirective, LogFilter, level_words as log_level_words, target_words as log_target_words,
};
pub(crate) use raw_value::WITHHELD;
pub(crate) use reader::Resolved;
pub(crate) use server::ServerConfig;
pub use sources::Environment;
pub(crate) use value_type::FlagArgument;
pub(crate) use values::{ListenAddr, ListenerConfig, LogFormat, MemoryLimit, SocketAccess};
