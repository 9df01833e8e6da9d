//! One CIDR: what it holds, what it never gives, and where the next search starts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::taken::Taken;

/// A CIDR with the round-robin cursor in it.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    cidr: IpNet,
    base: u128,
    /// Offsets that may be given at all, both inclusive.
    first: u128,
    last: u128,
    /// Where the next search starts.
    cursor: u128,
    /// In use, resting after use, or reserved.
    taken: Taken,
    /// Parts of the CIDR that are never given.
    reserved: Vec<IpNet>,
}

impl Pool {
    pub(crate) fn new(cidr: IpNet, reserved: &[IpNet]) -> Self {
        let cidr = cidr.trunc();
        let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        let end = 1u128
            .checked_shl(host_bits)
            .map_or(u128::MAX, |size| size - 1);
        let (first, last) = match cidr {
            // A subnet's own and its broadcast address: with /32 routes they would work, but half of the world's tools
            // and filters take them for what they are elsewhere. A /31 (RFC 3021) and a /32 have neither.
            IpNet::V4(_) if host_bits >= 2 => (1, end - 1),
            // The subnet-router anycast address (RFC 4291 §2.6.1); a /127 has none (RFC 6164).
            IpNet::V6(_) if host_bits >= 2 => (1, end),
            IpNet::V4(_) | IpNet::V6(_) => (0, end),
        };
        let base = number(cidr.network());
        let mut taken = Taken::default();
        let mut kept = Vec::new();
        for range in reserved {
            if range.contains(&cidr) {
                taken.insert_range(first, last);
            } else if cidr.contains(range) {
                let (from, to) = (
                    number(range.network()) - base,
                    number(range.broadcast()) - base,
                );
                taken.insert_range(from.max(first), to.min(last));
            } else {
                continue;
            }
            kept.push(*range);
        }
        Self {
            cidr,
            base,
            first,
            last,
            cursor: first,
            taken,
            reserved: kept,
        }
    }

    pub(crate) fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// Addresses that are not taken and not reserved.
    pub(crate) fn free(&self) -> u128 {
        (self.last - self.first + 1).saturating_sub(self.taken.len())
    }

    /// Whether the address is one that it could give.
    pub(crate) fn gives(&self, address: IpAddr) -> bool {
        self.offset(address)
            .is_some_and(|offset| (self.first..=self.last).contains(&offset))
            && !self.reserved.iter().any(|range| range.contains(&address))
    }

    /// Takes the next free address after the cursor, going round once.
    pub(crate) fn take_next(&mut self) -> Option<IpAddr> {
        let offset = self.taken.next_free(self.cursor, self.last).or_else(|| {
            self.taken
                .next_free(self.first, self.cursor.checked_sub(1)?)
        })?;
        self.taken.insert(offset);
        self.move_cursor_past(offset);
        Some(self.address(offset))
    }

    /// Takes this address. Nothing happens when it isn't one to give.
    pub(crate) fn take(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address).filter(|_| self.gives(address)) {
            self.taken.insert(offset);
        }
    }

    pub(crate) fn give_back(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address).filter(|_| self.gives(address)) {
            self.taken.remove(offset);
        }
    }

    pub(crate) fn cursor(&self) -> u128 {
        self.cursor
    }

    /// Lets the next search start at an offset that [`Pool::cursor`] of the same CIDR said.
    pub(crate) fn set_cursor(&mut self, cursor: u128) {
        self.cursor = cursor;
    }

    /// Lets the next search start after `address`.
    pub(crate) fn continue_after(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.move_cursor_past(offset);
        }
    }

    fn move_cursor_past(&mut self, offset: u128) {
        self.cursor = if (self.first..self.last).contains(&offset) {
            offset + 1
        } else {
            self.first
        };
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        self.cidr
            .contains(&address)
            .then(|| number(address) - self.base)
    }

    fn address(&self, offset: u128) -> IpAddr {
        let number = self.base + offset;
        match self.cidr {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "base and offset stay inside an IPv4 CIDR"
            )]
            IpNet::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
