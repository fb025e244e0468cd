//! The processes that tests start, and the clients and servers that talk to them. Each binary takes
//! what it needs; the modules that fit all binaries (`digest`, `frames`, `left_out`) use none of the
//! others.

pub mod client;
pub mod digest;
pub mod frames;
pub mod gateway;
pub mod http;
pub mod left_out;
pub mod memory_limit_group;
pub mod raw;
pub mod receiver;
pub mod sign;
