//! Floor 7. The text of a secret that is in a file, and the reasons why a file gives none.

use std::fmt;

use super::text_file::Unreadable;

/// The longest secret in bytes. Those of apps and of Redis have a hundred at most.
const BYTES_MAX: usize = 4096;

/// The variable in which systemd says where it has put the credentials of a unit (systemd.exec(5)).
pub(super) const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The secret in the content of a file: everything but one end of a line, of Unix or of Windows.
pub(super) fn secret(bytes: Vec<u8>) -> Result<String, SecretFault> {
    if bytes.len() > BYTES_MAX {
        return Err(SecretFault::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretFault::NotUtf8)?;
    let without_end = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n'));
    let text = without_end.unwrap_or(&text);
    if text.is_empty() { Err(SecretFault::Empty) } else { Ok(text.to_owned()) }
}

/// The reason why a file gives no secret.
#[derive(Debug)]
pub(crate) enum SecretFault {
    /// It cannot be read.
    Unreadable(Unreadable),
    /// It has no text.
    Empty,
    /// It has more bytes than a secret may have.
    TooLong,
    /// It is not UTF-8.
    NotUtf8,
    /// It is one of the credentials of systemd, and the unit has none.
    NoCredentials,
}

impl fmt::Display for SecretFault {
    /// Continues a sentence that begins with the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The remedy is in the sentence.
            Self::Unreadable(cause @ Unreadable::Refused(_)) => write!(f, " {cause}"),
            Self::Unreadable(cause) => {
                write!(f, " {cause}: name a file that has the secret and nothing else in it")
            }
            Self::Empty => f.write_str(" is empty: write the secret into it"),
            Self::TooLong => write!(
                f,
                " has more than {BYTES_MAX} bytes, so it is no secret: name a file that has the \
                 secret and nothing else in it"
            ),
            Self::NotUtf8 => f.write_str(
                " is not UTF-8: write the secret as text, for example in hexadecimal digits",
            ),
            Self::NoCredentials => write!(
                f,
                " is a credential, and the environment has no {CREDENTIALS_DIRECTORY}: add \
                 LoadCredential= to the unit of systemd, or write the path of the file itself"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_goes_and_everything_else_is_the_secret() {
        for (content, is) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("s3cret\n\n", "s3cret\n"),
            ("s3cret\r", "s3cret\r"),
            (" s3\ncret ", " s3\ncret "),
            ("null", "null"),
        ] {
            assert_eq!(secret(content.into()).unwrap(), is, "{content:?}");
        }
        assert!(secret(vec![b'x'; BYTES_MAX]).is_ok());
        for (content, told) in [
            (vec![], "is empty"),
            (b"\n".to_vec(), "is empty"),
            (vec![b'x'; BYTES_MAX + 1], "more than 4096 bytes"),
            (vec![0xff], "is not UTF-8"),
        ] {
            let fault = secret(content).unwrap_err().to_string();
            assert!(fault.contains(told), "{fault}");
        }
    }
}
