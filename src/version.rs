//! Floor 0. Which program this is: its version, and the commit that it was built from.

/// The version of the package.
pub(crate) const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The commit that was checked out when the program was built, abbreviated to 12 digits. `None`
/// when the sources had none, as in an archive that git did not make. See `scripts/build.rs`.
pub(crate) const COMMIT: Option<&str> = option_env!("RINGWAVE_COMMIT");

/// Both, as `ringwave --version` tells them: `0.1.0 (a006f7575d1b)`.
pub(crate) const TEXT: &str = match option_env!("RINGWAVE_VERSION") {
    Some(text) => text,
    None => NUMBER,
};
