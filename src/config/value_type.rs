//! Floor 7. The contract between a setting and the type of its value: how text of an operator
//! becomes a value, which values are taken, and how a value is written.

use super::raw_value::{RawValue, RejectedValue};

/// The type of a setting's values.
///
/// The sources give a [`RawValue`]; [`parse`](Self::parse) makes the value of it. The other
/// functions are for people: [`expected`](Self::expected) ends error messages, the table of the
/// manual and `--help`, [`display`](Self::display) is what `ringwave check` prints.
pub(super) trait ValueType: Sync {
    /// The type that the rest of the program works with.
    type Value;

    /// Whether values are withheld wherever they could be read.
    const SECRET: bool = false;

    /// How a flag of the command line gives a value.
    const ARGUMENT: FlagArgument = FlagArgument::One("TEXT");

    /// Parses a value, or returns the part of it that is not taken.
    fn parse(&self, raw: &RawValue) -> Result<Self::Value, RejectedValue>;

    /// The values that are taken, in words that end the sentence "it takes ...".
    fn expected(&self) -> String;

    /// The value as an operator would write it.
    fn display(&self, value: &Self::Value) -> String;

    /// Text that is equal for equal values only, to find out whether a value has changed. It may
    /// hold a secret, so it is never shown.
    fn canonical(&self, value: &Self::Value) -> String {
        self.display(value)
    }
}

/// The argument that follows a flag on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagArgument {
    /// Nothing: the flag turns a switch on.
    Switch,
    /// One value, which `--help` calls by this word.
    One(&'static str),
    /// One value; the flag may be repeated.
    Many(&'static str),
}
