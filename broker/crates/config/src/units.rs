//! Sizes, durations, limits and addresses as people write them.
//!
//! Every type here reads the text that it prints: `parse(show(x)) == x`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a value of some type; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

impl ParseError {
    pub(crate) fn expected(what: &str) -> Self {
        Self(format!("expected {what}"))
    }
}

/// A number of bytes. Written as a plain number or with a binary unit: `4096`, `512KiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const SIZE_UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const SIZE_EXPECTED: &str =
    "a size: a number of bytes, or a whole number of KiB, MiB, GiB or TiB, as in 512KiB";

impl ByteSize {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }
    /// `n` times 1,024 bytes, at most `u64::MAX`.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }
    /// `n` times 1,024² bytes, at most `u64::MAX`.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
    /// `n` times 1,024³ bytes, at most `u64::MAX`.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }
    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
    /// The number of bytes, or `usize::MAX` where that is less.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
    /// The number of bytes, or `u32::MAX` where that is less.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (number, unit) = split_number(text).ok_or_else(|| ParseError::expected(SIZE_EXPECTED))?;
        let factor = match unit {
            "" | "B" => 1,
            _ => match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => return Err(ParseError::expected(SIZE_EXPECTED)),
            },
        };
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| ParseError::expected("a size below 16 EiB"))
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const DURATION_EXPECTED: &str = "a duration with its unit (ms, s, m, h or d), as in 250ms or 10s";

/// Reads a duration in whole milliseconds: `250ms`, `10s`, `5m`, `12h`, `7d`.
///
/// # Errors
/// A missing or unknown unit, a fraction, more than `i64::MAX` milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let (number, unit) = split_number(text).ok_or_else(|| ParseError::expected(DURATION_EXPECTED))?;
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(ParseError::expected(DURATION_EXPECTED));
    };
    match number.checked_mul(*factor) {
        Some(ms) if i64::try_from(ms).is_ok() => Ok(Duration::from_millis(ms)),
        _ => Err(ParseError::expected("a duration of less than 292 million years")),
    }
}

/// Writes a duration in the largest unit that says it exactly; parts of a millisecond are dropped.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match DURATION_UNITS
        .iter()
        .find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", ms / factor),
        None => "0ms".to_owned(),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// A value with an upper bound, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Limit<T> {
    /// Bounded by this value, inclusive.
    At(T),
    /// Not bounded.
    Unlimited,
}

/// A host name or address with a port, as a client dials it: `broker-1.example:9092`, `[::1]:9092`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Host name, IPv4 address or IPv6 address without brackets; never empty.
    pub host: String,
    /// Port; not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = || ParseError::expected("HOST:PORT, as in broker-1.example:9092 or [::1]:9092");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
            None if is_host(host) => host,
            _ => return Err(expected()),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Where something is served over HTTP without TLS, such as `http://otel-collector:4318`; without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HttpUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = || {
            ParseError::expected("http://HOST:PORT, as in http://otel-collector:4318; https is not offered")
        };
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        let (address, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let address: HostPort = address.parse().map_err(|_| expected())?;
        let is_path =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~');
        let path = path.trim_end_matches('/');
        match path.bytes().all(is_path) {
            true => Ok(Self(format!("http://{address}{path}"))),
            false => Err(expected()),
        }
    }
}

/// RFC 1123 letters, digits, hyphens and dots; underscores too, since container networks use them.
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_durations_take_the_shortest_exact_unit() {
        assert_eq!(ByteSize::gib(1).to_string(), "1GiB");
        assert_eq!(ByteSize::bytes(1_048_588).to_string(), "1048588");
        assert_eq!("512 KiB".parse(), Ok(ByteSize::kib(512)));
        assert_eq!(show_duration(Duration::from_millis(90_000)), "90s");
        assert_eq!(show_duration(Duration::from_secs(604_800)), "7d");
        assert_eq!(show_duration(Duration::ZERO), "0ms");
    }

    #[test]
    fn decimal_units_fractions_and_bare_durations_are_refused() {
        for text in [
            "",
            "1GB",
            "1.5GiB",
            "-1",
            "1 G",
            "18446744073709551616",
            "16777216TiB",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "10", "1.5s", "10 seconds", "-1s", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        let v6: HostPort = "[::1]:9092".parse().unwrap();
        assert_eq!(
            (v6.host.as_str(), v6.port, v6.to_string().as_str()),
            ("::1", 9092, "[::1]:9092")
        );
        for text in [
            "",
            "host",
            ":9092",
            "host:",
            "host:0",
            "host:70000",
            "::1:9092",
            "[::1]",
            "a b:1",
            "[x]:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn urls_have_host_and_port_and_no_tls() {
        for (text, read) in [
            ("http://collector:4318", "http://collector:4318"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
            ("http://a.b:1/x/y-z/", "http://a.b:1/x/y-z"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().as_str(), read);
        }
        for text in [
            "",
            "collector:4318",
            "https://collector:4318",
            "http://collector",
            "http://:1",
            "http://a b:1",
            "http://u@h:1",
            "http://a:1?x=y",
            "http://a:1/x y",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes: u64, ms in 0..=i64::MAX.unsigned_abs()) {
            let size = ByteSize::bytes(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<ByteSize>();
            let _ = parse_duration(&text);
            if let Ok(address) = text.parse::<HostPort>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(url) = text.parse::<HttpUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
