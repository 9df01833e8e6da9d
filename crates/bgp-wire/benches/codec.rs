//! Reading and writing UPDATEs: time a message, and time a prefix.
//!
//! `cargo bench -p bgp-wire`. The attributes are what an ordinary external route has: ORIGIN, an AS_PATH of four
//! numbers, NEXT_HOP and three communities. Other crates beside this one: `benches/peers`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::{
    AsPath, Attributes, Community, Context, Family, Message, NextHop, UpdateBuilder, header,
};
use divan::Bencher;
use divan::counter::ItemsCount;
use ipnet::IpNet;

#[global_allocator]
static ALLOC: divan::AllocProfiler = divan::AllocProfiler::system();

const CONTEXT: Context = Context {
    four_octet_as: true,
    extended_message: false,
    ibgp: false,
};
const COUNTS: [u32; 3] = [1, 16, 700];

fn main() {
    divan::main();
}

fn attributes() -> Attributes {
    Attributes {
        as_path: AsPath::sequence([64512, 3356, 174, 4_200_000_001]),
        communities: vec![Community(1), Community(2), Community::NO_EXPORT],
        ..Attributes::originated()
    }
}

fn section() -> Vec<u8> {
    let mut section = Vec::new();
    attributes().encode(&CONTEXT, &mut section);
    section
}

fn prefixes(family: Family, count: u32) -> Vec<IpNet> {
    let prefix = |n: u32| match family {
        Family::IPV4_UNICAST => {
            IpNet::new_assert(Ipv4Addr::from_bits(0x0a00_0000 | n << 8).into(), 24)
        }
        _ => {
            let bits = 0x2001_0db8 << 96 | u128::from(n) << 80;
            IpNet::new_assert(Ipv6Addr::from_bits(bits).into(), 48)
        }
    };
    (0..count).map(prefix).collect()
}

fn next_hop(family: Family) -> NextHop {
    match family {
        Family::IPV4_UNICAST => NextHop::V4([192, 0, 2, 1].into()),
        _ => NextHop::V6("2001:db8::1".parse().unwrap()),
    }
}

fn write(out: &mut Vec<u8>, section: &[u8], family: Family, prefixes: &[IpNet]) {
    let mut builder = UpdateBuilder::announce(out, &CONTEXT, section, next_hop(family), family);
    for prefix in prefixes {
        // Seven hundred IPv6 prefixes don't fit; what does is what is measured.
        if builder.push(*prefix).is_err() {
            break;
        }
    }
    builder.finish();
}

fn message(family: Family, count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, &section(), family, &prefixes(family, count));
    out
}

/// From a frame to attributes and checked runs, prefixes not looked at.
#[divan::bench(args = COUNTS)]
fn decode(bencher: Bencher<'_, '_>, count: u32) {
    let message = message(Family::IPV4_UNICAST, count);
    bencher.bench(|| header::decode(black_box(&message), &CONTEXT));
}

/// The same, and every prefix taken out.
#[divan::bench(args = COUNTS)]
fn decode_and_iterate(bencher: Bencher<'_, '_>, count: u32) {
    iterate(bencher, Family::IPV4_UNICAST, count);
}

#[divan::bench(args = [16, 500])]
fn decode_and_iterate_ipv6(bencher: Bencher<'_, '_>, count: u32) {
    iterate(bencher, Family::IPV6_UNICAST, count);
}

fn iterate(bencher: Bencher<'_, '_>, family: Family, count: u32) {
    let message = message(family, count);
    bencher.counter(ItemsCount::new(count)).bench(|| {
        let Message::Update(update) = header::decode(black_box(&message), &CONTEXT).unwrap() else {
            unreachable!()
        };
        for (_, run) in &update.reachable {
            run.iter().for_each(|prefix| {
                black_box(prefix);
            });
        }
        update
    });
}

#[divan::bench(args = COUNTS)]
fn encode(bencher: Bencher<'_, '_>, count: u32) {
    encode_family(bencher, Family::IPV4_UNICAST, count);
}

#[divan::bench(args = [16, 500])]
fn encode_ipv6(bencher: Bencher<'_, '_>, count: u32) {
    encode_family(bencher, Family::IPV6_UNICAST, count);
}

fn encode_family(bencher: Bencher<'_, '_>, family: Family, count: u32) {
    let (section, prefixes) = (section(), prefixes(family, count));
    let mut out = Vec::with_capacity(header::MAX_LEN);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        out.clear();
        write(&mut out, black_box(&section), family, &prefixes);
    });
}

/// Attributes to the bytes that a RIB interns.
#[divan::bench]
fn encode_canonical(bencher: Bencher<'_, '_>) {
    let attributes = attributes();
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        black_box(&attributes).encode_canonical(&mut out);
    });
}

#[divan::bench]
fn decode_canonical(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    attributes().encode_canonical(&mut bytes);
    bencher.bench(|| Attributes::decode_canonical(black_box(&bytes)));
}
