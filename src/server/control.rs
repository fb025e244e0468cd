//! The control thread once the shards run: signals, requests of the control socket, failures of
//! shards, and the stop.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::cluster::{self, ClusterStatus};
use crate::shard::{self, Drain};

use super::admin::{AdminCommand, AdminRequest};
use super::monitor::Phase;
use super::notify::ServiceManager;
use super::reload::Reloader;
use super::shards::{ShardError, Shards};
use super::signals::{Signal, Signals};
use super::status::{ServerState, StatusReporter};
use super::stop;

/// Everything that the control thread works with while the shards run.
pub(super) struct Control<'a> {
    pub(super) signals: Signals,
    /// Requests of the control socket.
    pub(super) requests: mpsc::Receiver<AdminRequest>,
    pub(super) shards: Shards,
    /// The status of the cluster, which ends with its thread; `None` if the server stands alone.
    pub(super) cluster: Option<watch::Receiver<ClusterStatus>>,
    pub(super) reporter: StatusReporter,
    pub(super) reloader: Reloader<'a>,
    pub(super) manager: Arc<ServiceManager>,
    /// The phase of the process, for health checks.
    pub(super) phase: watch::Sender<Phase>,
    /// The listeners outlive the process, because a service manager holds them.
    pub(super) inherited: bool,
}

impl Control<'_> {
    /// Serves until a signal ends the process. Returns its exit code.
    ///
    /// # Errors
    /// A shard has failed.
    pub(super) async fn run(mut self) -> Result<ExitCode, ShardError> {
        match self.serve().await? {
            Signal::Now { exit_code } => Ok(ExitCode::from(exit_code)),
            Signal::Drain | Signal::Reload => self.stop().await,
        }
    }

    /// Returns the first signal that ends the process.
    async fn serve(&mut self) -> Result<Signal, ShardError> {
        let Self { signals, requests, shards, cluster, reporter, reloader, manager, .. } = self;
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => reloader.reload(manager, None),
                    end => return Ok(end),
                },
                Some(request) = requests.recv() => match request.command() {
                    AdminCommand::Reload => reloader.reload(manager, Some(request)),
                    AdminCommand::Status => {
                        reporter.answer(request, reloader.apps(), ServerState::Serving);
                    }
                    AdminCommand::Log(change) => {
                        request.answer_later(Ok(reloader.change_log(change)));
                    }
                },
                failure = shards.failure() => return Err(failure),
                () = cluster::ended(cluster) => return Err(ShardError::ClusterPanicked),
            }
        }
    }

    /// Stops in order. Another signal ends the process at once.
    async fn stop(self) -> Result<ExitCode, ShardError> {
        let Self {
            mut signals,
            mut requests,
            mut shards,
            reporter,
            reloader,
            manager,
            phase,
            inherited,
            ..
        } = self;
        phase.send_replace(Phase::Draining);
        let apps = Arc::clone(reloader.apps());
        let connections = apps.iter().map(|app| u64::from(app.counters.connections())).sum();
        let window = shard::closing_window(reloader.shutdown_window(), connections);
        let drain = Drain { window, successor: inherited };
        let shown = format!("{}s", window.as_secs_f64());
        tracing::info!(connections, window = %shown, "Gracefully terminating connections.");
        manager.stopping(stop::patience(drain));
        // While connections drain, shards still have to hear how much memory is left.
        let (workers, _memory_watch) = reloader.into_workers();
        let mut stopping = pin!(stop::run(&mut shards, workers, drain));
        loop {
            tokio::select! {
                ended = &mut stopping => return ended.map(|()| ExitCode::SUCCESS),
                signal = signals.next() => if let Signal::Now { exit_code } = signal {
                    return Ok(ExitCode::from(exit_code));
                },
                Some(request) = requests.recv() => match request.command() {
                    AdminCommand::Reload | AdminCommand::Log(_) => {
                        request.refuse("the server stops");
                    }
                    AdminCommand::Status => {
                        reporter.answer(request, &apps, ServerState::Stopping);
                    }
                },
            }
        }
    }
}
