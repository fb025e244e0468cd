//! Floor 6. Who may connect to a unix socket: the permissions, owner and group of its file, as
//! forms of settings and as the value that the server applies.

use nix::unistd::{Group, User};

use super::form::{Form, Given, Offender, Text};

/// The permissions, owner and group of the file of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketAccess {
    /// Permission bits; connecting takes the right to write.
    pub(crate) mode: u32,
    /// The user id; `None`: the user that runs the server.
    pub(crate) owner: Option<u32>,
    /// The group id; `None`: the group that the server runs with.
    pub(crate) group: Option<u32>,
}

/// Permission bits in octal digits, as chmod(1) takes them. A number of the file is refused, since
/// TOML would read `660` as a decimal one.
pub(super) struct FileMode;

impl Form for FileMode {
    type Value = u32;

    fn accept(&self, given: &Given) -> Result<u32, Offender> {
        let Given::Text(text) = given else { return Err(given.into()) };
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        mode.filter(|mode| *mode <= 0o777).ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        "octal digits from 0000 to 0777, in quotes in `ringwave.toml`".into()
    }

    fn show(&self, value: &u32) -> String {
        format!("{value:04o}")
    }
}

/// A user or group of this host with its id, kept with the text that names it.
pub(super) struct Account {
    pub(super) id: u32,
    text: String,
}

/// A user by name or number.
pub(super) struct UserName;

/// A group by name or number.
pub(super) struct GroupName;

impl Form for UserName {
    type Value = Account;

    fn accept(&self, given: &Given) -> Result<Account, Offender> {
        account(given, |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
    }

    fn accepted(&self) -> String {
        "the name or number of a user of this host".into()
    }

    fn show(&self, value: &Account) -> String {
        value.text.clone()
    }
}

impl Form for GroupName {
    type Value = Account;

    fn accept(&self, given: &Given) -> Result<Account, Offender> {
        account(given, |name| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }

    fn accepted(&self) -> String {
        "the name or number of a group of this host".into()
    }

    fn show(&self, value: &Account) -> String {
        value.text.clone()
    }
}

/// The kernel takes the largest number for "leave it as it is".
const NO_ID: u32 = u32::MAX;

fn account(given: &Given, lookup: impl Fn(&str) -> Option<u32>) -> Result<Account, Offender> {
    let text = Text.accept(given)?;
    // A NUL byte cannot be part of a name, and the lookup would not take it.
    let named = || Some(&text).filter(|name| !name.contains('\0')).and_then(|name| lookup(name));
    let id = text.parse().ok().filter(|id| *id != NO_ID).or_else(named);
    id.map(|id| Account { id, text }).ok_or_else(|| given.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn a_mode_is_octal_digits_and_no_number_of_the_file() {
        for (given, mode) in [("0660", 0o660), ("600", 0o600), ("0000", 0), ("0777", 0o777)] {
            assert_eq!(FileMode.accept(&text(given)).ok(), Some(mode), "{given}");
        }
        for given in ["", "66", "1660", "0888", "0o660", "-660", "+660", "u=rw", "00660"] {
            assert!(FileMode.accept(&text(given)).is_err(), "{given}");
        }
        assert!(FileMode.accept(&Given::Number(660)).is_err());
        assert_eq!(FileMode.show(&0o60), "0060");
    }

    #[test]
    fn accounts_are_known_by_name_and_by_number() {
        let id = |account: Result<Account, Offender>| account.ok().map(|account| account.id);
        assert_eq!(id(UserName.accept(&text("root"))), Some(0));
        assert_eq!(id(GroupName.accept(&text("root"))), Some(0));
        assert_eq!(id(GroupName.accept(&text("33"))), Some(33));
        assert_eq!(id(GroupName.accept(&Given::Number(33))), Some(33));
        for name in ["", "nobody here", "-1", "4294967295", "a\0b"] {
            assert_eq!(id(UserName.accept(&text(name))), None, "{name:?}");
            assert_eq!(id(GroupName.accept(&text(name))), None, "{name:?}");
        }
    }
}
