//! The filter of the log.

use crate::config::log_filter::{LogDirective, LogFilter, level_words, target_words};
use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::value_type::{FlagArgument, ValueType};

/// Levels of the log, for everything and for single parts of the server.
pub(crate) struct LogFilters;

impl ValueType for LogFilters {
    type Value = LogFilter;

    const ARGUMENT: FlagArgument = FlagArgument::One("FILTER");

    fn parse(&self, raw: &RawValue) -> Result<LogFilter, RejectedValue> {
        let parse =
            |item: &String| LogDirective::parse(item).ok_or_else(|| RejectedValue::item(item));
        let directives: Result<Vec<_>, _> = raw.items()?.iter().map(parse).collect();
        directives.map(LogFilter::of)
    }

    fn expected(&self) -> String {
        let quoted = |words: Vec<&str>| format!("`{}`", words.join("`, `"));
        let [levels, targets] = [level_words().collect(), target_words().collect()].map(quoted);
        format!(
            "levels ({levels}), each for everything or as `TARGET=LEVEL` for one part of the \
             server ({targets}), separated by commas"
        )
    }

    fn display(&self, value: &LogFilter) -> String {
        value.to_string()
    }
}
