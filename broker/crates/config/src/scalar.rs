//! Types of single settings: how they are read from text, printed, and shown to Kafka clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::units::{ByteSize, HostPort, HttpUrl, Limit, ParseError, parse_duration, show_duration};

/// A setting that is one value.
pub(crate) trait Scalar: Sized + Clone + PartialOrd {
    /// Name of the type in the reference.
    const TYPE: &'static str;

    /// The only values, where they are few.
    const WORDS: Option<&'static [&'static str]> = None;

    /// Reads a value; whoever calls adds the name of the setting to the error.
    fn parse(text: &str) -> Result<Self, ParseError>;

    /// The text that [`Scalar::parse`] reads back.
    fn show(&self) -> String;

    /// The value in Kafka's units: sizes in bytes, durations in milliseconds, no limit as -1.
    fn kafka(&self) -> String {
        self.show()
    }

    /// Reads what [`Scalar::kafka`] shows; the error says in Kafka's units what was expected.
    fn parse_kafka(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Scalar for $ty {
            const TYPE: &'static str = "integer";
            fn parse(text: &str) -> Result<Self, ParseError> {
                text.trim().parse().map_err(|_| ParseError::expected("a whole number"))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integers!(u16, u32, i32);

impl Scalar for bool {
    const TYPE: &'static str = "boolean";
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ParseError::expected("true or false")),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for String {
    const TYPE: &'static str = "text";
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text.trim() {
            "" => Err(ParseError::expected("a text that is not empty")),
            text => Ok(text.to_owned()),
        }
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Scalar for PathBuf {
    const TYPE: &'static str = "path";
    fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "" => Err(ParseError::expected("a path")),
            text => Ok(text.into()),
        }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Scalar for SocketAddr {
    const TYPE: &'static str = "address";
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.trim().parse().map_err(|_| {
            ParseError::expected("an IP address and a port, as in 127.0.0.1:9092, 0.0.0.0:9092 or [::1]:9092")
        })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for HostPort {
    const TYPE: &'static str = "host:port";
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.trim().parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for HttpUrl {
    const TYPE: &'static str = "URL";
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.trim().parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for ByteSize {
    const TYPE: &'static str = "size";
    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn kafka(&self) -> String {
        self.as_u64().to_string()
    }
    fn parse_kafka(text: &str) -> Result<Self, ParseError> {
        whole(text, "a whole number of bytes").map(Self::bytes)
    }
}

impl Scalar for Duration {
    const TYPE: &'static str = "duration";
    fn parse(text: &str) -> Result<Self, ParseError> {
        parse_duration(text)
    }
    fn show(&self) -> String {
        show_duration(*self)
    }
    fn kafka(&self) -> String {
        self.as_millis().to_string()
    }
    fn parse_kafka(text: &str) -> Result<Self, ParseError> {
        whole(text, "a whole number of milliseconds").map(Self::from_millis)
    }
}

fn whole(text: &str, expected: &str) -> Result<u64, ParseError> {
    text.trim().parse().map_err(|_| ParseError::expected(expected))
}

macro_rules! limits {
    ($($ty:ty, $name:literal;)*) => {$(
        impl Scalar for Limit<$ty> {
            const TYPE: &'static str = $name;
            fn parse(text: &str) -> Result<Self, ParseError> {
                if text.trim() == "unlimited" {
                    return Ok(Self::Unlimited);
                }
                <$ty>::parse(text).map(Self::At).map_err(|error| ParseError(format!("{error}, or unlimited")))
            }
            fn show(&self) -> String {
                match self {
                    Self::At(value) => value.show(),
                    Self::Unlimited => "unlimited".to_owned(),
                }
            }
            fn kafka(&self) -> String {
                match self {
                    Self::At(value) => value.kafka(),
                    Self::Unlimited => "-1".to_owned(),
                }
            }
            fn parse_kafka(text: &str) -> Result<Self, ParseError> {
                if text.trim() == "-1" {
                    return Ok(Self::Unlimited);
                }
                <$ty>::parse_kafka(text).map(Self::At).map_err(|error| ParseError(format!("{error}, or -1")))
            }
        }
    )*};
}
limits! {
    ByteSize, "size or `unlimited`";
    Duration, "duration or `unlimited`";
}

/// A setting that is one of a few words: an enum with its words in one place. `kafka` gives Kafka's word where it has
/// another one.
macro_rules! choice {
    (@kafka $word:literal) => { $word };
    (@kafka $word:literal $kafka:literal) => { $kafka };
    ($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $vdoc:literal])* $variant:ident = $word:literal $(, kafka $kafka:literal)?;)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
        pub enum $name { $($(#[doc = $vdoc])* $variant,)* }

        impl $name {
            /// The words, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word that stands for this value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl crate::scalar::Scalar for $name {
            const TYPE: &'static str = "word";
            const WORDS: Option<&'static [&'static str]> = Some(Self::WORDS);
            fn parse(text: &str) -> Result<Self, crate::units::ParseError> {
                match text.trim() {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(crate::units::ParseError(format!("expected one of {}", Self::WORDS.join(", ")))),
                }
            }
            fn show(&self) -> String {
                self.as_str().to_owned()
            }
            fn kafka(&self) -> String {
                match self { $(Self::$variant => crate::scalar::choice!(@kafka $word $($kafka)?),)* }.to_owned()
            }
            fn parse_kafka(text: &str) -> Result<Self, crate::units::ParseError> {
                match text.trim() {
                    $(crate::scalar::choice!(@kafka $word $($kafka)?) => Ok(Self::$variant),)*
                    _ => Self::parse(text),
                }
            }
        }
    };
}
pub(crate) use choice;
