//! Numbers and addresses: node 0 has 172.16.0.1 and the blocks 10.0.0.0/26, 10.0.0.64/26, …

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// How many blocks of pod addresses a node may have.
pub const BLOCKS: u32 = 4;
/// 172.16.0.1.
const FIRST_ADDRESS: u32 = 0xac10_0001;
/// 10.0.0.0.
const FIRST_BLOCK: u32 = 0x0a00_0000;
/// log2 of a block's size.
const BLOCK_BITS: u32 = 6;

/// A node, by position. At most 65,536 of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Where a node with this index of a list is.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Its position in a list of all.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// Its address, which is its BGP identifier too.
    #[must_use]
    pub fn router_id(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_ADDRESS + self.0)
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.router_id().into()
    }

    /// Who has this address, if there are that many nodes.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(FIRST_ADDRESS).map(Self),
            IpAddr::V6(_) => None,
        }
    }

    /// One of its own blocks.
    #[must_use]
    pub fn block(self, number: u32) -> Block {
        Block(self.0 * BLOCKS + number)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A block of pod addresses: the only prefixes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u32);

impl Block {
    /// Its position in a list of all.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// Its prefix.
    #[must_use]
    pub fn prefix(self) -> IpNet {
        let address = Ipv4Addr::from_bits(FIRST_BLOCK + (self.0 << BLOCK_BITS));
        Ipv4Net::new_assert(address, 32 - 6).into()
    }

    /// Which block this prefix is.
    #[must_use]
    pub fn of(prefix: &IpNet) -> Option<Self> {
        match prefix {
            IpNet::V4(prefix) => prefix
                .network()
                .to_bits()
                .checked_sub(FIRST_BLOCK)
                .map(|offset| Self(offset >> BLOCK_BITS)),
            IpNet::V6(_) => None,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_each_others_inverse() {
        for number in [0, 1, 255, 4_999, 65_535] {
            let node = NodeId(number);
            assert_eq!(NodeId::of(node.address()), Some(node));
            for block in (0..BLOCKS).map(|block| node.block(block)) {
                assert_eq!(Block::of(&block.prefix()), Some(block));
            }
        }
        assert_eq!(NodeId(0).block(1).to_string(), "10.0.0.64/26");
    }
}
