//! What fields hold: values that parse from what people write, and say what would be right when they don't.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// An autonomous system number that a speaker may have: written as a number, as text, or dotted (`1.10` is 65546;
/// RFC 5396).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(u32);

impl AsNumber {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for AsNumber {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        match u32::try_from(number) {
            Ok(0) => Err("AS 0 is reserved (RFC 7607): write 1 to 4294967294".to_owned()),
            Ok(23456) => Err(
                "AS 23456 is AS_TRANS (RFC 6793) and no speaker's own: write another number"
                    .to_owned(),
            ),
            Ok(65535 | u32::MAX) => Err(format!(
                "AS {number} is reserved (RFC 7300): write another number"
            )),
            Ok(number) => Ok(Self(number)),
            Err(_) => Err(format!(
                "`{number}` is too large for an AS number: write 1 to 4294967294"
            )),
        }
    }
}

impl FromStr for AsNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not an AS number: write 1 to 4294967294, or dotted as in `1.10`")
        };
        let number = match text.split_once('.') {
            None => text.parse::<u64>().map_err(|_| wrong())?,
            Some((high, low)) => {
                let (high, low) = (
                    high.parse::<u16>().map_err(|_| wrong())?,
                    low.parse::<u16>().map_err(|_| wrong())?,
                );
                u64::from(high) << 16 | u64::from(low)
            }
        };
        Self::try_from(number)
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = AsNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number (1 to 4294967294)")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AsNumber, E> {
                AsNumber::try_from(number).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<AsNumber, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }

            // Unquoted, `1.10` is the float 1.1 and the number that was meant is lost.
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<AsNumber, E> {
                Err(E::custom(
                    "a dotted AS number must be in quotes, as in \"1.10\"",
                ))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AsNumber, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Where a peer is: an address, and its port where it isn't the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: Option<u16>,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        if let Ok(socket) = text.parse::<SocketAddr>()
            && socket.port() != 0
        {
            return Ok(Self {
                ip: socket.ip(),
                port: Some(socket.port()),
            });
        }
        if text.contains('/') {
            return Err(format!(
                "`{text}` is a subnet: write one address, as in `192.0.2.1` or `192.0.2.1:1179`"
            ));
        }
        Err(format!(
            "`{text}` is not an address: write `192.0.2.1`, `192.0.2.1:1179` or `[2001:db8::1]:1179`"
        ))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl Serialize for PeerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A prefix without host bits.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let cidr: IpNet = match text.parse::<IpNet>() {
        Ok(cidr) => cidr,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => {
                return Err(format!(
                    "`{text}` lacks its prefix length: write `{}`",
                    IpNet::from(address)
                ));
            }
            Err(_) => {
                return Err(format!(
                    "`{text}` is not a CIDR: write one as in `10.244.0.0/16`"
                ));
            }
        },
    };
    if cidr != cidr.trunc() {
        return Err(format!(
            "`{text}` has bits set beyond its prefix length: did you mean `{}`?",
            cidr.trunc()
        ));
    }
    Ok(cidr)
}

/// Serde for a field that holds a prefix.
pub(crate) mod cidr {
    use super::{Deserializer, IpNet, de, parse_cidr, text};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<IpNet, D::Error> {
        parse_cidr(&text(deserializer)?).map_err(de::Error::custom)
    }
}

/// Serde for a field that may hold a prefix.
pub(crate) mod optional_cidr {
    use super::{Deserializer, IpNet, de, parse_cidr, text};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpNet>, D::Error> {
        parse_cidr(&text(deserializer)?)
            .map(Some)
            .map_err(de::Error::custom)
    }
}

/// Serde for a field that may hold a duration as Kubernetes writes it: `90s`, `1m30s`, `2h`; whole seconds.
pub(crate) mod optional_duration {
    use super::{Deserializer, Duration, Serializer, Visitor, de, fmt, parse_duration};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Option<Duration>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration as in `90s`")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Err(E::custom(format!(
                    "a duration needs its unit: write `{number}s`"
                )))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                parse_duration(text).map(Some).map_err(E::custom)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }
        deserializer.deserialize_any(Text)
    }

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(&format_args!("{}s", value.as_secs())),
            None => serializer.serialize_none(),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a duration of whole seconds: write it as in `90s`, `1m30s` or `2h`"
        )
    };
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest[digits..].chars().next() {
            Some('h') => 3600,
            Some('m') if !rest[digits..].starts_with("ms") => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        seconds = number
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_parse_in_every_notation() {
        for (text, expected) in [
            ("64512", Ok(64512)),
            ("1.10", Ok(65546)),
            ("4200000000", Ok(4_200_000_000)),
            ("0", Err("RFC 7607")),
            ("0.0", Err("RFC 7607")),
            ("23456", Err("AS_TRANS")),
            ("65535", Err("RFC 7300")),
            ("4294967295", Err("RFC 7300")),
            ("4294967296", Err("too large")),
            ("1.65536", Err("is not an AS number")),
            ("AS1", Err("is not an AS number")),
        ] {
            match (text.parse::<AsNumber>(), expected) {
                (Ok(asn), Ok(expected)) => assert_eq!(asn.get(), expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn durations_are_whole_seconds_with_units() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("1m30s", Some(90)),
            ("2h", Some(7200)),
            ("0s", Some(0)),
            ("1h0m5s", Some(3605)),
        ] {
            assert_eq!(
                parse_duration(text).ok().map(|duration| duration.as_secs()),
                expected,
                "{text}"
            );
        }
        for text in [
            "",
            "90",
            "s",
            "10ms",
            "1.5s",
            "-3s",
            "9 s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cidrs_say_what_would_be_right() {
        assert_eq!(parse_cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(
            parse_cidr("10.0.0.1/8")
                .unwrap_err()
                .contains("did you mean `10.0.0.0/8`")
        );
        assert!(
            parse_cidr("10.0.0.1")
                .unwrap_err()
                .contains("write `10.0.0.1/32`")
        );
        assert!(
            parse_cidr("10.0.0.0/33")
                .unwrap_err()
                .contains("not a CIDR")
        );
    }

    #[test]
    fn peer_addresses_round_trip() {
        for text in [
            "192.0.2.1",
            "192.0.2.1:1179",
            "2001:db8::1",
            "[2001:db8::1]:1179",
        ] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
        for text in [
            "192.0.2.1/24",
            "tor-a",
            "192.0.2.1:0",
            "192.0.2.1:70000",
            "",
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }
}
