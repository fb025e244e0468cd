//! Floor 8. The binary: an index of what happens, in order.

use std::process::ExitCode;

/// Few size classes that live long, freed by the thread that allocated them: mimalloc's best case.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringwave::cli::run()
}
