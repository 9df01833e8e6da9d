//! IPv4 and ICMP headers (RFC 791, RFC 792), as far as probes need them.

use std::net::Ipv4Addr;

/// Octets of an IPv4 header without options, and of an ICMP echo header.
pub(super) const IP_HEADER: usize = 20;
pub(super) const ICMP_HEADER: usize = 8;

const ECHO_REQUEST: u8 = 8;
const ICMP: u8 = 1;

/// An echo request as it goes out, with a header of our own so that TTL, size and "don't fragment" are ours to choose.
/// The kernel fills in the source address and the header's checksum.
pub(super) struct EchoRequest {
    pub(super) to: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) ident: u16,
    pub(super) sequence: u16,
    /// The whole packet's length in octets, headers included.
    pub(super) length: u16,
    pub(super) dont_fragment: bool,
}

impl EchoRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = usize::from(self.length).max(IP_HEADER + ICMP_HEADER);
        let mut packet = Vec::with_capacity(length);
        packet.extend([0x45, 0]);
        packet.extend(self.length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(if self.dont_fragment {
            [0x40, 0]
        } else {
            [0, 0]
        });
        packet.extend([self.ttl, ICMP, 0, 0]);
        packet.extend([0; 4]);
        packet.extend(self.to.octets());

        let mut icmp = vec![ECHO_REQUEST, 0, 0, 0];
        icmp.extend(self.ident.to_be_bytes());
        icmp.extend(self.sequence.to_be_bytes());
        icmp.extend((icmp.len()..length - IP_HEADER).map(|at| at.to_le_bytes()[0]));
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        packet.extend(icmp);
        packet
    }
}

/// What came back, as a raw ICMP socket gives it: with its IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) from: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) kind: Kind,
    /// Identifier and sequence number of the echo that it answers or complains about.
    pub(super) ident: u16,
    pub(super) sequence: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    EchoReply,
    TimeExceeded,
    /// With the next link's MTU (RFC 1191).
    FragmentationNeeded(u16),
    /// With the code.
    Unreachable(u8),
}

impl Incoming {
    /// `None` for everything that is not an answer to an echo request.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let (header, icmp) = split_header(packet)?;
        let from = address(header, 12)?;
        let ttl = *header.get(8)?;
        let (kind, echo) = match (*icmp.first()?, *icmp.get(1)?) {
            (0, _) => (Kind::EchoReply, icmp),
            (11, _) => (Kind::TimeExceeded, quoted(icmp)?),
            (3, 4) => (Kind::FragmentationNeeded(number(icmp, 6)?), quoted(icmp)?),
            (3, code) => (Kind::Unreachable(code), quoted(icmp)?),
            _ => return None,
        };
        Some(Self {
            from,
            ttl,
            kind,
            ident: number(echo, 4)?,
            sequence: number(echo, 6)?,
        })
    }
}

/// The ICMP header of the echo request that an error message quotes.
fn quoted(icmp: &[u8]) -> Option<&[u8]> {
    let (header, inner) = split_header(icmp.get(ICMP_HEADER..)?)?;
    (header.get(9) == Some(&ICMP) && inner.first() == Some(&ECHO_REQUEST)).then_some(inner)
}

fn split_header(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    packet.split_at_checked(length)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [_, _, high, low] = folded.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> EchoRequest {
        EchoRequest {
            to: Ipv4Addr::new(10, 0, 0, 9),
            ttl: 3,
            ident: 0x1234,
            sequence: 7,
            length: 61,
            dont_fragment: true,
        }
    }

    #[test]
    fn a_request_is_as_long_as_asked_and_sums_to_zero() {
        let packet = request().encode();
        assert_eq!(packet.len(), 61);
        assert_eq!(checksum(&packet[IP_HEADER..]), 0);
        assert_eq!(packet[8], 3);
        assert_eq!(packet[6], 0x40);
    }

    #[test]
    fn a_quoted_request_names_its_sequence() {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 62, ICMP, 0, 0, 10, 0, 0, 1];
        packet.extend([10, 0, 0, 2, 11, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(request().encode());
        let expected = Incoming {
            from: Ipv4Addr::new(10, 0, 0, 1),
            ttl: 62,
            kind: Kind::TimeExceeded,
            ident: 0x1234,
            sequence: 7,
        };
        assert_eq!(Incoming::decode(&packet), Some(expected));
    }

    #[test]
    fn short_packets_are_nothing() {
        let packet = request().encode();
        for length in 0..packet.len() {
            assert_eq!(Incoming::decode(&packet[..length]), None);
        }
    }
}
