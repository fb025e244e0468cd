//! Values that are whole numbers: counts, sizes and lengths of time.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::units::NumberUnit;
use crate::config::value_type::{FlagArgument, ValueType};

/// A whole number that fits `T`, between two bounds, in the unit that it counts in or another.
pub(crate) struct Whole<T> {
    min: u64,
    max: u64,
    unit: NumberUnit,
    fits: PhantomData<fn() -> T>,
}

impl<T> Whole<T> {
    pub(crate) const fn count(min: u64, max: u64) -> Self {
        Self { min, max, unit: NumberUnit::Count, fits: PhantomData }
    }

    pub(crate) const fn bytes(min: u64, max: u64) -> Self {
        Self { min, max, unit: NumberUnit::Bytes, fits: PhantomData }
    }

    pub(crate) const fn seconds(min: u64, max: u64) -> Self {
        Self { min, max, unit: NumberUnit::Seconds, fits: PhantomData }
    }

    pub(crate) const fn milliseconds(min: u64, max: u64) -> Self {
        Self { min, max, unit: NumberUnit::Milliseconds, fits: PhantomData }
    }
}

impl<T: TryFrom<u64> + fmt::Display> ValueType for Whole<T> {
    type Value = T;

    const ARGUMENT: FlagArgument = FlagArgument::One("NUMBER");

    fn parse(&self, raw: &RawValue) -> Result<T, RejectedValue> {
        let number = match raw {
            RawValue::Integer(number) => u64::try_from(*number).ok(),
            RawValue::Text(text) => self.unit.read(text),
            _ => None,
        };
        number
            .filter(|number| (self.min..=self.max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        self.unit.range(self.min, self.max)
    }

    fn display(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A length of time in whole seconds.
pub(crate) struct Seconds(Whole<u64>);

impl Seconds {
    pub(crate) const fn range(min: u64, max: u64) -> Self {
        Self(Whole::seconds(min, max))
    }
}

impl ValueType for Seconds {
    type Value = Duration;

    const ARGUMENT: FlagArgument = FlagArgument::One("TIME");

    fn parse(&self, raw: &RawValue) -> Result<Duration, RejectedValue> {
        self.0.parse(raw).map(Duration::from_secs)
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn display(&self, value: &Duration) -> String {
        value.as_secs().to_string()
    }
}
