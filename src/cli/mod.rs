//! TODO

pub mod doctor;
