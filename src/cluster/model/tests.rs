//! The model and the scripts: the same calls on both, and what has to come out.

mod facts;
mod random;
mod server;
mod state;
mod world;
