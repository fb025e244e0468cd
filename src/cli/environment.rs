//! The environment of the process.

use crate::config::Environment;

/// The variables of the process. Those that are not UTF-8 are left out, because no setting can be.
pub(super) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}
