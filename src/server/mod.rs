//! TODO

pub mod limits;
pub mod logging;
pub mod preflight;
pub mod signals;
mod status;
