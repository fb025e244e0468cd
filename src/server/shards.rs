//! The threads of the shards, and the progress that each of them has reported to the control
//! thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;
use tokio::sync::mpsc;

use super::listen::SocketFiles;
use crate::bus::Outside;
use crate::id::ShardId;
use crate::invariant::broken;
use crate::shard::run::{Milestone, Setup};
use crate::shard::{self, ShardMessage};
use crate::time::{Clock, Millis};

/// The threads of all shards. Dropped, it removes the files of unix sockets, and leaves the threads
/// to the end of the process.
pub(super) struct Shards {
    threads: Vec<JoinHandle<()>>,
    reports: mpsc::UnboundedReceiver<ShardReport>,
    bus: Outside<ShardMessage>,
    /// The progress of each shard.
    progress: Vec<ShardProgress>,
    /// The files of unix sockets; none once they are removed.
    files: Option<SocketFiles>,
    clock: Clock,
}

/// The progress of a shard. A step that was reached stays so.
#[derive(Debug, Default)]
pub(super) struct ShardProgress {
    /// The core that its thread is pinned to; `None`: the scheduler places it.
    pub(super) core: Option<usize>,
    /// It accepts connections.
    pub(super) serving: bool,
    /// See [`Milestone::Emptied`].
    pub(super) emptied: bool,
    /// See [`Milestone::Drained`].
    pub(super) drained: bool,
    /// The time at which its drain last closed a connection.
    last_close: Option<Millis>,
    /// Its thread has ended or is about to.
    ended: bool,
}

/// A report of a shard's thread to the control thread.
struct ShardReport {
    shard: ShardId,
    event: ShardEvent,
}

/// An event in the life of a shard's thread.
enum ShardEvent {
    /// It is pinned to this core.
    Pinned(usize),
    /// It has reached this.
    Reached(Milestone),
    /// It could not set up its shard.
    Failed(io::Error),
    /// It has panicked.
    Panicked,
    /// It has ended after [`ShardMessage::Stop`].
    Ended,
}

/// A failure of a shard, without which the server cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShardError {
    #[error("cannot start the thread of shard {}", .0.0)]
    Thread(ShardId, #[source] io::Error),
    #[error("cannot set up shard {}", .0.0)]
    Setup(ShardId, #[source] io::Error),
    #[error("shard {} has panicked, as shown above, and the server cannot go on without it", .0.0)]
    Panicked(ShardId),
    #[error("the cluster thread has panicked, as shown above, and the server cannot go on alone")]
    ClusterPanicked,
    #[error("all shards have ended before the server stopped")]
    AllEnded,
}

impl ShardError {
    /// The advice to the operator.
    pub(super) const fn advice(&self) -> &'static str {
        match self {
            Self::Thread(..) => RAISE_LIMITS,
            Self::Setup(..) => RUN_DOCTOR,
            Self::Panicked(_) | Self::ClusterPanicked | Self::AllEnded => {
                "This is a bug in Ringwave: please report it. A supervisor that restarts the \
                 process brings the clients back."
            }
        }
    }

    /// Whether a bug in Ringwave is to blame.
    pub(super) const fn is_bug(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::ClusterPanicked | Self::AllEnded)
    }
}

/// The advice if a thread cannot be started.
pub(super) const RAISE_LIMITS: &str =
    "Raise the limits of processes and open files of this user (ulimit -u, ulimit -n).";

/// The advice if a ring cannot be set up.
pub(super) const RUN_DOCTOR: &str = "Run `ringwave doctor`: it shows what this host lacks.";

impl Shards {
    /// Starts a thread for each shard, pinned to a core of its own as far as there are enough.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(
        setups: Vec<Setup>,
        bus: Outside<ShardMessage>,
        files: SocketFiles,
        clock: Clock,
    ) -> Result<Self, ShardError> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let (report, reports) = mpsc::unbounded_channel();
        let progress = setups.iter().map(|_| ShardProgress::default()).collect();
        let mut threads = Vec::new();
        for (index, setup) in setups.into_iter().enumerate() {
            let core = cores.get(index % cores.len().max(1)).copied();
            threads.push(spawn(setup, core, report.clone())?);
        }
        Ok(Self { threads, reports, bus, progress, files: Some(files), clock })
    }

    /// The way to send to all shards.
    pub(super) fn bus(&self) -> Outside<ShardMessage> {
        self.bus.clone()
    }

    /// Waits until every shard has reached this. Cancel-safe.
    ///
    /// # Errors
    /// A shard has failed.
    pub(super) async fn until(
        &mut self,
        reached: fn(&ShardProgress) -> bool,
    ) -> Result<(), ShardError> {
        while !self.progress.iter().all(reached) {
            self.take_report().await?;
        }
        Ok(())
    }

    /// Waits for ever, unless a shard fails. Cancel-safe.
    pub(super) async fn failure(&mut self) -> ShardError {
        loop {
            if let Err(error) = self.take_report().await {
                return error;
            }
        }
    }

    async fn take_report(&mut self) -> Result<(), ShardError> {
        let Some(report) = self.reports.recv().await else { return Err(ShardError::AllEnded) };
        let ShardReport { shard, event } = report;
        let progress = self.progress.get_mut(shard.index());
        let Some(progress) = progress else {
            broken("a shard reports that was not started");
            return Ok(());
        };
        match event {
            ShardEvent::Pinned(core) => progress.core = Some(core),
            ShardEvent::Reached(Milestone::Serving) => progress.serving = true,
            ShardEvent::Reached(Milestone::Emptied(last_close)) => {
                (progress.emptied, progress.last_close) = (true, last_close);
            }
            ShardEvent::Reached(Milestone::Drained) => progress.drained = true,
            ShardEvent::Ended => progress.ended = true,
            ShardEvent::Panicked => return Err(ShardError::Panicked(shard)),
            ShardEvent::Failed(error) => return Err(ShardError::Setup(shard, error)),
        }
        Ok(())
    }

    /// The core of each shard; `None` if the system did not allow to pin it.
    pub(super) fn cores(&self) -> Vec<Option<usize>> {
        self.progress.iter().map(|of| of.core).collect()
    }

    /// The time since the drain closed its last connection; `None`: there was none to close.
    pub(super) fn since_last_close(&self) -> Option<Duration> {
        let last = self.progress.iter().filter_map(|of| of.last_close).max()?;
        Some(self.clock.now().since(last))
    }

    /// Removes the files of the unix sockets, so that no client finds them from now on.
    pub(super) fn remove_socket_files(&mut self) {
        self.files = None;
    }

    /// The shards whose threads have not ended.
    pub(super) fn running(&self) -> Vec<ShardId> {
        let shards = (0..).map(ShardId).zip(&self.progress);
        shards.filter_map(|(shard, of)| (!of.ended).then_some(shard)).collect()
    }

    /// Waits until all threads have ended. [`ShardMessage::Stop`] has to be sent before.
    pub(super) async fn ended(&mut self) {
        // A shard that fails now ends as well.
        while !self.progress.iter().all(|of| of.ended) && self.take_report().await.is_ok() {}
        for thread in self.threads.drain(..) {
            // A panic was printed when it happened.
            let _panicked = thread.join();
        }
    }
}

fn spawn(
    setup: Setup,
    core: Option<CoreId>,
    report: mpsc::UnboundedSender<ShardReport>,
) -> Result<JoinHandle<()>, ShardError> {
    let shard = setup.parts.port.id();
    // The control thread is gone only when the process ends, and then a report is of no use.
    let report = move |event| drop(report.send(ShardReport { shard, event }));
    let body = move || {
        // Some containers do not allow it. Then the scheduler places the thread.
        if let Some(core) = core.filter(|&core| core_affinity::set_for_current(core)) {
            report(ShardEvent::Pinned(core.id));
        }
        let reached = report.clone();
        let reached = move |milestone| reached(ShardEvent::Reached(milestone));
        // A shard cannot go on after a panic, nor can the others without the homes that it has.
        match catch_unwind(AssertUnwindSafe(|| shard::run::run(setup, reached))) {
            Ok(Ok(())) => report(ShardEvent::Ended),
            Ok(Err(error)) => report(ShardEvent::Failed(error)),
            Err(_panic) => report(ShardEvent::Panicked),
        }
    };
    std::thread::Builder::new()
        .name(format!("shard-{}", shard.0))
        .spawn(body)
        .map_err(|error| ShardError::Thread(shard, error))
}

/// Says where the threads of shards run, given the core of each: `on cores 0,1`.
#[must_use]
pub(crate) fn placement(cores: &[Option<usize>]) -> String {
    let pinned: Vec<_> = cores.iter().flatten().map(usize::to_string).collect();
    if pinned.is_empty() {
        return "not pinned to cores".to_owned();
    }
    let mut text = format!("on cores {}", pinned.join(","));
    if pinned.len() < cores.len() {
        text.push_str(&format!(", {} not pinned", cores.len() - pinned.len()));
    }
    text
}

/// A note for the operator about shards that are not pinned.
pub(super) fn pinning_note(cores: &[Option<usize>]) -> Option<String> {
    let unpinned = (0..).zip(cores).filter(|(_, core)| core.is_none());
    let unpinned: Vec<String> = unpinned.map(|(shard, _): (u16, _)| shard.to_string()).collect();
    if unpinned.is_empty() {
        return None;
    }
    let s = if unpinned.len() == 1 { "" } else { "s" };
    Some(format!(
        "the system does not let shard{s} {} be pinned to a core (sched_setaffinity(2) is refused, \
         as by a seccomp profile): the scheduler may move them, which costs throughput",
        unpinned.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pinned_shards_are_said_to_be_pinned() {
        assert_eq!(placement(&[Some(0), Some(1)]), "on cores 0,1");
        assert_eq!(placement(&[Some(0), None, None]), "on cores 0, 2 not pinned");
        assert_eq!(placement(&[None, None]), "not pinned to cores");
        assert_eq!(pinning_note(&[Some(3), Some(4)]), None);
        let note = pinning_note(&[Some(0), None, None]).unwrap();
        assert!(note.starts_with("the system does not let shards 1, 2 be pinned"), "{note}");
    }
}
