//! Floor 8. The log: one line per event on stdout, without delaying the thread that logs.
//!
//! - An event is formatted by the thread that logs it and written by the log's own thread, so a
//!   stdout that no process reads (a stopped pager, a full pipe) blocks no shard.
//! - Lines that wait are bounded in bytes. Lines over the bound are dropped and counted, and the
//!   count is logged as soon as there is room.
//! - Control characters, and those that reorder text, never reach stdout raw, whatever a client put
//!   into a name: an event is exactly one line, and cannot steer a terminal or mislead a reader.
//!
//! The texts of clients are cut and escaped where they are logged ([`crate::text`]). The forms of a
//! line are in `forms`.

mod forms;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFilter, LogFormat};
use crate::text;

use forms::{JsonLines, TextLines};

/// Flushes the log when it is dropped, at the end of the process, for at most [`FLUSH_DEADLINE`].
#[derive(Debug)]
#[must_use = "lines that wait are flushed when it is dropped"]
pub(crate) struct LogGuard(LogQueue);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, flushed) = bounded(1);
        if self.0.sender.send(LogEntry::Flush(done)).is_ok() {
            // If stdout is not read until the deadline, the exit matters more than the lines.
            let _timeout = flushed.recv_timeout(FLUSH_DEADLINE);
        }
    }
}

/// The filter that the log runs by, which can be changed while the process runs.
#[derive(Debug)]
pub(crate) struct FilterInForce {
    filter: LogFilter,
    log: reload::Handle<Targets, Registry>,
}

impl FilterInForce {
    /// The filter.
    pub(crate) const fn get(&self) -> &LogFilter {
        &self.filter
    }

    /// Logs by another filter from now on. Lines that are not logged cost as little as before.
    pub(crate) fn set(&mut self, filter: LogFilter) {
        // It fails only if the log is gone, and then nothing is logged at any level.
        let _gone = self.log.reload(wanted(&filter));
        self.filter = filter;
    }
}

/// Starts the log of this process: what the filter lets through of Ringwave, and warnings of
/// libraries. Call it once; if a log exists already, that one stays.
///
/// # Errors
/// The writing thread cannot be started.
pub(crate) fn start(filter: LogFilter, format: LogFormat) -> io::Result<(LogGuard, FilterInForce)> {
    let stdout = io::stdout();
    let ansi =
        stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let (lines, written) = LogQueue::new(ansi && format == LogFormat::Text);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || written.write_all_to(stdout))?;
    // A second log in one process (tests) is no error: the first one takes the lines.
    let (subscriber, filter) = subscriber(filter, format, lines.clone());
    let _already_started = subscriber.try_init();
    Ok((LogGuard(lines), filter))
}

/// The time for which the exit waits for lines that stdout does not take.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// Bytes of lines that may wait for stdout. At 200 bytes a line, some 20,000 lines.
pub(crate) const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Bytes after which a write to stdout takes no more lines.
const BATCH_BYTES: usize = 64 << 10;

fn subscriber(
    filter: LogFilter,
    format: LogFormat,
    lines: LogQueue,
) -> (impl Subscriber + Send + Sync, FilterInForce) {
    let (wanted, log) = reload::Layer::new(wanted(&filter));
    let ansi = lines.ansi;
    let (text, json) = match format {
        LogFormat::Text => {
            let layer = fmt::layer().event_format(TextLines).with_ansi(ansi);
            (Some(layer.with_writer(lines)), None)
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().event_format(JsonLines::new());
            (None, Some(layer.with_writer(lines)))
        }
    };
    let subscriber = tracing_subscriber::registry().with(wanted).with(text).with(json);
    (subscriber, FilterInForce { filter, log })
}

/// The events that are logged. Libraries are held to warnings at every level, because their lines
/// below that are about themselves. Code that would do work for a line asks `tracing::enabled!`.
fn wanted(filter: &LogFilter) -> Targets {
    let general = filter.general();
    Targets::new()
        .with_default(general.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), general)
        .with_targets(filter.by_path())
}

/// The sending end of the queue between the threads that log and the thread that writes.
#[derive(Clone, Debug)]
struct LogQueue {
    sender: Sender<LogEntry>,
    backlog: Arc<LogBacklog>,
    /// The formatter writes colours as escape sequences, which have to stay.
    ansi: bool,
}

/// The numbers that both ends of the queue share.
#[derive(Debug, Default)]
struct LogBacklog {
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// Lines that were dropped since the count was last logged.
    lost: AtomicU64,
}

/// An entry of the queue.
#[derive(Debug)]
enum LogEntry {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

impl LogQueue {
    fn new(ansi: bool) -> (Self, LogWriter) {
        let (sender, receiver) = unbounded();
        let backlog = Arc::new(LogBacklog::default());
        (Self { sender, backlog: Arc::clone(&backlog), ansi }, LogWriter { receiver, backlog })
    }

    fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        // Concurrent threads may exceed the bound by a line each, which is still a bound.
        if self.backlog.bytes.load(Ordering::Relaxed).saturating_add(bytes) > BACKLOG_BYTES_MAX {
            self.backlog.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.send(LogEntry::Line(line)).is_err() {
            self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Takes one event, which the formatter writes in one call.
struct LineWriter<'a>(&'a LogQueue);

impl Write for LineWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(one_line(event, self.0.ansi));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The event as one line, with [unsafe](text::is_unsafe) characters escaped as JSON escapes them,
/// so that JSON stays JSON. With `ansi`, escape sequences pass, because they are colours: the
/// formatter has escaped those in values.
fn one_line(event: &[u8], ansi: bool) -> Vec<u8> {
    let event = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
    let mut line = String::with_capacity(event.len() + 1);
    for char in event.chars() {
        match char {
            '\x1b' if ansi => line.push(char),
            '\t' => line.push(char),
            // Writing into a string cannot fail.
            _ => text::write_escaped(&mut line, char).unwrap_or_default(),
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// The receiving end of the queue.
struct LogWriter {
    receiver: Receiver<LogEntry>,
    backlog: Arc<LogBacklog>,
}

impl LogWriter {
    /// Writes lines until no thread can log any more. If the output fails (a closed pipe, a full
    /// disk), lines are lost, because there is no better place to report it.
    fn write_all_to(self, mut output: impl Write) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut flushes = Vec::new();
        while let Ok(entry) = self.receiver.recv() {
            let mut next = Some(entry);
            while let Some(entry) = next {
                match entry {
                    LogEntry::Line(line) => batch.extend_from_slice(&line),
                    LogEntry::Flush(done) => flushes.push(done),
                }
                next = if batch.len() < BATCH_BYTES { self.receiver.try_recv().ok() } else { None };
            }
            let _lost = output.write_all(&batch).and_then(|()| output.flush());
            self.backlog.bytes.fetch_sub(batch.len(), Ordering::Relaxed);
            batch.clear();
            let lost = self.backlog.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                // The line comes back through the queue, in the form of the log.
                tracing::warn!(lines = lost, "log lines lost: stdout is read too slowly");
            }
            if self.receiver.is_empty() {
                for done in flushes.drain(..) {
                    let _gone = done.send(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::LogDirective;

    #[test]
    fn a_name_with_line_breaks_or_escapes_stays_one_line_in_every_form() {
        let name = "a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{8}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged("info", format, || {
                tracing::info!(target: "ringwave::front", ?name, "debug field");
                tracing::info!(target: "ringwave::front", %name, "display field");
                tracing::info!(target: "ringwave::front", "message {name}");
            });
            assert_eq!(log.lines().count(), 3, "{log}");
            assert!(log.ends_with('\n'));
            assert!(!log.replace('\n', "").chars().any(char::is_control), "{log:?}");
            assert!(log.contains(r"a\r\n2026-01-01 ERROR forged"), "{log}");
        }
    }

    #[test]
    fn no_value_can_pass_for_another_field_and_a_plain_one_has_no_quotes() {
        let log = logged("info", LogFormat::Text, || {
            let name = r#"x app=forged "y" \"#;
            tracing::info!(name, %name, plain = "App\\Seen", empty = "", count = 3, "said");
            tracing::info!(name = "a\u{202e}b\u{2028}c", "said");
        });
        let quoted = r#"name="x app=forged \"y\" \\""#;
        let expected = format!(r#" INFO said {quoted} {quoted} plain=App\Seen empty="" count=3"#);
        let mut lines = log.lines();
        assert!(lines.next().unwrap().ends_with(&expected), "{log}");
        assert!(lines.next().unwrap().ends_with(r#" INFO said name="a\u202eb\u2028c""#), "{log}");
    }

    #[test]
    fn a_json_line_stays_json_whatever_is_in_a_value_and_its_strings_are_strings() {
        let name = "a \"b\" \u{7f}\u{85}\u{2028}\u{202e}\\ größer";
        let log =
            logged("info", LogFormat::Json, || tracing::info!(name, %name, count = 3, "said"));
        let (line, end) = log.split_at(log.len() - 1);
        assert_eq!(end, "\n");
        assert!(!line.chars().any(text::is_unsafe), "{line}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["name"], &line["count"]), (&name.into(), &3.into()));
    }

    #[test]
    fn modules_of_libraries_are_shown_and_those_of_ringwave_are_not() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged("info", format, || {
                tracing::warn!(target: "ringwave::front", "ours");
                tracing::warn!(target: "rustls::client", "theirs");
            });
            assert!(!log.contains("front") && log.contains("rustls::client"), "{log}");
        }
    }

    #[test]
    fn a_json_line_is_an_object_with_level_message_and_fields() {
        let log = logged("info", LogFormat::Json, || {
            tracing::warn!(target: "ringwave::shard", shard = 3, "table full");
        });
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "table full");
        assert_eq!(line["shard"], 3);
    }

    #[test]
    fn debug_lines_are_ours_alone_and_only_when_asked_for() {
        let events = || {
            tracing::debug!(target: "ringwave::plane", "ours debug");
            tracing::info!(target: "ringwave::plane", "ours info");
            tracing::info!(target: "hyper::proto", "theirs info");
            tracing::warn!(target: "tokio::runtime", "theirs warn");
        };
        let quiet = logged("info", LogFormat::Text, events);
        assert!(!quiet.contains("ours debug") && quiet.contains("ours info"), "{quiet}");
        let debug = logged("debug", LogFormat::Text, events);
        assert!(debug.contains("ours debug"), "{debug}");
        for log in [quiet, debug] {
            assert!(!log.contains("theirs info") && log.contains("theirs warn"), "{log}");
        }
    }

    #[test]
    fn each_part_has_its_own_level_and_libraries_never_more_than_the_rest() {
        let events = || {
            tracing::debug!(target: "ringwave::front::service", "front debug");
            tracing::debug!(target: "ringwave::shard", "shard debug");
            tracing::info!(target: "ringwave::shard", "shard info");
            tracing::warn!(target: "ringwave_ring::uring", "ring warn");
            tracing::error!(target: "ringwave_ring::uring", "ring error");
            tracing::warn!(target: "tokio::runtime", "theirs warn");
        };
        let lines = |levels: &str| {
            let log = logged(levels, LogFormat::Text, events);
            log.lines().map(|line| line.get(28..).unwrap().to_owned()).collect::<Vec<_>>()
        };
        let shown = ["DEBUG front debug", " INFO shard info", "ERROR ring error"];
        assert_eq!(lines("info,front=debug,ring=error")[..3], shown);
        assert_eq!(lines("error"), ["ERROR ring error"]);
        assert_eq!(lines("off,ring=warn"), [" WARN ring warn", "ERROR ring error"]);
    }

    #[test]
    fn the_level_changes_while_the_log_runs() {
        let (lines, written) = LogQueue::new(false);
        let (subscriber, mut in_force) = subscriber(filter("info"), LogFormat::Text, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            for (level, text) in [("info", "first"), ("debug", "second"), ("warn", "third")] {
                in_force.set(filter(level));
                assert_eq!(in_force.get().to_string(), level);
                // One call site, whose cached level has to be updated.
                tracing::debug!(target: "ringwave::plane", "{text}");
            }
        });
        let log = drained(lines, written);
        assert!(log.lines().count() == 1 && log.contains("second"), "{log}");
    }

    #[test]
    fn colours_pass_for_a_terminal_and_only_there() {
        assert_eq!(one_line(b"\x1b[32mINFO\x1b[0m\n", true), b"\x1b[32mINFO\x1b[0m\n");
        assert_eq!(one_line(b"\x1b[32mINFO\n", false), b"\\u001b[32mINFO\n");
        assert_eq!(one_line("größer\tals\n".as_bytes(), false), "größer\tals\n".as_bytes());
    }

    #[test]
    fn no_thread_blocks_on_an_output_that_takes_nothing_and_the_loss_is_logged() {
        let (lines, written) = LogQueue::new(false);
        let long = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            lines.make_writer().write_all(&long).unwrap();
        }
        assert!(lines.backlog.bytes.load(Ordering::Relaxed) <= BACKLOG_BYTES_MAX);
        let output = SharedBuffer::default();
        let (sink, log) =
            (output.clone(), subscriber(filter("info"), LogFormat::Text, lines.clone()).0);
        std::thread::spawn(move || {
            tracing::subscriber::with_default(log, || written.write_all_to(sink));
        });
        drop(LogGuard(lines));
        let log = output.text();
        assert_eq!(log.lines().filter(|line| line.starts_with('x')).count(), 3);
        assert!(log.contains("log lines lost") && log.contains("lines=7"), "seven did not fit");
    }

    #[test]
    fn lines_that_wait_are_written_before_the_guard_is_gone() {
        let (lines, written) = LogQueue::new(false);
        let output = SharedBuffer::default();
        let sink = output.clone();
        let writer = std::thread::spawn(move || written.write_all_to(sink));
        lines.make_writer().write_all(b"last words\n").unwrap();
        drop(LogGuard(lines));
        assert_eq!(output.text(), "last words\n");
        writer.join().unwrap();
    }

    #[test]
    fn a_failing_output_loses_lines_and_nothing_else() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (lines, written) = LogQueue::new(false);
        let backlog = Arc::clone(&lines.backlog);
        lines.make_writer().write_all(b"to nobody\n").unwrap();
        drop(lines);
        written.write_all_to(Closed);
        assert_eq!(backlog.bytes.load(Ordering::Relaxed), 0);
    }

    fn filter(text: &str) -> LogFilter {
        let directives = text.split(',').map(|part| LogDirective::parse(part).unwrap());
        LogFilter::of(directives)
    }

    fn logged(levels: &str, format: LogFormat, events: impl FnOnce()) -> String {
        let (lines, written) = LogQueue::new(false);
        let subscriber = subscriber(filter(levels), format, lines.clone()).0;
        tracing::subscriber::with_default(subscriber, events);
        drained(lines, written)
    }

    fn drained(lines: LogQueue, written: LogWriter) -> String {
        let output = SharedBuffer::default();
        drop(lines);
        written.write_all_to(output.clone());
        output.text()
    }

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl SharedBuffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
