//! TODO

pub mod limits;
pub mod preflight;
pub mod signals;
mod status;
