//! Several nodes over Redis act as one server, whatever fails.

/// The tools of the tests themselves.
mod harness;
