//! The processes that tests start, and the clients and servers that talk to them. Each binary takes
//! what it needs. The binaries of simulations and of `tuning/` take single files of it: `digest`,
//! `frames` and `left_out` use no others.

pub mod client;
pub mod cluster;
pub mod digest;
pub mod frames;
pub mod gateway;
pub mod http;
pub mod left_out;
pub mod memory_limit_group;
pub mod place;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod redis;
pub mod sign;
