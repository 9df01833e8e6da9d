//! Netlink's framing: the header, the walk over a datagram, and acknowledgements (`linux/netlink.h`).

use std::ffi::c_int;

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_ACK_TLVS, NLM_F_CAPPED};
use rustix::io::Errno;

use crate::Error;

/// `NLMSG_ERROR`: an acknowledgement, negative or positive.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;
/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Where `nlmsg_flags` stands in the header.
pub(crate) const FLAGS_OFFSET: usize = 6;
/// The attribute that holds the kernel's words.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Longest error text that is kept.
const MAX_TEXT: usize = 256;

/// One message inside a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// `nlmsg_pid`: the socket whose request caused it.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// Walks the messages of a datagram; stops at the first that is not whole.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let message = datagram.get(..length)?;
        let header: &[u8; HEADER_LEN] = message.first_chunk()?;
        let frame = Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            payload: &message[HEADER_LEN..],
        };
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(frame)
    })
}

/// Walks attributes (`struct nlattr`): type without its flags, and value; stops at the first that is not whole.
///
/// `netlink-packet-core` has such a walk, which takes longer than all the rest of reading a dump.
pub(crate) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; 4] = octets.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = octets.get(header.len()..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Reads a `NLMSG_ERROR`: `Ok` is the positive acknowledgement.
pub(crate) fn acknowledgement(frame: &Frame<'_>) -> Result<(), Error> {
    let Some(code) = frame
        .payload
        .first_chunk()
        .map(|bytes| c_int::from_ne_bytes(*bytes))
    else {
        return Err(Error::Malformed("short acknowledgement"));
    };
    if code == 0 {
        return Ok(());
    }
    Err(Error::Kernel {
        errno: errno(code),
        message: error_text(frame),
    })
}

/// The error number behind the negative code of an acknowledgement.
pub(crate) fn errno(code: c_int) -> Errno {
    // The kernel's own errors lie within 1..4096 (MAX_ERRNO); anything else would be a broken kernel.
    match code.checked_neg() {
        Some(errno @ 1..4096) => Errno::from_raw_os_error(errno),
        _ => Errno::IO,
    }
}

/// `NLMSGERR_ATTR_MSG` among the attributes that follow the echoed request.
fn error_text(frame: &Frame<'_>) -> Option<Box<str>> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = frame.payload.get(4..)?;
    let skip = if frame.flags & NLM_F_CAPPED == 0 {
        (u32::from_ne_bytes(*request.first_chunk()?) as usize).next_multiple_of(4)
    } else {
        HEADER_LEN
    };
    let (_, text) =
        attributes(request.get(skip..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text);
    let text = text.trim_end_matches(['\0', '\n']);
    Some(text.chars().take(MAX_TEXT).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages: a positive acknowledgement, and `ip route add 10.0.0.0/8 via 192.0.2.1` refused, as recorded
    /// with NETLINK_CAP_ACK and NETLINK_EXT_ACK on.
    fn datagram() -> Vec<u8> {
        let text = b"Nexthop has invalid gateway\0";
        let mut bytes = Vec::new();
        bytes.extend([36u32.to_ne_bytes()].concat());
        bytes.extend([2u16.to_ne_bytes(), 0x100u16.to_ne_bytes()].concat());
        bytes.extend([7u32.to_ne_bytes(), 99u32.to_ne_bytes(), 0i32.to_ne_bytes()].concat());
        bytes.extend([0u8; 16]);
        let length = 16 + 4 + 16 + 4 + u32::try_from(text.len()).unwrap();
        bytes.extend(length.to_ne_bytes());
        bytes.extend([2u16.to_ne_bytes(), 0x300u16.to_ne_bytes()].concat());
        bytes.extend(
            [
                8u32.to_ne_bytes(),
                99u32.to_ne_bytes(),
                (-22i32).to_ne_bytes(),
            ]
            .concat(),
        );
        bytes.extend([0u8; 16]);
        bytes.extend(
            [
                (u16::try_from(text.len()).unwrap() + 4).to_ne_bytes(),
                1u16.to_ne_bytes(),
            ]
            .concat(),
        );
        bytes.extend(text);
        bytes
    }

    #[test]
    fn walks_messages_and_reads_acknowledgements() {
        let bytes = datagram();
        let all: Vec<_> = frames(&bytes).collect();
        assert_eq!(
            all.iter().map(|f| (f.sequence, f.port)).collect::<Vec<_>>(),
            [(7, 99), (8, 99)]
        );
        assert_eq!(acknowledgement(&all[0]), Ok(()));
        let refused = Error::Kernel {
            errno: Errno::INVAL,
            message: Some("Nexthop has invalid gateway".into()),
        };
        assert_eq!(acknowledgement(&all[1]), Err(refused));
    }

    #[test]
    fn a_cut_datagram_never_panics() {
        let bytes = datagram();
        for cut in 0..bytes.len() {
            for frame in frames(&bytes[..cut]) {
                acknowledgement(&frame).ok();
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                for frame in frames(&broken) {
                    acknowledgement(&frame).ok();
                }
            }
        }
    }
}
