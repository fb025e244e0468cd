//! Parts of sentences that several kinds of refusals share.

use std::fmt;

use crate::apps::Apps;
use crate::text::{Quoted, Shortened, without_signatures};

/// The apps of this server, for an operator who looks for theirs:
/// `this server has the app 780619 with key zhcn…`.
pub(super) struct ServedApps<'a>(pub(super) &'a Apps);

impl fmt::Display for ServedApps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.iter().count();
        match count {
            0 => return f.write_str("this server has no app"),
            1 => f.write_str("this server has the app ")?,
            _ => write!(f, "this server has {count} apps: ")?,
        }
        for (number, app) in self.0.iter().take(APPS_SHOWN).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{} with key {}", app.id, Shortened(&app.rules.key))?;
        }
        match count.checked_sub(APPS_SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Apps that a sentence names: more would make the line too long to read.
const APPS_SHOWN: usize = 3;

/// The value of a limit that was reached. `None`: a reload has removed the limit meanwhile.
pub(super) struct Reached<T>(pub(super) Option<T>);

impl<T: fmt::Display> fmt::Display for Reached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str("(limit removed)"),
        }
    }
}

/// A client's text in quotes, without signatures.
pub(super) fn quoted(text: &str) -> String {
    Quoted(&without_signatures(text)).to_string()
}
