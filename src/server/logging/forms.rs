//! The two forms of a log line.
//!
//! A line of text is the time, the level, the message, and the fields as `name=value`. A value with
//! a space, a quote or the like stands in quotes, so that no value can pass for another field.
//! Characters that could end the line, steer a terminal or reorder the text are escaped. The module
//! of Ringwave that logged the line is not shown, because it means nothing to an operator; that of
//! a library is.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

use crate::text;

/// Lines for people.
#[derive(Debug)]
pub(super) struct TextLines;

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = TextFields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = metadata.level();
        if to.has_ansi_escapes() {
            to.write_str(DIM)?;
            SystemTime.format_time(&mut to)?;
            write!(to, "{PLAIN} {}{level:>5}{PLAIN} ", colour(*level))?;
        } else {
            SystemTime.format_time(&mut to)?;
            write!(to, " {level:>5} ")?;
        }
        if !is_ours(metadata) {
            write!(to, "{}: ", metadata.target())?;
        }
        let TextFields { message, fields } = fields;
        writeln!(to, "{message}{fields}")
    }
}

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

/// Whether the event is of this crate or of a package beside it, such as `ringwave_ring`.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let rest = metadata.target().strip_prefix(env!("CARGO_CRATE_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

/// The fields of an event as text.
#[derive(Default)]
struct TextFields {
    message: String,
    /// Each behind a space.
    fields: String,
}

impl TextFields {
    fn add(&mut self, field: &Field, value: &str) {
        // Writing into a string cannot fail.
        let _always = match field.name() {
            "message" => {
                value.chars().try_for_each(|char| text::write_escaped(&mut self.message, char))
            }
            // The place in the source of a library that uses the `log` crate.
            name if name.starts_with("log.") => Ok(()),
            name if text::is_plain(value) => write!(self.fields, " {name}={value}"),
            name => write!(self.fields, " {name}=\"")
                .and_then(|()| text::write_quoted(&mut self.fields, value))
                .and_then(|()| self.fields.write_char('"')),
        };
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// One JSON object per line.
#[derive(Debug)]
pub(super) struct JsonLines {
    ours: Format<Json>,
    libraries: Format<Json>,
}

impl JsonLines {
    pub(super) fn new() -> Self {
        let libraries = || format().json().flatten_event(true);
        Self { ours: libraries().with_target(false), libraries: libraries() }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let form = if is_ours(event.metadata()) { &self.ours } else { &self.libraries };
        form.format_event(context, to, event)
    }
}
