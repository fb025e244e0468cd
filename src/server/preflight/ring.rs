//! The probe: asks the kernel for a ring as the shards use it, and says what it refused first.

use io_uring::{Builder, IoUring, Probe, opcode};

use super::error::Requirement;

/// The first thing that this kernel did not grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeFailure {
    /// `io_uring_setup` failed. After EINVAL, `unknown` is the flag without which it succeeds.
    Setup { errno: i32, unknown: Option<Requirement> },
    /// `io_uring_enter` or `io_uring_register` failed on a ring that exists.
    Call { call: &'static str, errno: i32 },
    /// The ring lacks a feature.
    Feature(Requirement),
    /// The ring lacks an operation.
    Opcode(Requirement),
    /// No fixed file table of this length.
    Table { slots: u32, errno: i32 },
}

/// The steps of the probe, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeStep {
    /// Creating and entering a ring.
    Ring,
    /// The features of the kernel's `io_uring`.
    Features,
    /// The operations.
    Opcodes,
    /// The fixed file table.
    Table,
}

impl ProbeFailure {
    /// The step that failed.
    pub(super) const fn step(&self) -> ProbeStep {
        match self {
            Self::Setup { .. } | Self::Call { .. } => ProbeStep::Ring,
            Self::Feature(_) => ProbeStep::Features,
            Self::Opcode(_) => ProbeStep::Opcodes,
            Self::Table { .. } => ProbeStep::Table,
        }
    }
}

/// Creates a small ring with the flags of the shards, and a fixed file table of `slots`; both are
/// gone on return.
pub(super) fn probe(slots: u32) -> Result<(), ProbeFailure> {
    let ring = build(FLAGS)
        .map_err(|errno| ProbeFailure::Setup { errno, unknown: unknown_flag(errno) })?;
    let failed = |call| move |error| ProbeFailure::Call { call, errno: errno_of(&error) };
    ring.submit().map_err(failed("io_uring_enter"))?;

    let params = ring.params();
    let features = [
        (params.is_feature_nodrop(), "IORING_FEAT_NODROP", "5.5"),
        (params.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL", "5.7"),
        (params.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG", "5.11"),
        (params.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP", "5.17"),
    ];
    if let Some(&(_, name, since)) = features.iter().find(|(present, ..)| !present) {
        return Err(ProbeFailure::Feature(Requirement { name, since }));
    }

    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(failed("io_uring_register"))?;
    if let Some(&(_, name, since)) = OPCODES.iter().find(|(code, ..)| !known.is_supported(*code)) {
        return Err(ProbeFailure::Opcode(Requirement { name, since }));
    }
    let table = ring.submitter().register_files_sparse(slots);
    table.map_err(|error| ProbeFailure::Table { slots, errno: errno_of(&error) })
}

/// The first flag that the kernel refuses, after EINVAL. A flag may need those before it.
fn unknown_flag(errno: i32) -> Option<Requirement> {
    if errno != libc::EINVAL {
        return None;
    }
    let refused = (0..=FLAGS.len()).find(|&count| build(&FLAGS[..count]).is_err())?;
    Some(FLAGS[refused.checked_sub(1)?].0)
}

type Flag = (Requirement, fn(&mut Builder));

fn build(flags: &[Flag]) -> Result<IoUring, i32> {
    let mut builder = IoUring::builder();
    for (_, set) in flags {
        set(&mut builder);
    }
    builder.build(ENTRIES).map_err(|error| errno_of(&error))
}

fn errno_of(error: &std::io::Error) -> i32 {
    let errno = error.raw_os_error();
    // All errors of these calls come from the kernel.
    debug_assert!(errno.is_some(), "{error}");
    errno.unwrap_or_default()
}

const fn since(name: &'static str, since: &'static str) -> Requirement {
    Requirement { name, since }
}

/// Entries of the ring: the probe submits nothing.
const ENTRIES: u32 = 8;

/// The flags of a shard's ring, in the order in which kernels got them. DEFER_TASKRUN needs
/// SINGLE_ISSUER.
const FLAGS: &[Flag] = &[
    (since("IORING_SETUP_CQSIZE", "5.5"), |builder| {
        builder.setup_cqsize(ENTRIES * 4);
    }),
    (since("IORING_SETUP_CLAMP", "5.6"), |builder| {
        builder.setup_clamp();
    }),
    (since("IORING_SETUP_SUBMIT_ALL", "5.18"), |builder| {
        builder.setup_submit_all();
    }),
    (since("IORING_SETUP_SINGLE_ISSUER", "6.0"), |builder| {
        builder.setup_single_issuer();
    }),
    (since("IORING_SETUP_DEFER_TASKRUN", "6.1"), |builder| {
        builder.setup_defer_taskrun();
    }),
];

/// The operations that a shard and the webhooks submit. The modes in which they do, such as the
/// multishot poll (5.13) in which a shard waits to be woken, are older than the flags above.
const OPCODES: &[(u8, &str, &str)] = &[
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG", "5.3"),
    (opcode::Accept::CODE, "IORING_OP_ACCEPT", "5.5"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL", "5.5"),
    (opcode::Close::CODE, "IORING_OP_CLOSE", "5.6"),
    (opcode::Read::CODE, "IORING_OP_READ", "5.6"),
    (opcode::Write::CODE, "IORING_OP_WRITE", "5.6"),
    (opcode::Recv::CODE, "IORING_OP_RECV", "5.6"),
    (opcode::Send::CODE, "IORING_OP_SEND", "5.6"),
    (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN", "5.11"),
];
