//! Which part of a pool a node could take next. Blocks of a pool have one size, and are numbered from its start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::pool::number;

/// How many blocks of prefix length `len` a pool has; 0 when one is larger than the pool.
#[must_use]
pub fn count(pool: IpNet, len: u8) -> u128 {
    let bits = match len.checked_sub(pool.prefix_len()) {
        Some(bits) if len <= pool.max_prefix_len() => u32::from(bits),
        _ => return 0,
    };
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// The block of the pool that holds an address; `None` for an address outside, or blocks larger than the pool.
#[must_use]
pub fn block_of(pool: IpNet, len: u8, address: IpAddr) -> Option<IpNet> {
    (pool.contains(&address) && count(pool, len) > 0)
        .then(|| IpNet::new(address, len).ok())
        .flatten()
        .map(|block| block.trunc())
}

/// The first block after block number `start` (modulo their number, going round once) that has no address in common
/// with `occupied`, and is not all `reserved`. Different starts keep nodes from wanting the same block.
#[must_use]
pub fn next_free(
    pool: IpNet,
    len: u8,
    occupied: &[IpNet],
    reserved: &[IpNet],
    start: u64,
) -> Option<IpNet> {
    let count = count(pool, len);
    if count == 0 {
        return None;
    }
    let excluded = excluded(pool, len, occupied, reserved);
    let start = u128::from(start) % count;
    let free = |from: u128, end: u128| {
        let mut index = from;
        for (first, last) in &excluded {
            if (*first..=*last).contains(&index) {
                index = last.saturating_add(1);
            }
        }
        (index < end).then_some(index)
    };
    let index = free(start, count).or_else(|| free(0, start))?;
    block(pool, len, index)
}

/// How many blocks of the pool have an address in common with `occupied`, or are all reserved.
#[must_use]
pub fn taken(pool: IpNet, len: u8, occupied: &[IpNet], reserved: &[IpNet]) -> u128 {
    let mut next = 0;
    let mut taken = 0;
    for (first, last) in excluded(pool, len, occupied, reserved) {
        let first = first.max(next);
        if last >= first {
            taken += last - first + 1;
            next = last + 1;
        }
    }
    taken
}

/// Numbers of blocks that can't be had, as ranges from first to last, sorted.
fn excluded(pool: IpNet, len: u8, occupied: &[IpNet], reserved: &[IpNet]) -> Vec<(u128, u128)> {
    if count(pool, len) == 0 {
        return Vec::new();
    }
    let size = u32::from(pool.max_prefix_len() - len);
    let index = |address: IpAddr| {
        let offset = number(address) - number(pool.network());
        offset.checked_shr(size).unwrap_or(0)
    };
    let range = |cidr: &IpNet| {
        if cidr.contains(&pool) {
            return Some((index(pool.network()), index(pool.broadcast())));
        }
        pool.contains(cidr)
            .then(|| (index(cidr.network()), index(cidr.broadcast())))
    };
    let whole = reserved.iter().filter(|cidr| cidr.prefix_len() <= len);
    let mut ranges: Vec<(u128, u128)> = occupied.iter().chain(whole).filter_map(range).collect();
    ranges.sort_unstable();
    ranges
}

fn block(pool: IpNet, len: u8, index: u128) -> Option<IpNet> {
    let size = u32::from(pool.max_prefix_len() - len);
    let offset = index.checked_shl(size).unwrap_or(0);
    let base = number(pool.network()) + offset;
    match pool {
        IpNet::V4(_) => {
            let address = Ipv4Addr::from_bits(u32::try_from(base).ok()?);
            Some(Ipv4Net::new(address, len).ok()?.into())
        }
        IpNet::V6(_) => Some(Ipv6Net::new(Ipv6Addr::from_bits(base), len).ok()?.into()),
    }
}
