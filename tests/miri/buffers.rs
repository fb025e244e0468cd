//! The receive buffers as they are in `src/ring/buffers.rs`, with their tests, and a kernel for
//! them. Of the files with unsafe code it is the only one that Miri can run: `uring.rs` and
//! `sockets.rs` make system calls, and `memory/allocator.rs` calls the allocator's C functions.
//! Without Miri the same tests run under AddressSanitizer, see `scripts/test`.

#[cfg(test)]
#[path = "../../src/ring/buffers.rs"]
mod buffers;

#[cfg(test)]
mod kernel;
