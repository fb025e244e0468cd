//! Floor 1. The memory that the process may take, and the containers that hold it.
//!
//! - [`Chunked`], [`KeyedSlab`]: tables that grow in place
//! - [`Trim`]: lists that give back the memory that a burst has left
//! - [`give_back`]: unused pages go back to the system
//! - [`Holder`], [`Bound`]: the lines of the budget of `ringwave doctor`, and of the ledger
//! - [`Reading`], [`Headroom`]: how much memory is left, and the steps by which less is taken on
//! - [`Allowance`], [`Lease`]: the bytes that may be taken before the memory is measured again

mod allocator;
mod allowance;
mod budget;
mod chunked;
mod headroom;
mod keyed_slab;
mod trim;

pub(crate) use allocator::{allocator_version, give_back};
pub(crate) use allowance::{Allowance, Gauge, Lease};
pub(crate) use budget::{Bound, Holder, Per};
pub(crate) use chunked::Chunked;
pub use headroom::Headroom;
pub(crate) use headroom::{Reading, reserve};
pub(crate) use keyed_slab::{INDEX_ENTRY_BYTES, Keyed, KeyedSlab, number};
pub(crate) use trim::Trim;
