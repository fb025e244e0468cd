//! The reasons why a configuration of another server is not imported. As in the errors of the
//! configuration, each is one complete sentence, and none holds a secret.

use std::error::Error;
use std::fmt;

use crate::config::error::ConfigError;

/// A configuration of another server cannot be imported.
#[derive(Debug)]
pub enum ImportError {
    /// The input is not such a configuration.
    Input(InputError),
    /// A field of it cannot be taken over, and to leave it out would widen a restriction.
    Field {
        /// `apps.apps[0].key`
        path: String,
        /// The reason.
        fault: FieldFault,
    },
    /// The result could not be served.
    Result(ConfigError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Field { path, fault } => write!(f, "{path} {fault}"),
            Self::Result(error) => error.fmt(f),
        }
    }
}

impl Error for ImportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Input(_) | Self::Field { .. } => None,
            Self::Result(error) => error.source(),
        }
    }
}

impl From<InputError> for ImportError {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl From<ConfigError> for ImportError {
    fn from(error: ConfigError) -> Self {
        Self::Result(error)
    }
}

/// The reason why the input is not a configuration of the other server.
#[derive(Debug)]
pub enum InputError {
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It is longer than that with its variables filled.
    TooLongFilled,
    /// It is UTF-16.
    Utf16,
    /// It is not UTF-8.
    NotUtf8 {
        /// The first byte that is not, from 0.
        byte: usize,
    },
    /// It has nothing but white space.
    Empty,
    /// It has a JSON object, and this behind it.
    TextBehind(String),
    /// It has another JSON value than an object: this one.
    NotAnObject(&'static str),
    /// It begins as JSON, and is none.
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It begins with this, usually a message of PHP.
    Foreign(String),
    /// It is neither JSON nor TOML.
    Toml {
        /// From 1.
        line: usize,
        /// The message of the parser, without the text of the line, which may be a secret.
        message: String,
    },
    /// It names these variables, which the environment does not have.
    Variables(Vec<String>),
    /// A name in it looks like a path, and cannot be one.
    Path(String),
    /// It has no field with apps.
    NoAppsField {
        /// The configuration that was expected.
        expected: &'static str,
        /// The field.
        path: String,
    },
    /// The field with apps is empty.
    NoApps {
        /// The field.
        path: String,
    },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(max) => {
                write!(f, "the input is longer than {max} bytes, which no configuration is")
            }
            Self::TooLongFilled => f.write_str("the input is too long with its variables filled"),
            Self::Utf16 => f.write_str(
                "the input is UTF-16, as Windows PowerShell writes it: save it as UTF-8",
            ),
            Self::NotUtf8 { byte } => write!(f, "the input is not UTF-8 text: byte {byte}"),
            Self::Empty => f.write_str(
                "the input is empty: the command that should print the configuration printed \
                 nothing",
            ),
            Self::TextBehind(text) => {
                write!(f, "the input is not JSON alone: behind it came {text}")
            }
            Self::NotAnObject(what) => write!(
                f,
                "the input is {what}, not a configuration: the project has no such configuration, \
                 or the command named another"
            ),
            Self::Json { line, column } => {
                write!(f, "the input is not JSON: line {line}, column {column}")
            }
            Self::Foreign(text) => write!(
                f,
                "the input is not JSON: it begins with {text}. If that is a warning of PHP, mend \
                 its cause, or keep it out with `php -d display_errors=stderr artisan ...`"
            ),
            Self::Toml { line, message } => {
                write!(f, "the input is neither JSON nor TOML: line {line}: {message}")
            }
            Self::Variables(names) => write!(
                f,
                "the input needs {} of sockudo's environment: set them for this command too",
                names.join(", ")
            ),
            Self::Path(name) => {
                write!(f, "{name:?} leads nowhere in the input: it cannot be a path")
            }
            Self::NoAppsField { expected, path } => {
                write!(f, "the input is not {expected}: it has no {path}")
            }
            Self::NoApps { path } => write!(f, "there is no app in the input: {path} is empty"),
        }
    }
}

/// The reason why a field of the input cannot be taken over. Values are cut to a length that a
/// sentence can hold.
#[derive(Debug)]
pub enum FieldFault {
    /// It has a value of another type.
    Type {
        /// The value.
        value: String,
        /// The type that it has to have.
        expected: &'static str,
    },
    /// The setting that would keep this limit does not take it.
    Limit {
        /// The value.
        value: String,
        /// The value in the unit of the setting, if that is another one.
        converted: Option<String>,
        /// The setting.
        setting: String,
        /// The values that the setting takes, in words.
        expected: String,
    },
    /// The id, key or secret of an app is missing, or is not one.
    Credential {
        /// The values that the setting takes, in words.
        expected: String,
    },
    /// It names no server that the setting takes. The value may hold a password.
    Address {
        /// The setting.
        setting: String,
        /// The values that the setting takes, in words.
        expected: String,
    },
    /// It seems to restrict origins, and the other server has no such setting.
    UnknownOrigins,
    /// The list of origins is missing.
    NoOrigins {
        /// The other server.
        server: &'static str,
    },
    /// It is not a list of origins.
    Origins {
        /// The value.
        value: String,
    },
    /// The server that the input names as the default one is missing.
    NoDefaultServer,
}

impl fmt::Display for FieldFault {
    /// Continues a sentence that begins with the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { value, expected } => write!(f, "is {value}: it has to be {expected}"),
            Self::Limit { value, converted, setting, expected } => {
                write!(f, "is {value}")?;
                converted.iter().try_for_each(|converted| write!(f, ", here {converted}"))?;
                write!(f, ", a limit that cannot be kept: {setting} takes {expected}")
            }
            Self::Credential { expected } => {
                write!(f, "is missing in the input or cannot be served: it takes {expected}")
            }
            Self::Address { setting, expected } => {
                write!(f, "names no server that can be reached: {setting} takes {expected}")
            }
            Self::UnknownOrigins => f.write_str(
                "is no setting of that server, so it is unclear what it should restrict: correct \
                 its name, or take it out",
            ),
            Self::NoOrigins { server } => write!(
                f,
                "is missing or null, with which {server} lets nobody in: list the origins, or \
                 \"*\" for all"
            ),
            Self::Origins { value } => write!(
                f,
                "is {value}, which cannot be understood as origins: it takes a list of hosts or \
                 origins"
            ),
            Self::NoDefaultServer => {
                f.write_str("is missing in the input, but it is the default server")
            }
        }
    }
}
