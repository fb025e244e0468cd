//! TODO

pub mod limits;
pub mod preflight;
mod status;
