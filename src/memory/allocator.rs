//! The calls of the allocator that have no safe interface.

/// Gives unused pages back to the system: those of this thread, and those that any thread has
/// freed. Otherwise the allocator keeps them, and for ever if a thread allocates little.
pub(crate) fn give_back() {
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    // SAFETY: the function takes no pointers, and any thread may call it at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// The version of mimalloc, as `2.3.2`.
pub(crate) fn allocator_version() -> String {
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    // SAFETY: the function takes no pointers and returns a constant.
    let number = unsafe { libmimalloc_sys::mi_version() };
    // The major version, and two digits each for minor and patch.
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}
