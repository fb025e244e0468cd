//! The threads of the shards, and what each of them has told the control thread so far.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use tokio::sync::mpsc;

use super::StartError;
use super::listen::SocketFiles;
use crate::bus::Outside;
use crate::id::ShardId;
use crate::shard::run::{Milestone, Setup};
use crate::shard::{self, Message};

/// The threads of all shards. Dropped, it removes the files of unix sockets, and leaves the threads
/// to the end of the process.
pub(super) struct Shards {
    threads: Vec<JoinHandle<()>>,
    reports: mpsc::UnboundedReceiver<Report>,
    bus: Outside<Message>,
    /// By shard.
    progress: Vec<Progress>,
    /// The files of unix sockets; none once they are removed.
    files: Option<SocketFiles>,
    /// Zero of the clock of all shards.
    started: Instant,
}

/// The progress of a shard. Each step stays reached.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The core that it is pinned to; `None`: the scheduler places it.
    pub(super) core: Option<usize>,
    /// It accepts.
    pub(super) serving: bool,
    /// See [`Milestone::Emptied`].
    pub(super) emptied: bool,
    /// See [`Milestone::Drained`].
    pub(super) drained: bool,
    /// The time at which its drain last closed a connection.
    last_close: Option<Duration>,
    /// Its thread has nothing left to do.
    ended: bool,
}

/// A report of a shard's thread to the control thread.
enum Report {
    Pinned(ShardId, usize),
    Reached(ShardId, Milestone),
    Failed(ShardId, io::Error),
    Panicked(ShardId),
    Ended(ShardId),
}

impl Shards {
    /// Starts a thread for each, pinned to a core of its own as far as there are as many.
    pub(super) fn start(
        setups: Vec<Setup>,
        bus: Outside<Message>,
        files: SocketFiles,
        started: Instant,
    ) -> Result<Self, StartError> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let (report, reports) = mpsc::unbounded_channel();
        let progress = setups.iter().map(|_| Progress::default()).collect();
        let mut threads = Vec::new();
        for (index, setup) in setups.into_iter().enumerate() {
            let core = cores.get(index % cores.len().max(1)).copied();
            threads.push(spawn(setup, core, report.clone())?);
        }
        Ok(Self { threads, reports, bus, progress, files: Some(files), started })
    }

    /// A way to send to all of them.
    pub(super) fn bus(&self) -> Outside<Message> {
        self.bus.clone()
    }

    /// Waits until every shard has got this far. Cancel-safe.
    pub(super) async fn until(&mut self, reached: fn(&Progress) -> bool) -> Result<(), StartError> {
        while !self.progress.iter().all(reached) {
            self.take_report().await?;
        }
        Ok(())
    }

    /// Waits for ever, unless a shard fails. Cancel-safe.
    pub(super) async fn failure(&mut self) -> StartError {
        loop {
            if let Err(error) = self.take_report().await {
                return error;
            }
        }
    }

    async fn take_report(&mut self) -> Result<(), StartError> {
        let report = self.reports.recv().await;
        let (shard, tell): (_, &dyn Fn(&mut Progress)) = match &report {
            Some(Report::Pinned(shard, core)) => (*shard, &|of| of.core = Some(*core)),
            Some(Report::Reached(shard, Milestone::Serving)) => (*shard, &|of| of.serving = true),
            Some(Report::Reached(shard, Milestone::Emptied(last_close))) => (*shard, &|of| {
                of.emptied = true;
                of.last_close = last_close.map(|at| Duration::from_millis(at.0));
            }),
            Some(Report::Reached(shard, Milestone::Drained)) => (*shard, &|of| of.drained = true),
            Some(Report::Ended(shard)) => (*shard, &|of| of.ended = true),
            Some(Report::Panicked(shard)) => return Err(StartError::Panicked(*shard)),
            Some(Report::Failed(..)) | None => return Err(failed(report)),
        };
        self.progress.get_mut(shard.index()).map(tell);
        Ok(())
    }

    /// The core of each shard; `None` where the system did not let it be pinned.
    pub(super) fn cores(&self) -> Vec<Option<usize>> {
        self.progress.iter().map(|of| of.core).collect()
    }

    /// How long ago a drain has closed a connection last; `None`: it had none to close.
    pub(super) fn since_last_close(&self) -> Option<Duration> {
        let last = self.progress.iter().filter_map(|of| of.last_close).max()?;
        Some(self.started.elapsed().saturating_sub(last))
    }

    /// Removes the files of the unix sockets: from now on no client finds them.
    pub(super) fn remove_socket_files(&mut self) {
        self.files = None;
    }

    /// The shards whose threads have not ended.
    pub(super) fn running(&self) -> Vec<ShardId> {
        let shards = (0..).map(ShardId).zip(&self.progress);
        shards.filter_map(|(shard, of)| (!of.ended).then_some(shard)).collect()
    }

    /// Waits for the ends of all threads, which have been told to stop.
    pub(super) async fn ended(&mut self) {
        // One that failed now ends as well.
        while !self.progress.iter().all(|of| of.ended) && self.take_report().await.is_ok() {}
        for thread in self.threads.drain(..) {
            // A panic was printed when it happened.
            let _panicked = thread.join();
        }
    }
}

fn failed(report: Option<Report>) -> StartError {
    match report {
        Some(Report::Failed(shard, error)) => StartError::Shard(shard, error),
        _ => StartError::Thread(io::ErrorKind::BrokenPipe.into()),
    }
}

fn spawn(
    setup: Setup,
    core: Option<CoreId>,
    report: mpsc::UnboundedSender<Report>,
) -> Result<JoinHandle<()>, StartError> {
    let shard = setup.parts.port.id();
    // The control thread is gone only when the process ends.
    let tell = move |what| drop(report.send(what));
    let body = move || {
        // Not allowed in some containers: then the scheduler places the thread.
        if let Some(core) = core.filter(|&core| core_affinity::set_for_current(core)) {
            tell(Report::Pinned(shard, core.id));
        }
        let reached = tell.clone();
        let reached = move |milestone| reached(Report::Reached(shard, milestone));
        // A shard cannot go on behind a panic, and the others not without it: homes are there.
        match catch_unwind(AssertUnwindSafe(|| shard::run::run(setup, reached))) {
            Ok(Ok(())) => tell(Report::Ended(shard)),
            Ok(Err(error)) => tell(Report::Failed(shard, error)),
            Err(_panic) => tell(Report::Panicked(shard)),
        }
    };
    std::thread::Builder::new()
        .name(format!("shard-{}", shard.0))
        .spawn(body)
        .map_err(StartError::Thread)
}

/// Where the threads of shards run, by the core that each is pinned to: `on cores 0,1`.
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

/// Says that shards could not be pinned, and what to do.
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
    fn only_shards_that_are_pinned_are_told_to_be() {
        assert_eq!(placement(&[Some(0), Some(1)]), "on cores 0,1");
        assert_eq!(placement(&[Some(0), None, None]), "on cores 0, 2 not pinned");
        assert_eq!(placement(&[None, None]), "not pinned to cores");
        assert_eq!(pinning_note(&[Some(3), Some(4)]), None);
        let note = pinning_note(&[Some(0), None, None]).unwrap();
        assert!(note.starts_with("the system does not let shards 1, 2 be pinned"), "{note}");
    }
}
