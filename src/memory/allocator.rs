//! The one call of the allocator that has no safe interface.

/// Gives unused pages back to the system: those of this thread, and those that any thread has
/// freed. Otherwise the allocator keeps them, and for ever if a thread allocates little.
pub(crate) fn give_back() {
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    // SAFETY: the function takes no pointers, and any thread may call it at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
