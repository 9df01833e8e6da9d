//! Netfilter netlink messages as octets: a batch, messages, attributes (`linux/netfilter/nfnetlink.h`). All numbers in
//! attributes are big-endian.

use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST};

use crate::frame::{FLAGS_OFFSET, HEADER_LEN};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 0x11;

/// The message type on the wire: subsystem and `NFT_MSG_*`.
pub(super) const fn kind(message: u8) -> u16 {
    u16::from_be_bytes([SUBSYSTEM, message])
}

/// Messages that the kernel carries out all together or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    octets: Vec<u8>,
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    /// An empty one, whose messages are numbered from after `sequence`.
    pub(super) fn new(sequence: u32) -> Self {
        let mut batch = Self {
            octets: Vec::new(),
            sequence,
            last: 0,
        };
        batch.raw(BATCH_BEGIN, 0, 0, u16::from(SUBSYSTEM), |_| {});
        batch
    }

    /// Appends a message.
    pub(super) fn message(
        &mut self,
        message: u8,
        family: u8,
        flags: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.raw(kind(message), family, flags, 0, body);
    }

    fn raw(
        &mut self,
        kind: u16,
        family: u8,
        flags: u16,
        resource: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        self.last = self.octets.len();
        message(
            &mut self.octets,
            kind,
            family,
            flags,
            resource,
            self.sequence,
            body,
        );
    }

    /// The octets of all, and the number of the last message that the kernel acknowledges.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        let acknowledged = self.sequence;
        let at = self.last + FLAGS_OFFSET;
        let flags = u16::from_ne_bytes([self.octets[at], self.octets[at + 1]]) | NLM_F_ACK;
        self.octets[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.raw(BATCH_END, 0, 0, u16::from(SUBSYSTEM), |_| {});
        (self.octets, acknowledged)
    }
}

/// Appends one message with its headers (`struct nlmsghdr`, `struct nfgenmsg`).
pub(super) fn message(
    octets: &mut Vec<u8>,
    kind: u16,
    family: u8,
    flags: u16,
    resource: u16,
    sequence: u32,
    body: impl FnOnce(&mut Attributes<'_>),
) {
    let start = octets.len();
    octets.extend([0; HEADER_LEN]);
    octets.extend([family, 0]);
    octets.extend(resource.to_be_bytes());
    body(&mut Attributes(octets));
    let length = u32::try_from(octets.len() - start).unwrap_or(u32::MAX);
    let header = &mut octets[start..start + HEADER_LEN];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

/// Attributes (`struct nlattr`), one after the other.
#[derive(Debug)]
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn octets(&mut self, kind: u16, value: &[u8]) {
        self.with(kind, |attributes| attributes.0.extend(value));
    }

    /// Text with the NUL that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.with(kind, |attributes| {
            attributes.0.extend(value.as_bytes());
            attributes.0.push(0);
        });
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub(super) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.with(kind | NLA_F_NESTED, body);
    }

    fn with(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        body(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    #[test]
    fn a_batch_is_framed_and_asks_for_one_acknowledgement() {
        let mut batch = Batch::new(4);
        batch.message(0, 1, 0, |table| {
            table.text(1, "margay");
            table.nested(2, |inner| inner.number(1, 7));
        });
        let (octets, acknowledged) = batch.finish();
        let frames: Vec<_> = frame::frames(&octets).collect();
        let kinds: Vec<_> = frames.iter().map(|it| (it.kind, it.sequence)).collect();
        assert_eq!(kinds, [(0x10, 5), (0x0a00, 6), (0x11, 7)]);
        assert_eq!(acknowledged, 6);
        assert_eq!(frames[1].flags, NLM_F_REQUEST | NLM_F_ACK);
        // Family, version, resource; then the attributes.
        assert_eq!(frames[1].payload[..4], [1, 0, 0, 0]);
        let attributes: Vec<_> = frame::attributes(&frames[1].payload[4..]).collect();
        assert_eq!(attributes[0], (1, &b"margay\0"[..]));
        let inner: Vec<_> = frame::attributes(attributes[1].1).collect();
        assert_eq!((attributes[1].0, inner), (2, vec![(1, &[0, 0, 0, 7][..])]));
    }
}
