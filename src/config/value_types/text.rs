//! Values that are text: free text, identifiers, secrets and paths.

use std::path::PathBuf;

use crate::config::raw_value::{RawValue, RejectedValue, WITHHELD};
use crate::config::value_type::{FlagArgument, ValueType};

/// Any text.
pub(crate) struct AnyText;

impl ValueType for AnyText {
    type Value = String;

    fn parse(&self, raw: &RawValue) -> Result<String, RejectedValue> {
        match raw {
            RawValue::Text(text) => Ok(text.clone()),
            RawValue::Integer(number) => Ok(number.to_string()),
            RawValue::Bool(_) | RawValue::List(_) | RawValue::Tables(_) => Err(raw.into()),
        }
    }

    fn expected(&self) -> String {
        "text".into()
    }

    fn display(&self, value: &String) -> String {
        value.clone()
    }
}

/// An app's id or key: any text that can stand in a log. In paths it is percent-encoded, and `auth`
/// is cut behind it at the last colon, so that keys such as `base64:...=` serve.
pub(crate) struct Identifier;

impl Identifier {
    const LENGTH_MAX: usize = 200;
}

impl ValueType for Identifier {
    type Value = String;

    fn parse(&self, raw: &RawValue) -> Result<String, RejectedValue> {
        let text = AnyText.parse(raw)?;
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(text)
        } else {
            Err(raw.into())
        }
    }

    fn expected(&self) -> String {
        format!("1 to {} bytes of text without control characters", Self::LENGTH_MAX)
    }

    fn display(&self, value: &String) -> String {
        value.clone()
    }
}

/// Text that is never shown, and never empty.
pub(crate) struct SecretText;

impl ValueType for SecretText {
    type Value = String;

    const SECRET: bool = true;

    fn parse(&self, raw: &RawValue) -> Result<String, RejectedValue> {
        AnyText.parse(raw).ok().filter(|text| !text.is_empty()).ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        "text that is not empty".into()
    }

    fn display(&self, _: &String) -> String {
        WITHHELD.into()
    }

    fn canonical(&self, value: &String) -> String {
        value.clone()
    }
}

/// Text that is never shown, or none.
pub(crate) struct OptionalSecret;

impl ValueType for OptionalSecret {
    type Value = Option<String>;

    const SECRET: bool = true;

    fn parse(&self, raw: &RawValue) -> Result<Option<String>, RejectedValue> {
        AnyText.parse(raw).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    fn expected(&self) -> String {
        "text, or nothing".into()
    }

    fn display(&self, value: &Option<String>) -> String {
        value.as_ref().map_or_else(String::new, |_| WITHHELD.into())
    }

    fn canonical(&self, value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

/// The name of a cluster. It is a part of keys in Redis, in which braces choose the slot, and of
/// the patterns that give a user of Redis the right to these keys.
pub(crate) struct ClusterName;

impl ClusterName {
    /// Every key of the cluster repeats the name.
    const LENGTH_MAX: usize = 100;
}

impl ValueType for ClusterName {
    type Value = String;

    fn parse(&self, raw: &RawValue) -> Result<String, RejectedValue> {
        let text = AnyText.parse(raw)?;
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"{}*?[]\\".contains(c);
        let usable = (1..=Self::LENGTH_MAX).contains(&text.len()) && text.chars().all(plain);
        if usable { Ok(text) } else { Err(raw.into()) }
    }

    fn expected(&self) -> String {
        format!("1 to {} bytes of text without spaces, and none of `{{}}*?[]\\`", Self::LENGTH_MAX)
    }

    fn display(&self, value: &String) -> String {
        value.clone()
    }
}

/// A prefix of URL paths: empty, or `/` and segments without a `/` at the end.
pub(crate) struct UrlPath;

impl ValueType for UrlPath {
    type Value = String;

    const ARGUMENT: FlagArgument = FlagArgument::One("PATH");

    fn parse(&self, raw: &RawValue) -> Result<String, RejectedValue> {
        let text = AnyText.parse(raw)?;
        let plain = |c: char| c.is_ascii_graphic() && !"?#%{}\\\"<>^`|".contains(c);
        let trimmed = text.trim_matches('/');
        if !trimmed.chars().all(plain) || trimmed.split('/').any(|part| part == "..") {
            return Err(raw.into());
        }
        Ok(if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") })
    }

    fn expected(&self) -> String {
        "the path of a URL such as `/ws`, or nothing".into()
    }

    fn display(&self, value: &String) -> String {
        value.clone()
    }
}

/// The path of a thing that this word names.
pub(crate) struct PathOf(pub(crate) &'static str);

impl ValueType for PathOf {
    type Value = PathBuf;

    fn parse(&self, raw: &RawValue) -> Result<PathBuf, RejectedValue> {
        let text = AnyText.parse(raw)?;
        let usable = !text.is_empty() && !text.contains('\0');
        if usable { Ok(text.into()) } else { Err(raw.into()) }
    }

    fn expected(&self) -> String {
        format!("the path of a {}", self.0)
    }

    fn display(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}
