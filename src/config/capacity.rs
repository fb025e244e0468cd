//! Floor 7. The memory that a process takes before it has a connection, and checks of settings that
//! allow less, or ask for more threads than the host has cores for.

use crate::memory;

use super::error::{ConfigError, TooLittleMemory};
use super::server::ServerConfig;
use super::units::mebibytes;
use super::values::MemoryLimit;

/// Bytes of a shard without connections: the sum of what `ringwave doctor` lists, which a test of
/// the server compares with this.
pub(crate) const SHARD_BYTES: u64 = 2_514_944;

/// The default of `server.send_buffer` in bytes: the kernel's memory that is pinned by a client
/// which stops reading. It is not part of the process's size.
pub(crate) const SEND_BUFFER: u64 = 256 << 10;

/// Bytes of the process without shards: its program, the allocator's and the control thread's.
/// Resident sets of 1, 2 and 8 idle shards lie on a line that begins here.
const PROCESS_BYTES: u64 = 8 << 20;

/// Shards per core past which more of them only take turns. Up to here an operator may know why.
const SHARDS_PER_CORE_MAX: usize = 4;

/// Bytes that are in use before the first connection.
pub(crate) fn needed(shards: usize) -> u64 {
    PROCESS_BYTES.saturating_add(SHARD_BYTES.saturating_mul(shards as u64))
}

/// The smallest limit with which a connection is let in: beside the reserve, which is an eighth of
/// a small limit, a twentieth of a large one and 8 MiB between them.
fn smallest_limit(shards: usize) -> u64 {
    let needed = needed(shards);
    let of_eighth = needed.saturating_mul(8).div_ceil(7);
    let of_twentieth = needed.saturating_mul(20).div_ceil(19);
    let holds = |limit: &u64| limit.saturating_sub(memory::reserve(*limit)) >= needed;
    let between = needed.saturating_add(memory::reserve(of_eighth));
    [of_twentieth, between, of_eighth].into_iter().find(holds).unwrap_or(of_eighth)
}

/// The fault of a limit with which a process would refuse every connection.
fn too_little(server: &ServerConfig) -> Option<TooLittleMemory> {
    let MemoryLimit::Bytes(limit) = server.memory_limit else { return None };
    let shards = server.shards;
    let smallest = smallest_limit(shards);
    (limit < smallest).then(|| TooLittleMemory { limit, shards, needed: needed(shards), smallest })
}

/// Refuses a limit of memory with which a process that starts would refuse every connection.
pub(super) fn holds(server: &ServerConfig) -> Result<(), ConfigError> {
    too_little(server).map_or(Ok(()), |error| Err(ConfigError::TooLittleMemory(error)))
}

/// The notes of a configuration on a host with so many cores.
pub(super) fn notes(server: &ServerConfig, cores: usize) -> Vec<String> {
    let shards = server.shards;
    let crowd = (shards > cores.saturating_mul(SHARDS_PER_CORE_MAX)).then(|| {
        let s = if cores == 1 { "" } else { "s" };
        format!(
            "{shards} shards on {cores} core{s} take turns, serve no more than {cores} would, and \
             take {} before the first connection. The default is one per core.",
            mebibytes(needed(shards)),
        )
    });
    let little = too_little(server).map(|error| format!("{error}."));
    crowd.into_iter().chain(little).collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings;
    use super::*;

    #[test]
    fn the_default_of_the_send_buffer_is_the_one_that_is_accounted() {
        assert_eq!(settings::SEND_BUFFER.declaration.default, SEND_BUFFER.to_string());
    }

    #[test]
    fn the_figure_that_is_named_is_enough() {
        for shards in [1, 2, 64, 1024] {
            let limit = smallest_limit(shards).div_ceil(1 << 20) << 20;
            assert!(limit - memory::reserve(limit) >= needed(shards), "{shards}");
        }
    }
}
