//! Floor 7. The filter of the log: the least important level that is logged, for the whole server
//! and for single parts of it. An operator writes it as `info,front=debug`.

use std::collections::BTreeMap;
use std::fmt;

use tracing::level_filters::LevelFilter;

/// The levels, by the words that operators give them.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Declares a target for each module of the crate that writes lines.
macro_rules! targets {
    ($($word:literal in $path:expr,)+) => {
        /// The parts of the server that write lines, in the order of their words.
        const TARGETS: &[LogTarget] = &[$(LogTarget { word: $word, path: $path },)+];
    };
}

targets! {
    "cluster" in concat!(env!("CARGO_CRATE_NAME"), "::cluster"),
    "front" in concat!(env!("CARGO_CRATE_NAME"), "::front"),
    "refusals" in concat!(env!("CARGO_CRATE_NAME"), "::refusals"),
    "ring" in "ringwave_ring",
    "server" in concat!(env!("CARGO_CRATE_NAME"), "::server"),
    "shard" in concat!(env!("CARGO_CRATE_NAME"), "::shard"),
    "webhooks" in concat!(env!("CARGO_CRATE_NAME"), "::webhooks"),
}

/// A part of the server that writes lines: a module of the crate, or the package of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogTarget {
    /// The word that operators write.
    word: &'static str,
    /// The path that the targets of its events begin with.
    path: &'static str,
}

impl LogTarget {
    fn parse(word: &str) -> Option<Self> {
        TARGETS.iter().copied().find(|target| target.word == word)
    }
}

/// One part of a filter: `debug`, or `front=debug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogDirective {
    /// The part of the server that the level is for. `None`: everything that has no level of its
    /// own.
    target: Option<LogTarget>,
    level: LevelFilter,
}

impl LogDirective {
    /// Parses a directive. `None` if it is none, or if its target or its level is not known.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (target, level) = match text.split_once('=') {
            Some((word, level)) => (Some(LogTarget::parse(word.trim())?), level),
            None => (None, text),
        };
        let level = level.trim();
        let (_, level) = LEVELS.iter().find(|(word, _)| word.eq_ignore_ascii_case(level))?;
        Some(Self { target, level: *level })
    }
}

impl fmt::Display for LogDirective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = self.target {
            write!(f, "{}=", target.word)?;
        }
        let word = LEVELS.iter().find(|(_, level)| *level == self.level);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// The words of the levels, from the quietest on.
pub(crate) fn level_words() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().map(|&(word, _)| word)
}

/// The words of the targets.
pub(crate) fn target_words() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|target| target.word)
}

/// The levels that are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter {
    /// The level of everything that has no level of its own.
    general: LevelFilter,
    /// The parts of the server that have one.
    by_target: BTreeMap<LogTarget, LevelFilter>,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self { general: LevelFilter::INFO, by_target: BTreeMap::new() }
    }
}

impl LogFilter {
    /// The filter of these directives. Of two for the same target the last one counts.
    pub(crate) fn of(directives: impl IntoIterator<Item = LogDirective>) -> Self {
        let mut filter = Self::default();
        for LogDirective { target, level } in directives {
            match target {
                Some(target) => drop(filter.by_target.insert(target, level)),
                None => filter.general = level,
            }
        }
        filter
    }

    /// This filter after an operator's change: a level for one target leaves the others as they
    /// are, and one for everything replaces the whole filter.
    pub(crate) fn changed_by(&self, change: LogDirective) -> Self {
        match change.target {
            Some(_) => Self::of(self.directives().chain([change])),
            None => Self::of([change]),
        }
    }

    /// This filter, with everything that has no level of its own at DEBUG or below.
    pub(crate) fn with_debug(self) -> Self {
        Self { general: self.general.max(LevelFilter::DEBUG), ..self }
    }

    /// The level of everything that has no level of its own.
    pub(crate) const fn general(&self) -> LevelFilter {
        self.general
    }

    /// The levels of single parts, each with the path that the targets of its events begin with.
    pub(crate) fn by_path(&self) -> impl Iterator<Item = (&'static str, LevelFilter)> {
        self.by_target.iter().map(|(target, &level)| (target.path, level))
    }

    fn directives(&self) -> impl Iterator<Item = LogDirective> {
        let of_target = |(&target, &level): (&LogTarget, &LevelFilter)| LogDirective {
            target: Some(target),
            level,
        };
        let general = LogDirective { target: None, level: self.general };
        std::iter::once(general).chain(self.by_target.iter().map(of_target))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        self.directives().try_for_each(|directive| {
            write!(f, "{}{directive}", std::mem::replace(&mut between, ","))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn filter(text: &str) -> LogFilter {
        LogFilter::of(text.split(',').map(|part| LogDirective::parse(part).unwrap()))
    }

    #[test]
    fn a_filter_is_shown_as_it_can_be_written() {
        for (written, shown) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("webhooks=off,front=debug", "info,front=debug,webhooks=off"),
            ("front=debug, front = trace ,error", "error,front=trace"),
        ] {
            assert_eq!(filter(written).to_string(), shown);
            assert_eq!(filter(shown), filter(written));
        }
        for wrong in ["", "loud", "front", "front=", "=debug", "fornt=debug", "front=debug=info"] {
            assert_eq!(LogDirective::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_of_one_target_leaves_the_others_and_one_of_everything_replaces_them() {
        let change = |before: &str, change: &str| {
            filter(before).changed_by(LogDirective::parse(change).unwrap()).to_string()
        };
        assert_eq!(change("warn,shard=debug", "front=debug"), "warn,front=debug,shard=debug");
        assert_eq!(change("warn,shard=debug", "shard=info"), "warn,shard=info");
        assert_eq!(change("warn,shard=debug", "info"), "info");
    }

    #[test]
    fn debug_lowers_the_general_level_and_never_raises_it() {
        assert_eq!(filter("warn,front=error").with_debug().to_string(), "debug,front=error");
        assert_eq!(filter("trace").with_debug().to_string(), "trace");
    }

    #[test]
    fn every_module_that_writes_lines_is_a_target_and_no_other_one() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let writing = fs::read_dir(&source).unwrap().filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.to_owned();
            (path.is_dir() && writes_lines(&path)).then_some(name)
        });
        let writing: BTreeSet<String> = writing.collect();
        let targets: BTreeSet<String> = target_words().map(str::to_owned).collect();
        assert_eq!(writing, targets);
    }

    /// Whether a file below this directory has an event in it, outside of its tests.
    fn writes_lines(directory: &Path) -> bool {
        fs::read_dir(directory).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return writes_lines(&path);
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let levels = ["error!(", "warn!(", "info!(", "debug!("];
            levels.iter().any(|level| {
                code.contains(&format!("tracing::{level}"))
                    || (code.contains("use tracing::") && code.contains(&format!(" {level}")))
            })
        })
    }
}
