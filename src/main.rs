//! Floor 9. The binary.

use std::process::ExitCode;

/// Ringwave allocates few sizes, which live long and are mostly freed by the thread that allocated
/// them: the best case of mimalloc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringwave::cli::run()
}
