//! Floor 7. Where log lines go: one line per event, to stdout, never in anyone's way.
//!
//! - An event is formatted by the thread that has it and written by a thread of its own, so a
//!   stdout that no process reads (a stopped pager, a full pipe) blocks no shard.
//! - What waits is bounded in bytes; lines over the bound are dropped, counted, and the count is
//!   logged as soon as there is room.
//! - Control characters and those that reorder text never reach stdout raw, whatever a client put
//!   into a name: an event is exactly one line, no terminal is steered by it, and no reader is
//!   misled.
//!
//! Texts of clients are made fit for a line where it is written ([`crate::text`]); its form
//! is in `forms`.

mod forms;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::text;

use forms::{JsonLines, TextLines};

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people: time, level, message, fields.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Keeps the log alive; dropped at the end of `main`, it writes what still waits, for at most
/// [`FLUSH_DEADLINE`].
#[derive(Debug)]
#[must_use = "dropping it at once ends the log's flush at exit"]
pub(crate) struct LogGuard(Lines);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, flushed) = bounded(1);
        if self.0.sender.send(Entry::Flush(done)).is_ok() {
            // Past the deadline no process reads stdout: then the exit matters more than the lines.
            let _timeout = flushed.recv_timeout(FLUSH_DEADLINE);
        }
    }
}

/// Changes while the process runs which lines are logged.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Logs everything of Ringwave at INFO, with `debug` at DEBUG, from now on. Lines that are not
    /// wanted cost as little as they did before.
    pub(crate) fn set_debug(&self, debug: bool) {
        // It fails only when the log is gone, and then nothing is logged at any level.
        let _gone = self.0.reload(wanted(debug));
    }
}

/// Starts the log of this process: everything of Ringwave at INFO, with `debug` at DEBUG, and
/// warnings of the libraries below it. Call it once; when a log exists already, that one stays.
///
/// # Errors
/// The writing thread cannot be started.
pub(crate) fn start(debug: bool, format: Format) -> io::Result<(LogGuard, LogLevel)> {
    let stdout = io::stdout();
    let ansi =
        stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let (lines, written) = Lines::new(ansi && format == Format::Text);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || written.write_all_to(stdout))?;
    // A second log in one process (tests) is no error: the first one takes the lines.
    let (subscriber, level) = subscriber(debug, format, lines.clone());
    let _already_started = subscriber.try_init();
    Ok((LogGuard(lines), level))
}

/// How long the exit waits for lines that stdout does not take.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// Bytes of lines that may wait for stdout. At 200 bytes a line, some 20,000 lines.
pub(crate) const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Bytes that go to stdout in one write at most, a last line aside.
const BATCH_BYTES: usize = 64 << 10;

fn subscriber(
    debug: bool,
    format: Format,
    lines: Lines,
) -> (impl Subscriber + Send + Sync, LogLevel) {
    let (wanted, level) = reload::Layer::new(wanted(debug));
    let ansi = lines.ansi;
    let (text, json) = match format {
        Format::Text => {
            let layer = fmt::layer().event_format(TextLines).with_ansi(ansi);
            (Some(layer.with_writer(lines)), None)
        }
        Format::Json => {
            let layer = fmt::layer().json().event_format(JsonLines::new());
            (None, Some(layer.with_writer(lines)))
        }
    };
    (tracing_subscriber::registry().with(wanted).with(text).with(json), LogLevel(level))
}

/// The events that are logged: the one place where `debug` decides anything. Code that would do
/// work for a line at DEBUG asks `tracing::enabled!`.
fn wanted(debug: bool) -> Targets {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    Targets::new().with_default(LevelFilter::WARN).with_target(env!("CARGO_CRATE_NAME"), level)
}

/// The queue between those who log and the thread that writes.
#[derive(Clone, Debug)]
struct Lines {
    sender: Sender<Entry>,
    backlog: Arc<Backlog>,
    /// Colours come as escape sequences of ours, which have to stay.
    ansi: bool,
}

/// The bytes that wait and the lines that were lost, shared by both ends of the queue.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Lines dropped since the last time that this was logged.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

impl Lines {
    fn new(ansi: bool) -> (Self, Written) {
        let (sender, receiver) = unbounded();
        let backlog = Arc::new(Backlog::default());
        (Self { sender, backlog: Arc::clone(&backlog), ansi }, Written { receiver, backlog })
    }

    fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        // Concurrent writers may exceed the bound by a line each, which is still a bound.
        if self.backlog.bytes.load(Ordering::Relaxed).saturating_add(bytes) > BACKLOG_BYTES_MAX {
            self.backlog.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.send(Entry::Line(line)).is_err() {
            self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes one event: the formatter writes each in one call.
struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(one_line(event, self.0.ansi));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The event as one line, with characters escaped that [are unsafe](text::is_unsafe), as JSON
/// escapes them, so that JSON stays JSON. With `ansi`, escape sequences pass: they are colours, the
/// formatter has escaped those that came in values.
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

/// The writing end of the queue.
struct Written {
    receiver: Receiver<Entry>,
    backlog: Arc<Backlog>,
}

impl Written {
    /// Writes lines until no thread can log any more. An output that fails (a closed pipe, a full
    /// disk) loses lines, never the process: there is no better place to report it.
    fn write_all_to(self, mut output: impl Write) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut flushes = Vec::new();
        while let Ok(entry) = self.receiver.recv() {
            let mut next = Some(entry);
            while let Some(entry) = next {
                match entry {
                    Entry::Line(line) => batch.extend_from_slice(&line),
                    Entry::Flush(done) => flushes.push(done),
                }
                next = if batch.len() < BATCH_BYTES { self.receiver.try_recv().ok() } else { None };
            }
            let _lost = output.write_all(&batch).and_then(|()| output.flush());
            self.backlog.bytes.fetch_sub(batch.len(), Ordering::Relaxed);
            batch.clear();
            let lost = self.backlog.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                // Comes back through the queue, in the form of the log.
                tracing::warn!(lines = lost, "log lines lost: stdout took them too slowly");
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

    #[test]
    fn a_name_with_line_breaks_or_escapes_stays_one_line_in_every_form() {
        let name = "a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{8}";
        for format in [Format::Text, Format::Json] {
            let log = logged(false, format, || {
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
        let log = logged(false, Format::Text, || {
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
        let log = logged(false, Format::Json, || tracing::info!(name, %name, count = 3, "said"));
        let (line, end) = log.split_at(log.len() - 1);
        assert_eq!(end, "\n");
        assert!(!line.chars().any(text::is_unsafe), "{line}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["name"], &line["count"]), (&name.into(), &3.into()));
    }

    #[test]
    fn modules_of_ours_are_not_told_and_those_of_libraries_are() {
        for format in [Format::Text, Format::Json] {
            let log = logged(false, format, || {
                tracing::warn!(target: "ringwave::front", "ours");
                tracing::warn!(target: "rustls::client", "theirs");
            });
            assert!(!log.contains("front") && log.contains("rustls::client"), "{log}");
        }
    }

    #[test]
    fn a_json_line_is_an_object_with_level_message_and_fields() {
        let log = logged(false, Format::Json, || {
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
        let quiet = logged(false, Format::Text, events);
        assert!(!quiet.contains("ours debug") && quiet.contains("ours info"), "{quiet}");
        let debug = logged(true, Format::Text, events);
        assert!(debug.contains("ours debug"), "{debug}");
        for log in [quiet, debug] {
            assert!(!log.contains("theirs info") && log.contains("theirs warn"), "{log}");
        }
    }

    #[test]
    fn the_level_changes_while_the_log_runs() {
        let (lines, written) = Lines::new(false);
        let (subscriber, level) = subscriber(false, Format::Text, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            for (debug, text) in [(false, "first"), (true, "second"), (false, "third")] {
                level.set_debug(debug);
                // One place in the source: what was found out about it once has to be found anew.
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
    fn nobody_blocks_on_an_output_that_takes_nothing_and_the_loss_is_told() {
        let (lines, written) = Lines::new(false);
        let long = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            lines.make_writer().write_all(&long).unwrap();
        }
        assert!(lines.backlog.bytes.load(Ordering::Relaxed) <= BACKLOG_BYTES_MAX);
        let output = Shared::default();
        let (sink, log) = (output.clone(), subscriber(false, Format::Text, lines.clone()).0);
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
        let (lines, written) = Lines::new(false);
        let output = Shared::default();
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
        let (lines, written) = Lines::new(false);
        let backlog = Arc::clone(&lines.backlog);
        lines.make_writer().write_all(b"to nobody\n").unwrap();
        drop(lines);
        written.write_all_to(Closed);
        assert_eq!(backlog.bytes.load(Ordering::Relaxed), 0);
    }

    fn logged(debug: bool, format: Format, events: impl FnOnce()) -> String {
        let (lines, written) = Lines::new(false);
        tracing::subscriber::with_default(subscriber(debug, format, lines.clone()).0, events);
        drained(lines, written)
    }

    fn drained(lines: Lines, written: Written) -> String {
        let output = Shared::default();
        drop(lines);
        written.write_all_to(output.clone());
        output.text()
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
