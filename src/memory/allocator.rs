//! The one call of the allocator that has no safe interface.

/// Hands pages that hold nothing any more back to the system: those that this thread had, and those
/// that any thread has freed. They are kept otherwise, for good when a thread allocates little.
pub fn give_back() {
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
