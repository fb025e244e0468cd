//! The wall clock, by which the signatures of requests are judged.

use std::cell::{Ref, RefCell};
use std::fmt::Write;
use std::ops::Deref;
use std::time::SystemTime;

use httpdate::HttpDate;

/// The value of the header `Date` (RFC 9110 section 6.6.1), which is written once a second.
#[derive(Debug, Default)]
pub(super) struct Date(RefCell<(u64, String)>);

impl Date {
    /// The time of now.
    pub(super) fn now(&self) -> impl Deref<Target = String> {
        let now = SystemTime::now();
        let unix_s = since_epoch_s(now);
        let mut last = self.0.borrow_mut();
        let (second, text) = &mut *last;
        if *second != unix_s || text.is_empty() {
            *second = unix_s;
            text.clear();
            // Writing to a text cannot fail.
            let _written = write!(text, "{}", HttpDate::from(now));
        }
        drop(last);
        Ref::map(self.0.borrow(), |(_, text)| text)
    }
}

/// The Unix time in seconds.
pub(super) fn now_unix_s() -> u64 {
    since_epoch_s(SystemTime::now())
}

fn since_epoch_s(now: SystemTime) -> u64 {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
}
