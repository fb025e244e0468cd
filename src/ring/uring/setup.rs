//! The sizes of a ring, and its setup.

use std::io;

use io_uring::IoUring;

/// The sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct UringSizes {
    /// Slots of the table of sockets, at most `RLIMIT_NOFILE` and 2^24.
    pub slots: u32,
    /// Entries of the submission queue: the operations that one system call can carry.
    pub submissions: u32,
    /// Receive buffers, a power of two up to 32,768.
    pub buffers: u16,
    /// The size of each receive buffer in bytes.
    pub buffer_size: u16,
    /// Whether sockets are kept in the ring's file table, which is sound from Linux 6.13 on.
    pub direct_descriptors: bool,
}

/// Builds the ring, and halves its queues until the kernel finds contiguous memory for them
/// (axboe/liburing#1088).
pub(super) fn build(submissions: u32) -> io::Result<IoUring> {
    const SUBMISSIONS_LEAST: u32 = 64;
    let mut size = submissions;
    loop {
        let built = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            // Each completion costs an allocation if the queue is full, so there is room for four
            // per submission.
            .setup_cqsize(size * 4)
            .build(size);
        match built {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM) && size > SUBMISSIONS_LEAST =>
            {
                size /= 2;
                tracing::warn!(
                    submissions = size,
                    "the kernel has no memory for the ring's queues: trying half of the size"
                );
            }
            built => return built,
        }
    }
}
