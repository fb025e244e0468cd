//! Values that say who may connect to a unix socket: the permissions, owner and group of its file.

use nix::unistd::{Group, User};

use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::value_type::ValueType;

use super::text::AnyText;

/// Permission bits in octal digits, as chmod(1) takes them. A number of the file is refused, since
/// TOML would read `660` as a decimal one.
pub(crate) struct FileMode;

impl ValueType for FileMode {
    type Value = u32;

    fn parse(&self, raw: &RawValue) -> Result<u32, RejectedValue> {
        let RawValue::Text(text) = raw else { return Err(raw.into()) };
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        mode.filter(|mode| *mode <= 0o777).ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        "octal digits from 0000 to 0777, in quotes in `ringwave.toml`".into()
    }

    fn display(&self, value: &u32) -> String {
        format!("{value:04o}")
    }
}

/// A user or group of this host with its id, kept with the text that names it.
pub(crate) struct Account {
    pub(crate) id: u32,
    text: String,
}

/// A user by name or number.
pub(crate) struct UserName;

/// A group by name or number.
pub(crate) struct GroupName;

impl ValueType for UserName {
    type Value = Account;

    fn parse(&self, raw: &RawValue) -> Result<Account, RejectedValue> {
        account(raw, |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
    }

    fn expected(&self) -> String {
        "the name or number of a user of this host".into()
    }

    fn display(&self, value: &Account) -> String {
        value.text.clone()
    }
}

impl ValueType for GroupName {
    type Value = Account;

    fn parse(&self, raw: &RawValue) -> Result<Account, RejectedValue> {
        account(raw, |name| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }

    fn expected(&self) -> String {
        "the name or number of a group of this host".into()
    }

    fn display(&self, value: &Account) -> String {
        value.text.clone()
    }
}

/// The kernel takes the largest number for "leave it as it is".
const NO_ID: u32 = u32::MAX;

fn account(raw: &RawValue, lookup: impl Fn(&str) -> Option<u32>) -> Result<Account, RejectedValue> {
    let text = AnyText.parse(raw)?;
    // A NUL byte cannot be part of a name, and the lookup would not take it.
    let named = || Some(&text).filter(|name| !name.contains('\0')).and_then(|name| lookup(name));
    let id = text.parse().ok().filter(|id| *id != NO_ID).or_else(named);
    id.map(|id| Account { id, text }).ok_or_else(|| raw.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> RawValue {
        RawValue::Text(text.to_owned())
    }

    #[test]
    fn a_mode_is_octal_digits_and_no_number_of_the_file() {
        for (raw, mode) in [("0660", 0o660), ("600", 0o600), ("0000", 0), ("0777", 0o777)] {
            assert_eq!(FileMode.parse(&text(raw)).ok(), Some(mode), "{raw}");
        }
        for raw in ["", "66", "1660", "0888", "0o660", "-660", "+660", "u=rw", "00660"] {
            assert!(FileMode.parse(&text(raw)).is_err(), "{raw}");
        }
        assert!(FileMode.parse(&RawValue::Integer(660)).is_err());
        assert_eq!(FileMode.display(&0o60), "0060");
    }

    #[test]
    fn accounts_are_known_by_name_and_by_number() {
        let id = |account: Result<Account, RejectedValue>| account.ok().map(|account| account.id);
        assert_eq!(id(UserName.parse(&text("root"))), Some(0));
        assert_eq!(id(GroupName.parse(&text("root"))), Some(0));
        assert_eq!(id(GroupName.parse(&text("33"))), Some(33));
        assert_eq!(id(GroupName.parse(&RawValue::Integer(33))), Some(33));
        for name in ["", "nobody here", "-1", "4294967295", "a\0b"] {
            assert_eq!(id(UserName.parse(&text(name))), None, "{name:?}");
            assert_eq!(id(GroupName.parse(&text(name))), None, "{name:?}");
        }
    }
}
