//! Floor 6. What values look like: one form per kind of setting. A form takes what a source gave,
//! says in words what it would accept, and shows a value as an operator would write it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::front::Opening;
use crate::front::address::{Trusted, TrustedProxies};
use crate::protocol::origin::Origins;

use super::server::{ListenAddr, Listener};
use super::units::Unit;

/// A value as a source gave it, before any form looked at it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// A switch without a value, a boolean of the file, or one of the words of Laravel's `env()`.
    Truth(bool),
    /// A whole number of the file.
    Number(i64),
    /// Anything else that is one value.
    Text(String),
    /// A list of the file, or a flag that may be repeated.
    List(Vec<String>),
    /// Tables in a list of the file.
    Tables(Vec<BTreeMap<String, Self>>),
}

impl Given {
    /// The value as plain text, to compare and to show where it is no secret.
    pub(super) fn as_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => write!(f, "{items:?}"),
            Self::Tables(_) => f.write_str("a list of tables"),
        }
    }
}

/// The part of a given value that is not of the form, as text for the operator.
pub(super) struct Offender(pub(super) String);

impl From<&Given> for Offender {
    fn from(given: &Given) -> Self {
        Self(given.to_string())
    }
}

/// The values that a setting takes.
pub(super) trait Form: Sync {
    /// The type that the rest of the program works with.
    type Value;

    /// Values are withheld wherever they could be read.
    const SECRET: bool = false;

    /// Takes the value, or names what is wrong with it.
    fn accept(&self, given: &Given) -> Result<Self::Value, Offender>;

    /// The accepted values in words, to end the sentence "the setting takes ...".
    fn accepted(&self) -> String;

    /// The value as an operator would write it.
    fn show(&self, value: &Self::Value) -> String;

    /// Text that is the same for equal values and for no others, to find out whether a value has
    /// changed. It may hold a secret: nothing shows it.
    fn whole(&self, value: &Self::Value) -> String {
        self.show(value)
    }
}

/// Any text.
pub(super) struct Text;

impl Form for Text {
    type Value = String;

    fn accept(&self, given: &Given) -> Result<String, Offender> {
        match given {
            Given::Text(text) => Ok(text.clone()),
            Given::Number(number) => Ok(number.to_string()),
            Given::Truth(_) | Given::List(_) | Given::Tables(_) => Err(given.into()),
        }
    }

    fn accepted(&self) -> String {
        "text".into()
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// An app's id or key: any text that can stand in a log. In paths it is percent-encoded, and `auth`
/// is cut behind it at the last colon, so that keys such as `base64:...=` serve.
pub(super) struct Identifier;

impl Identifier {
    const LENGTH_MAX: usize = 200;
}

impl Form for Identifier {
    type Value = String;

    fn accept(&self, given: &Given) -> Result<String, Offender> {
        let text = Text.accept(given)?;
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(text)
        } else {
            Err(given.into())
        }
    }

    fn accepted(&self) -> String {
        format!("1 to {} bytes of text without control characters", Self::LENGTH_MAX)
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// Text that is never shown, and never empty.
pub(super) struct SecretText;

impl Form for SecretText {
    type Value = String;

    const SECRET: bool = true;

    fn accept(&self, given: &Given) -> Result<String, Offender> {
        Text.accept(given).ok().filter(|text| !text.is_empty()).ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        "text that is not empty".into()
    }

    fn show(&self, _: &String) -> String {
        super::WITHHELD.into()
    }

    fn whole(&self, value: &String) -> String {
        value.clone()
    }
}

/// A whole number that fits `T`, between two bounds, in the unit that it counts in or another.
pub(super) struct Whole<T> {
    min: u64,
    max: u64,
    unit: Unit,
    fits: PhantomData<fn() -> T>,
}

impl<T> Whole<T> {
    pub(super) const fn count(min: u64, max: u64) -> Self {
        Self { min, max, unit: Unit::Count, fits: PhantomData }
    }

    pub(super) const fn bytes(min: u64, max: u64) -> Self {
        Self { min, max, unit: Unit::Bytes, fits: PhantomData }
    }

    pub(super) const fn seconds(min: u64, max: u64) -> Self {
        Self { min, max, unit: Unit::Seconds, fits: PhantomData }
    }

    pub(super) const fn milliseconds(min: u64, max: u64) -> Self {
        Self { min, max, unit: Unit::Milliseconds, fits: PhantomData }
    }
}

impl<T: TryFrom<u64> + fmt::Display> Form for Whole<T> {
    type Value = T;

    fn accept(&self, given: &Given) -> Result<T, Offender> {
        let number = match given {
            Given::Number(number) => u64::try_from(*number).ok(),
            Given::Text(text) => self.unit.read(text),
            _ => None,
        };
        number
            .filter(|number| (self.min..=self.max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        self.unit.range(self.min, self.max)
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// A length of time in whole seconds.
pub(super) struct Seconds(pub(super) Whole<u64>);

impl Seconds {
    pub(super) const fn range(min: u64, max: u64) -> Self {
        Self(Whole::seconds(min, max))
    }
}

impl Form for Seconds {
    type Value = Duration;

    fn accept(&self, given: &Given) -> Result<Duration, Offender> {
        self.0.accept(given).map(Duration::from_secs)
    }

    fn accepted(&self) -> String {
        self.0.accepted()
    }

    fn show(&self, value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// Another form, or a word that stands for the absence of a value.
pub(super) struct Or<F> {
    pub(super) word: &'static str,
    pub(super) form: F,
}

impl<F: Form> Form for Or<F> {
    type Value = Option<F::Value>;

    fn accept(&self, given: &Given) -> Result<Self::Value, Offender> {
        match given {
            Given::Text(text) if text.eq_ignore_ascii_case(self.word) => Ok(None),
            _ => self.form.accept(given).map(Some),
        }
    }

    fn accepted(&self) -> String {
        format!("{}, or `{}`", self.form.accepted(), self.word)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.word.to_owned(), |value| self.form.show(value))
    }

    fn whole(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.word.to_owned(), |value| self.form.whole(value))
    }
}

/// On or off. The variables of Reverb go through PHP, which has its own idea of truth.
pub(super) enum Switch {
    /// `true`, `false`, `1` or `0`.
    Plain,
    /// Reverb compares with `=== true`: any text that is not the word `true` is off.
    PhpIdentical,
    /// Reverb tests for truth: any text but `0` is on, `off` and `no` included.
    PhpTruthy,
}

impl Form for Switch {
    type Value = bool;

    fn accept(&self, given: &Given) -> Result<bool, Offender> {
        match (self, given) {
            (_, Given::Truth(truth)) => Ok(*truth),
            (Self::Plain, Given::Text(text)) if text == "1" => Ok(true),
            (Self::Plain, Given::Text(text)) if text == "0" => Ok(false),
            (Self::PhpIdentical, Given::Text(_)) => Ok(false),
            (Self::PhpTruthy, Given::Text(text)) => Ok(!matches!(text.as_str(), "" | "0")),
            _ => Err(given.into()),
        }
    }

    fn accepted(&self) -> String {
        "`true` or `false`".into()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One of a few words, each with its meaning.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Sync> Form for Choice<T> {
    type Value = T;

    fn accept(&self, given: &Given) -> Result<T, Offender> {
        let chosen = match given {
            Given::Text(text) => self.0.iter().find(|(word, _)| word == text),
            _ => None,
        };
        chosen.map(|&(_, meaning)| meaning).ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("one of {}", words.join(", "))
    }

    fn show(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, meaning)| meaning == value);
        word.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

/// An address of this host. Names other than `localhost` are refused: what they mean can change
/// between two starts.
pub(super) struct Host;

impl Form for Host {
    type Value = IpAddr;

    fn accept(&self, given: &Given) -> Result<IpAddr, Offender> {
        let address = match given {
            Given::Text(text) => parse_host(text),
            _ => None,
        };
        address.ok_or_else(|| given.into())
    }

    fn accepted(&self) -> String {
        "an IPv4 address, an IPv6 address in brackets, or `localhost`".into()
    }

    fn show(&self, value: &IpAddr) -> String {
        match value {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

fn parse_host(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// A prefix of URL paths: empty, or `/` and segments without a `/` at the end.
pub(super) struct UrlPath;

impl Form for UrlPath {
    type Value = String;

    fn accept(&self, given: &Given) -> Result<String, Offender> {
        let text = Text.accept(given)?;
        let plain = |c: char| c.is_ascii_graphic() && !"?#%{}\\\"<>^`|".contains(c);
        let trimmed = text.trim_matches('/');
        if !trimmed.chars().all(plain) || trimmed.split('/').any(|part| part == "..") {
            return Err(given.into());
        }
        Ok(if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") })
    }

    fn accepted(&self) -> String {
        "the path of a URL such as `/ws`, or nothing".into()
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// Places to listen.
pub(super) struct Listeners;

impl Form for Listeners {
    type Value = Vec<Listener>;

    fn accept(&self, given: &Given) -> Result<Self::Value, Offender> {
        let parse = |item: &String| parse_listener(item).ok_or_else(|| Offender(quoted(item)));
        items(given)?.iter().map(parse).collect()
    }

    fn accepted(&self) -> String {
        "`tcp://HOST:PORT` or `unix:///PATH`, `tcp+proxy://` or `unix+proxy://` for the PROXY \
         protocol, any number of them"
            .into()
    }

    fn show(&self, value: &Self::Value) -> String {
        let item = |listener: &Listener| {
            let proxy = match listener.opening {
                Opening::Http => "",
                Opening::ProxyHeader => "+proxy",
            };
            match &listener.place {
                ListenAddr::Tcp(address) => format!("tcp{proxy}://{address}"),
                ListenAddr::Unix(path) => format!("unix{proxy}://{}", path.display()),
            }
        };
        value.iter().map(item).collect::<Vec<_>>().join(", ")
    }
}

fn parse_listener(text: &str) -> Option<Listener> {
    let (scheme, place) = text.split_once("://")?;
    let (scheme, opening) = match scheme.strip_suffix("+proxy") {
        Some(scheme) => (scheme, Opening::ProxyHeader),
        None => (scheme, Opening::Http),
    };
    let place = match scheme {
        "unix" => parse_unix(place)?,
        "tcp" => parse_tcp(place)?,
        _ => return None,
    };
    Some(Listener { place, opening })
}

fn parse_unix(path: &str) -> Option<ListenAddr> {
    let usable = path.starts_with('/') && path.len() > 1 && !path.contains('\0');
    usable.then(|| ListenAddr::Unix(PathBuf::from(path)))
}

fn parse_tcp(text: &str) -> Option<ListenAddr> {
    let (host, port) = text.rsplit_once(':')?;
    // Without brackets the last group of an IPv6 address would be taken for the port.
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|&port: &u16| digits && port > 0)?;
    Some(ListenAddr::Tcp(SocketAddr::new(parse_host(host)?, port)))
}

/// Proxies that are believed.
pub(super) struct Proxies;

impl Form for Proxies {
    type Value = TrustedProxies;

    fn accept(&self, given: &Given) -> Result<TrustedProxies, Offender> {
        let items = items(given)?;
        if matches!(items.as_slice(), [word] if word == NOBODY) {
            return Ok(TrustedProxies::default());
        }
        let parse = |item: &String| item.parse::<Trusted>().map_err(|()| Offender(quoted(item)));
        items.iter().map(parse).collect()
    }

    fn accepted(&self) -> String {
        format!(
            "a list of addresses, networks (`10.0.0.0/8`, `2001:db8::/32`) and the word `unix` for \
             unix sockets, or `{NOBODY}`"
        )
    }

    fn show(&self, value: &TrustedProxies) -> String {
        let shown: Vec<_> = value.iter().map(ToString::to_string).collect();
        if shown.is_empty() { NOBODY.to_owned() } else { shown.join(", ") }
    }
}

const NOBODY: &str = "none";

/// Origins of browsers, kept with the text that they were read from.
pub(super) struct OriginPatterns;

/// The value of [`OriginPatterns`].
pub(super) struct AllowedOrigins {
    pub(super) origins: Origins,
    text: String,
}

impl Form for OriginPatterns {
    type Value = AllowedOrigins;

    fn accept(&self, given: &Given) -> Result<AllowedOrigins, Offender> {
        let patterns = items(given)?;
        for pattern in &patterns {
            if Origins::parse(std::slice::from_ref(pattern)).is_err() {
                return Err(Offender(quoted(pattern)));
            }
        }
        let origins = Origins::parse(&patterns).map_err(|_| Offender::from(given))?;
        Ok(AllowedOrigins { origins, text: patterns.join(", ") })
    }

    fn accepted(&self) -> String {
        "a list of hosts (`example.com`, `*.example.com`, `example.com:8443`), \
         origins (`https://example.com`) or `*` for all"
            .into()
    }

    fn show(&self, value: &AllowedOrigins) -> String {
        value.text.clone()
    }
}

/// A list, which one value with commas is as well: variables have no other way.
pub(super) fn items(given: &Given) -> Result<Vec<String>, Offender> {
    match given {
        Given::List(items) => Ok(items.clone()),
        Given::Text(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.map(str::to_owned).collect())
        }
        _ => Err(given.into()),
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}
