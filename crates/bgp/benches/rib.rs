//! CPU seconds and memory of the RIB alone, codec included: `cargo bench -p bgp --bench rib [full] [ten] [fanout] [flap] [nexthop]`.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::fs;
use std::net::Ipv4Addr;

use bgp::config::{Client, Decision, NextHopMode, Rules};
use bgp::policy::Policy;
use bgp::rib::{DownKind, Generation, PeerIndex, PeerSession, Rib};
use bgp_wire::header::{decode, frame_len};
use bgp_wire::{AsPath, Attributes, Community, Context, Family, Message, NextHop, UpdateBuilder};
use ipnet::{IpNet, Ipv4Net};

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let benches: [(&str, fn()); 5] = [
        ("full", full),
        ("ten", ten),
        ("fanout", fanout),
        ("flap", flap),
        ("nexthop", next_hop),
    ];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|other| other == name) {
            println!("{name}");
            bench();
        }
    }
}

/// One external peer sends a full table, one is to be told all of it; then the first is gone.
fn full() {
    let feed = feed(1, 65001, 1_000_000, 60_000);
    let mut meter = Meter::new();
    let mut rib = rib();
    up(&mut rib, 1, external(1, 65001));
    up(&mut rib, 2, external(2, 65002));
    for messages in feed.chunks(100) {
        for message in messages {
            receive(&mut rib, 1, message);
        }
        drain(&mut rib, 2);
    }
    drain(&mut rib, 2);
    let paths = rib.memory().paths;
    meter.print("learned and announced", paths);
    meter.print_memory(&rib);
    rib.peer_down(PeerIndex(1), Generation(1), DownKind::Drop);
    work(&mut rib, &[2]);
    meter.print("dropped and withdrawn", paths);
    meter.print_memory(&rib);
}

/// Ten external peers send the same prefixes, one observer is told the best.
fn ten() {
    let feeds: Vec<Vec<Vec<u8>>> = (1..=10_u8)
        .map(|peer| feed(peer, 65000 + u32::from(peer), 100_000, 5_000))
        .collect();
    let mut meter = Meter::new();
    let mut rib = rib();
    for peer in 1..=11_u8 {
        up(
            &mut rib,
            peer.into(),
            external(peer, 65000 + u32::from(peer)),
        );
    }
    for at in (0..feeds[0].len()).step_by(10) {
        for (peer, feed) in (1..).zip(&feeds) {
            for message in feed.iter().skip(at).take(10) {
                receive(&mut rib, peer, message);
            }
        }
        drain(&mut rib, 11);
    }
    let paths = rib.memory().paths;
    meter.print("learned and announced", paths);
    meter.print_memory(&rib);
    for peer in 1..=10 {
        rib.peer_down(PeerIndex(peer), Generation(1), DownKind::Drop);
        work(&mut rib, &[11]);
    }
    meter.print("dropped and withdrawn", paths);
}

/// The next hops of a full table become dearer, and one that few paths have goes and comes back.
fn next_hop() {
    let mut rib = rib();
    up(&mut rib, 1, external(1, 65001));
    up(&mut rib, 2, external(2, 65002));
    for message in feed(1, 65001, 1_000_000, 60_000) {
        receive(&mut rib, 1, &message);
    }
    for message in feed(2, 65002, 1_000, 10) {
        receive(&mut rib, 2, &message);
    }
    let paths = rib.memory().paths;
    let [many, few] = [1, 2].map(|host| external(host, 65000).peer_address);
    let mut meter = Meter::new();
    rib.set_next_hop(many, Some(7));
    work(&mut rib, &[]);
    meter.print("next hop of all but some", paths);
    rib.set_next_hop(few, None);
    work(&mut rib, &[]);
    meter.print("next hop of a thousand gone", paths);
    rib.set_next_hops([(many, Some(9)), (few, Some(9))]);
    work(&mut rib, &[]);
    meter.print("both at once", paths);
}

const CLIENTS: u32 = 1000;

/// A route reflector's clients, ten routes each.
fn fanout() {
    let mut meter = Meter::new();
    let mut rib = rib();
    for client in 1..=CLIENTS {
        up(&mut rib, client, internal(client));
    }
    let mut octets = 0;
    for client in 1..=CLIENTS {
        receive(&mut rib, client, &client_routes(client, 100));
        if client % 10 == 0 {
            octets += (1..=CLIENTS)
                .map(|reader| drain(&mut rib, reader))
                .sum::<usize>();
        }
    }
    let told = (CLIENTS * (CLIENTS - 1) * 10) as usize;
    meter.print("reflected", told);
    println!("  {octets} octets");
    meter.print_memory(&rib);
    let mut late = 0;
    for client in CLIENTS + 1..=CLIENTS + 100 {
        up(&mut rib, client, internal(client));
        late += drain(&mut rib, client);
    }
    meter.print("told to 100 late clients", 100 * CLIENTS as usize * 10);
    println!("  {late} octets");
}

/// One client of 500 goes and comes back.
fn flap() {
    const FLAPS: u32 = 100;
    let mut rib = rib();
    for client in 1..=500 {
        up(&mut rib, client, internal(client));
        receive(&mut rib, client, &client_routes(client, 100));
    }
    for reader in 1..=500 {
        drain(&mut rib, reader);
    }
    let mut meter = Meter::new();
    for flap in 0..FLAPS {
        let client = 1 + flap % 500;
        rib.peer_down(PeerIndex(client), Generation(1), DownKind::Drop);
        work(&mut rib, &[]);
        (1..=500).for_each(|reader| assert!(reader == client || drain(&mut rib, reader) > 0));
        up(&mut rib, client, internal(client));
        receive(&mut rib, client, &client_routes(client, 100));
        (1..=500).for_each(|reader| assert!(drain(&mut rib, reader) > 0));
    }
    meter.print("flaps", FLAPS as usize);
}

fn rib() -> Rib {
    Rib::new(64512, Ipv4Addr::new(10, 255, 0, 1), Decision::default())
}

fn up(rib: &mut Rib, peer: u32, session: PeerSession) {
    rib.peer_up(PeerIndex(peer), Generation(1), session);
}

fn receive(rib: &mut Rib, peer: u32, messages: &[u8]) {
    let context = context(peer);
    let mut rest = messages;
    while !rest.is_empty() {
        let len = frame_len(rest, &context).unwrap().unwrap();
        let (message, next) = rest.split_at(len);
        rest = next;
        let Ok(Message::Update(update)) = decode(message, &context) else {
            continue;
        };
        rib.update(PeerIndex(peer), Generation(1), &update);
    }
}

/// Does what concerns all routes, turn by turn, and tells these peers in between.
fn work(rib: &mut Rib, peers: &[u32]) {
    loop {
        rib.work();
        for &peer in peers {
            drain(rib, peer);
        }
        if !rib.has_work() {
            return;
        }
    }
}

fn drain(rib: &mut Rib, peer: u32) -> usize {
    std::iter::from_fn(|| rib.poll_transmit(PeerIndex(peer)))
        .map(|bytes| bytes.len())
        .sum()
}

/// Clients of the reflector are internal, whoever has a small number external.
fn context(peer: u32) -> Context {
    Context {
        four_octet_as: true,
        extended_message: false,
        ibgp: peer > 11,
    }
}

fn external(host: u8, asn: u32) -> PeerSession {
    PeerSession {
        ibgp: false,
        peer_asn: asn,
        local_asn: 64512,
        peer_router_id: Ipv4Addr::new(10, 0, 0, host),
        peer_address: Ipv4Addr::new(192, 0, 2, host).into(),
        local_address: Ipv4Addr::new(192, 0, 2, 254).into(),
        other_local_address: None,
        link_local: None,
        shared_subnet: None,
        next_hop: NextHopMode::Auto,
        extended_next_hop: false,
        enhanced_refresh: false,
        context: Context {
            four_octet_as: true,
            extended_message: false,
            ibgp: false,
        },
        families: vec![Family::IPV4_UNICAST],
        retained: Vec::new(),
        restarted: false,
        rules: Rules::default(),
        import: Policy::accept_all(),
        export: Policy::accept_all(),
    }
}

fn internal(client: u32) -> PeerSession {
    PeerSession {
        ibgp: true,
        peer_asn: 64512,
        peer_router_id: Ipv4Addr::from_bits(0x0a00_0000 + client),
        peer_address: Ipv4Addr::from_bits(0xc612_0000 + client).into(),
        rules: Rules {
            client: Some(Client {
                cluster_id: Ipv4Addr::new(10, 255, 0, 1),
                meshed: false,
            }),
            ..Rules::default()
        },
        context: Context {
            four_octet_as: true,
            extended_message: false,
            ibgp: true,
        },
        ..external(1, 64512)
    }
}

/// Ten /26 of a client's.
fn client_routes(client: u32, local_pref: u32) -> Vec<u8> {
    let attributes = Attributes {
        next_hop: Some(NextHop::V4(Ipv4Addr::from_bits(0xc612_0000 + client))),
        local_pref: Some(local_pref),
        ..Attributes::originated()
    };
    let prefixes = (0..10).map(|index| prefix((client * 10 + index) << 6, 26));
    let context = Context {
        four_octet_as: true,
        extended_message: false,
        ibgp: true,
    };
    let mut out = Vec::new();
    update(&mut out, &context, &attributes, prefixes);
    out
}

/// As many messages as attribute sets, each with its share of the prefixes.
fn feed(peer: u8, asn: u32, prefixes: u32, sets: u32) -> Vec<Vec<u8>> {
    let context = Context {
        four_octet_as: true,
        extended_message: false,
        ibgp: false,
    };
    let each = prefixes.div_ceil(sets);
    (0..sets)
        .map(|set| {
            let path: Vec<u32> = (0..2 + set % 4)
                .map(|hop| 100_000 + (set >> hop) * 7 + hop)
                .collect();
            let attributes = Attributes {
                as_path: AsPath::sequence([[asn].as_slice(), &path].concat()),
                next_hop: Some(NextHop::V4(Ipv4Addr::new(192, 0, 2, peer))),
                med: (set % 3 == 0).then_some(set % 100),
                communities: (0..set % 5)
                    .map(|index| Community((set << 8) + index))
                    .collect(),
                ..Attributes::originated()
            };
            let first = set * each;
            let last = (first + each).min(prefixes);
            let mut out = Vec::new();
            update(
                &mut out,
                &context,
                &attributes,
                (first..last).map(|index| prefix((index + 0x1_0000) << 8, 24)),
            );
            out
        })
        .collect()
}

fn prefix(bits: u32, len: u8) -> IpNet {
    Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap().into()
}

fn update(
    out: &mut Vec<u8>,
    context: &Context,
    attributes: &Attributes,
    prefixes: impl Iterator<Item = IpNet>,
) {
    let mut section = Vec::new();
    attributes.encode(context, &mut section);
    let mut builder = UpdateBuilder::announce(
        out,
        context,
        &section,
        attributes.next_hop.unwrap(),
        Family::IPV4_UNICAST,
    );
    for prefix in prefixes {
        builder.push(prefix).unwrap();
    }
    builder.finish();
}

/// CPU time of this thread and memory of this process, by the kernel's count.
struct Meter {
    cpu: f64,
    resident: f64,
}

impl Meter {
    fn new() -> Self {
        Self {
            cpu: cpu_seconds(),
            resident: resident_mib(),
        }
    }

    fn print(&mut self, what: &str, routes: usize) {
        let spent = cpu_seconds() - self.cpu;
        #[expect(clippy::cast_precision_loss, reason = "for a person")]
        let each = spent * 1e9 / routes as f64;
        println!("  {what}: {spent:.3} CPU s, {each:.0} ns each of {routes}");
        self.cpu = cpu_seconds();
    }

    fn print_memory(&self, rib: &Rib) {
        let memory = rib.memory();
        let grown = resident_mib() - self.resident;
        #[expect(clippy::cast_precision_loss, reason = "for a person")]
        let each = (
            memory.octets as f64 / memory.paths as f64,
            grown * 1_048_576.0 / memory.paths as f64,
        );
        println!(
            "  {} nets, {} paths, {} sets: {:.1} octets a path by our count, {:.1} resident; {grown:.1} MiB",
            memory.nets, memory.paths, memory.attribute_sets, each.0, each.1
        );
    }
}

fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn resident_mib() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1_048_576.0
}
