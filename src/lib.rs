//! Ringwave: an `io_uring` edge gateway that replaces Laravel Reverb.

pub mod bus;
pub mod channels;
pub mod cli;
pub mod config;
pub mod frame;
pub mod front;
pub mod id;
pub mod plane;
pub mod protocol;
pub mod ring;
pub mod server;
pub mod shard;
pub mod storm;
pub mod time;
pub mod websocket;
