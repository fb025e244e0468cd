//! Limits that soketi and sockudo have under names and units of their own.

use super::error::ImportError;
use super::loose::{Field, Object, whole};
use super::writer::TomlWriter;

/// The settings that bound the data of an event, from the API or from a client.
pub(super) const EVENT_DATA: [&str; 2] = ["app.max_event_data", "app.max_client_event_data"];

/// The size of a request to the API, in MiB in both servers.
pub(super) const REQUEST_SIZE: ImportedLimit = ImportedLimit {
    names: &[],
    settings: &["server.max_request_size"],
    unit: ImportedUnit::Mebibytes,
    unlimited: Unlimited::Never,
};

/// A limit of the input and the settings that keep it.
pub(super) struct ImportedLimit {
    /// Its names in the input: databases and environments of soketi spell them differently.
    pub(super) names: &'static [&'static str],
    /// The settings, as they are declared.
    pub(super) settings: &'static [&'static str],
    pub(super) unit: ImportedUnit,
    pub(super) unlimited: Unlimited,
}

/// The unit of a limit in the input. Fractions are rounded down: a limit never becomes wider.
#[derive(Clone, Copy)]
pub(super) enum ImportedUnit {
    One,
    Kibibytes,
    Mebibytes,
    Milliseconds,
}

/// Values of the input that stand for no limit.
#[derive(Clone, Copy)]
pub(super) enum Unlimited {
    /// Any number below 0.
    Negative,
    /// 0 and any number below.
    ZeroOrLess,
    /// None: the limit is absent or a number.
    Never,
}

impl ImportedUnit {
    /// The number in the unit of the settings: pieces, bytes or seconds.
    pub(super) fn convert(self, number: f64) -> f64 {
        let converted = match self {
            Self::One => number,
            Self::Kibibytes => number * 1024.0,
            Self::Mebibytes => number * 1024.0 * 1024.0,
            Self::Milliseconds => number / 1000.0,
        };
        converted.floor()
    }
}

impl Unlimited {
    pub(super) fn is(self, number: f64) -> bool {
        match self {
            Self::Negative => number < 0.0,
            Self::ZeroOrLess => number <= 0.0,
            Self::Never => false,
        }
    }
}

impl ImportedLimit {
    /// Takes the limit of an object and writes it.
    pub(super) fn carry(
        &self,
        out: &mut TomlWriter,
        object: &mut Object<'_>,
    ) -> Result<(), ImportError> {
        self.carry_field(out, &object.take_any(self.names))
    }

    /// Writes the limit that this field has, or else the default of the other server.
    pub(super) fn carry_or(
        &self,
        out: &mut TomlWriter,
        field: &Field<'_>,
        default: f64,
    ) -> Result<(), ImportError> {
        if field.number()?.is_some() {
            return self.carry_field(out, field);
        }
        let raw = whole(self.unit.convert(default));
        self.settings.iter().for_each(|setting| out.value(setting, &raw));
        Ok(())
    }

    /// Writes the limit that this field has.
    pub(super) fn carry_field(
        &self,
        out: &mut TomlWriter,
        field: &Field<'_>,
    ) -> Result<(), ImportError> {
        let Some(number) = field.number()? else { return Ok(()) };
        for setting in self.settings {
            if self.unlimited.is(number) {
                out.unlimited(setting);
            } else {
                out.limit_to(setting, &whole(self.unit.convert(number)), field)?;
            }
        }
        Ok(())
    }
}

/// A limit that counts pieces and that no number lifts.
pub(super) const fn limit(
    names: &'static [&'static str],
    settings: &'static [&'static str],
) -> ImportedLimit {
    ImportedLimit { names, settings, unit: ImportedUnit::One, unlimited: Unlimited::Never }
}

/// A limit in KiB that no number lifts.
pub(super) const fn kibibytes(
    names: &'static [&'static str],
    settings: &'static [&'static str],
) -> ImportedLimit {
    ImportedLimit { unit: ImportedUnit::Kibibytes, ..limit(names, settings) }
}

/// The rates of publishes and of other requests that soketi and sockudo limit one by one, as the
/// one rate of signed requests that there is here: the smaller of the two.
pub(super) fn request_rate(
    out: &mut TomlWriter,
    publishes: &Field<'_>,
    reads: &Field<'_>,
) -> Result<(), ImportError> {
    let mut least: Option<(f64, &Field<'_>)> = None;
    for field in [publishes, reads] {
        let Some(number) = field.number()?.filter(|number| *number >= 0.0) else { continue };
        if least.is_none_or(|(least, _)| number < least) {
            least = Some((number, field));
        }
    }
    let Some((number, field)) = least else { return Ok(()) };
    out.limit_to("app.max_requests_per_second", &whole(number), field)?;
    out.comment(
        "Publishes and other requests share one rate here: it is the smaller of the two. A batch \
         is one request.",
    );
    Ok(())
}

/// The longest WebSocket message that may carry data of the longest event.
pub(super) fn message_size(out: &mut TomlWriter, payload_bytes: f64) {
    let bytes = (payload_bytes.max(0.0) + ENVELOPE_BYTES).min(MESSAGE_BYTES_MAX);
    out.value("app.max_message_size", &whole(bytes.floor()));
}

/// The limit of all messages of a connection, which Reverb and sockudo spell alike. Both have said
/// that it is on.
pub(super) fn message_rate(
    out: &mut TomlWriter,
    mut settings: Object<'_>,
) -> Result<(), ImportError> {
    out.truth("app.rate_limiting.enabled", true);
    for name in ["max_attempts", "decay_seconds"] {
        out.limit(&format!("app.rate_limiting.{name}"), &settings.take(name))?;
    }
    let terminate = settings.take("terminate_on_limit").is_on();
    out.truth("app.rate_limiting.terminate_on_limit", terminate);
    out.unknown(&settings)
}

/// Bytes of a message beside the data of its event; also what Reverb allows a message in all.
const ENVELOPE_BYTES: f64 = 10_000.0;

/// The most that the setting takes. Fewer bytes than the limit of the input never widen it.
const MESSAGE_BYTES_MAX: f64 = 67_108_864.0;
