//! Floor 8. The signals that ask the process to end, gracefully or at once, or to read its
//! configuration again.
//!
//! - SIGTERM or SIGINT: [`Signal::Drain`]; a second one of either: [`Signal::Now`].
//! - SIGHUP: [`Signal::Reload`]; from a terminal that closes, or to a process whose terminal has
//!   closed: [`Signal::Drain`]. It never cuts a drain short, because shells, terminals and systemd
//!   (`SendSIGHUP=`) send it in addition to another one. Under nohup(1), which starts its child
//!   with SIGHUP ignored, it has no effect, and the log says so.
//! - SIGUSR1 and SIGUSR2, which scripts that rotate logs send, have no effect, and the log says so.
//!   By default they would end the process.
//! - SIGTSTP, SIGQUIT and all others keep their default action.

use std::io;

use tokio::signal::unix::{self, SignalKind};

use super::proc_status::{ProcStatus, has_terminal};

/// A request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Read the configuration again. Never comes during a drain.
    Reload,
    /// Finish what is in flight, close all connections, then exit with 0. Comes once.
    Drain,
    /// Exit at once.
    Now {
        /// 128 and the number of the signal, as shells count it: 143 or 130.
        exit_code: u8,
    },
}

/// The signals of this process. There is one value, in the runtime of the control thread.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user: [unix::Signal; 2],
    /// SIGHUP was ignored at the start (nohup) and stays without effect.
    nohup: bool,
    /// The process was started in a terminal.
    terminal: bool,
    draining: bool,
}

impl Signals {
    /// Takes over the signals.
    ///
    /// # Errors
    /// There is no tokio runtime with I/O, or the system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        // Asking tokio for a signal replaces its inherited disposition, so this comes first.
        let nohup = ProcStatus::read().ignores(libc::SIGHUP);
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            user: [
                unix::signal(SignalKind::user_defined1())?,
                unix::signal(SignalKind::user_defined2())?,
            ],
            nohup,
            terminal: has_terminal(),
            draining: false,
        })
    }

    /// Waits for the next signal that asks for anything. Cancel-safe: a signal that came is not
    /// lost with the future.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            let [first_user, second_user] = &mut self.user;
            let number = tokio::select! {
                _ = self.terminate.recv() => libc::SIGTERM,
                _ = self.interrupt.recv() => libc::SIGINT,
                _ = self.hangup.recv() => libc::SIGHUP,
                _ = first_user.recv() => libc::SIGUSR1,
                _ = second_user.recv() => libc::SIGUSR2,
            };
            if let Some(signal) = self.meaning(number) {
                return signal;
            }
        }
    }

    /// The request that a signal makes now, if it makes any.
    fn meaning(&mut self, number: i32) -> Option<Signal> {
        match number {
            libc::SIGUSR1 | libc::SIGUSR2 => {
                let name = if number == libc::SIGUSR1 { "SIGUSR1" } else { "SIGUSR2" };
                tracing::info!(
                    "{name} was ignored: it has no meaning here. SIGHUP reads the configuration again"
                );
                return None;
            }
            libc::SIGHUP if self.nohup => {
                tracing::info!(
                    "SIGHUP was ignored, as it was when the server was started (nohup): \
                     `ringwave reload` reads the configuration again"
                );
                return None;
            }
            _ => {}
        }
        if number == libc::SIGHUP && !self.terminal_closed() {
            return (!self.draining).then_some(Signal::Reload);
        }
        let first = !std::mem::replace(&mut self.draining, true);
        match number {
            _ if first => Some(Signal::Drain),
            libc::SIGHUP => None,
            libc::SIGINT => Some(Signal::Now { exit_code: 130 }),
            _ => Some(Signal::Now { exit_code: 143 }),
        }
    }

    /// Whether the terminal of the process has closed. A daemon never had one.
    fn terminal_closed(&self) -> bool {
        self.terminal && !has_terminal()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use rustix::process::{Signal as Sent, getpid, kill_process};

    use super::*;

    // Each signal is awaited before the next one is sent. One test, because signals go to the whole
    // process and the tests share it.
    #[test]
    fn a_hangup_reloads_the_first_signal_drains_a_hangup_does_not_hurry_and_the_second_ends() {
        for (second, exit_code) in [(Sent::INT, 130), (Sent::TERM, 143)] {
            for first in [Sent::TERM, Sent::INT] {
                in_runtime(async {
                    let mut signals = Signals::new().unwrap();
                    // Not when the tests themselves run under nohup.
                    if !signals.nohup {
                        for _ in 0..2 {
                            kill_process(getpid(), Sent::HUP).unwrap();
                            assert_eq!(signals.next().await, Signal::Reload);
                        }
                    }
                    kill_process(getpid(), first).unwrap();
                    assert_eq!(signals.next().await, Signal::Drain);
                    if !signals.nohup {
                        let mut witness = unix::signal(SignalKind::hangup()).unwrap();
                        kill_process(getpid(), Sent::HUP).unwrap();
                        witness.recv().await;
                    }
                    kill_process(getpid(), second).unwrap();
                    assert_eq!(signals.next().await, Signal::Now { exit_code });
                });
            }
        }
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }
}
