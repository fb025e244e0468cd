//! The answers of `ringwave -V` and `ringwave --version`.

use std::sync::LazyLock;

use crate::memory::allocator_version;
use crate::version;

/// The long answer: the version with the commit, the kernel that runs, and the allocator. A report
/// of a bug needs all three.
pub(super) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let system = rustix::system::uname();
        let (kernel, release) = (system.sysname(), system.release());
        format!(
            "{}\nkernel     {} {}\nallocator  mimalloc {}",
            version::TEXT,
            kernel.to_string_lossy(),
            release.to_string_lossy(),
            allocator_version(),
        )
    });
    &LONG
}
