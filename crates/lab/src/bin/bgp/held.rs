//! Which of a scenario's prefixes a peer holds: a bit for each, found from the address without a table.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The prefixes of a scenario, by number: each at the start of a block of addresses of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub(crate) first: Ipv4Addr,
    /// Each has two to this power of addresses.
    pub(crate) block_bits: u8,
    pub(crate) prefixes: u32,
    /// Whether the lengths are mixed, as in the Internet, or all that of the block.
    pub(crate) mixed: bool,
}

impl Space {
    /// The prefix of this number.
    pub(crate) fn prefix(&self, number: u32) -> Ipv4Net {
        let address = u32::from(self.first) + (number << self.block_bits);
        let block = 32 - self.block_bits;
        // Most of the Internet's prefixes are the longest that pass.
        let longer = match number % 8 {
            _ if !self.mixed => 0,
            0 => 0,
            1 => 1,
            _ => 2,
        };
        Ipv4Net::new_assert(address.into(), block + longer)
    }

    fn number(&self, address: u32) -> Option<u32> {
        let number = address.checked_sub(self.first.into())? >> self.block_bits;
        (number < self.prefixes).then_some(number)
    }
}

/// The prefixes that were announced to a peer and not withdrawn since.
#[derive(Debug)]
pub(crate) struct Held {
    space: Space,
    bits: Vec<u64>,
    count: u32,
}

impl Held {
    pub(crate) fn new(space: Space) -> Self {
        Self {
            space,
            bits: vec![0; (space.prefixes as usize).div_ceil(64)],
            count: 0,
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Takes in the body of an UPDATE (RFC 4271 §4.3). `None`: its lengths don't fit.
    pub(crate) fn update(&mut self, body: &[u8]) -> Option<()> {
        let (withdrawn, rest) = sized(body)?;
        let (_, announced) = sized(rest)?;
        self.prefixes(withdrawn, false)?;
        self.prefixes(announced, true)
    }

    fn prefixes(&mut self, mut octets: &[u8], held: bool) -> Option<()> {
        while let [length, rest @ ..] = octets {
            let len = usize::from(*length).div_ceil(8);
            let mut address = [0; 4];
            address.get_mut(..len)?.copy_from_slice(rest.get(..len)?);
            octets = &rest[len..];
            if let Some(number) = self.space.number(u32::from_be_bytes(address)) {
                let word = &mut self.bits[number as usize / 64];
                let bit = 1 << (number % 64);
                if (*word & bit != 0) != held {
                    *word ^= bit;
                    self.count = self.count.wrapping_add_signed(if held { 1 } else { -1 });
                }
            }
        }
        Some(())
    }
}

/// What two octets of length announce, and the rest.
fn sized(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_held() {
        let space = Space {
            first: Ipv4Addr::new(10, 0, 0, 0),
            block_bits: 8,
            prefixes: 300,
            mixed: false,
        };
        assert_eq!(space.prefix(258).to_string(), "10.1.2.0/24");
        let mut held = Held::new(space);
        let announce = [0, 0, 0, 0, 24, 10, 1, 2, 24, 10, 0, 0, 24, 11, 0, 0];
        assert_eq!(held.update(&announce), Some(()));
        assert_eq!(held.update(&announce), Some(()));
        assert_eq!(
            held.count(),
            2,
            "one is known twice, one is not of the space"
        );
        assert_eq!(held.update(&[0, 4, 24, 10, 1, 2, 0, 0]), Some(()));
        assert_eq!(held.count(), 1);
        assert_eq!(held.update(&[0, 9, 24]), None);
        assert_eq!(held.update(&[0, 0, 0, 0, 24, 10]), None);
    }
}
