//! 100,000 routes into the kernel and out of it: a bare loop of batches, the reconciler, the driver that also listens to
//! events, and `ip -batch`, in one run. Needs CAP_SYS_ADMIN, for network namespaces of its own.
//!
//! `cargo bench -p netlink --bench routes [-- ROUTES]`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::{NextHop, ROUTE_PROTOCOL, Reconciler, Route, RouteKey};
use ipnet::Ipv4Net;
use netlink::packet::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink::packet::{AddressFamily, RouteNetlinkMessage};
use netlink::setup::{self, VethEnd};
use netlink::{Driver, Socket, kernel, netns};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as Domain, RecvFlags, SendFlags, SocketType};
use rustix::time::{ClockId, clock_gettime};

/// Runs of each; the median counts.
const RUNS: usize = 5;
/// Operations that the owner of a reconciler lets it plan in one turn.
const TURN: usize = 4096;

/// From how many routes, and the link that they go through, to what each phase took.
type Way = fn(u32, u32) -> [Duration; 3];

/// The three phases of a run.
const PHASES: [&str; 3] = ["add", "replace", "delete"];

fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(100_000);
    let ways: [(&str, Way); 4] = [
        ("bare loop", bare),
        ("reconciler", reconciler),
        ("driver", driver),
        ("ip -batch", ip_batch),
    ];
    println!(
        "{count} IPv4 /32 routes, medians of {RUNS} runs, in thousand routes a second of processor time\n(ratio to the bare loop)\n"
    );
    println!(
        "{:12}{:>18}{:>18}{:>18}",
        "", PHASES[0], PHASES[1], PHASES[2]
    );
    let mut base = None;
    for (name, way) in ways {
        let medians = medians(|| in_fresh_netns(|link| way(count, link)));
        let base = *base.get_or_insert(medians);
        let mut line = format!("{name:12}");
        for (median, base) in medians.into_iter().zip(base) {
            let rate = f64::from(count) / median.as_secs_f64() / 1000.0;
            let ratio = base.as_secs_f64() / median.as_secs_f64();
            write!(line, "{rate:>10.0} ({ratio:.2})").unwrap();
        }
        println!("{line}");
    }
    let [dump, filtered, load] = medians(|| in_fresh_netns(|link| dumps(count, link)));
    println!(
        "\ndump of ours: {dump:.1?}; of another protocol's, of which there are none: {filtered:.1?}"
    );
    println!("dump of ours into a reconciler that has them: {load:.1?}");
    println!("memory of a reconciler: {} octets a route", memory(count));
}

/// The medians of each column.
fn medians(run: impl Fn() -> [Duration; 3]) -> [Duration; 3] {
    let runs: Vec<_> = (0..RUNS).map(|_| run()).collect();
    std::array::from_fn(|column| {
        let mut column: Vec<_> = runs.iter().map(|run| run[column]).collect();
        column.sort_unstable();
        column[RUNS / 2]
    })
}

/// Runs `work` in a network namespace with a link that routes can go through.
fn in_fresh_netns<T: Send>(work: impl FnOnce(u32) -> T + Send) -> T {
    let netns = netns::create().expect("network namespaces need root, or `unshare -Urnm`");
    let run = || {
        let mut socket = Socket::open().unwrap();
        setup::create_veth(&mut socket, VethEnd::new("up0"), VethEnd::new("up1")).unwrap();
        for name in ["up0", "up1"] {
            let link = setup::link_index(&mut socket, name).unwrap();
            setup::set_up(&mut socket, link).unwrap();
        }
        let link = setup::link_index(&mut socket, "up0").unwrap();
        setup::add_address(&mut socket, link, "192.0.2.1/24".parse().unwrap()).unwrap();
        Ok(work(link))
    };
    netns::in_netns(netns, run).unwrap()
}

fn destination(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + n)
}

fn gateway(phase: usize) -> Ipv4Addr {
    if phase == 0 {
        Ipv4Addr::new(192, 0, 2, 2)
    } else {
        Ipv4Addr::new(192, 0, 2, 3)
    }
}

/// Processor time of this thread, in user space and in the kernel: the kernel works on a request inside our system call,
/// and other load on the machine does not count.
fn timed(work: impl FnOnce()) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let start = now();
    work();
    now() - start
}

/// Processor time of the children that were waited for.
fn children_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    // `cutime` and `cstime`, fields 16 and 17 of proc(5), in hundredths of a second.
    let ticks: u64 = fields
        .skip(13)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// 512 messages a system call and an acknowledgement on the last; no results kept, nothing else done.
fn bare(count: u32, link: u32) -> [Duration; 3] {
    let socket = rustix::net::socket(Domain::NETLINK, SocketType::RAW, None).unwrap();
    let kernel = SocketAddrNetlink::new(0, 0);
    let mut buffer = Vec::new();
    let mut reply = [0; 8192];
    let keys: Vec<u32> = (0..count).collect();
    std::array::from_fn(|phase| {
        timed(|| {
            for chunk in keys.chunks(512) {
                buffer.clear();
                for n in chunk {
                    let mut message = NetlinkMessage::from(bare_message(*n, link, phase));
                    message.header.flags =
                        NLM_F_REQUEST | [NLM_F_CREATE | NLM_F_EXCL, NLM_F_REPLACE, 0][phase];
                    if n == chunk.last().unwrap() {
                        message.header.flags |= NLM_F_ACK;
                    }
                    message.finalize();
                    let start = buffer.len();
                    buffer.resize(start + message.buffer_len(), 0);
                    message.serialize(&mut buffer[start..]);
                }
                rustix::net::sendto(&socket, &buffer, SendFlags::empty(), &kernel).unwrap();
                let (_, length) =
                    rustix::net::recv(&socket, &mut reply[..], RecvFlags::empty()).unwrap();
                assert_eq!(
                    (length, &reply[16..20]),
                    (36, &[0; 4][..]),
                    "one positive acknowledgement"
                );
            }
        })
    })
}

fn bare_message(n: u32, link: u32, phase: usize) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: 32,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(ROUTE_PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(destination(n).into()),
        RouteAttribute::Oif(link),
        RouteAttribute::Gateway(gateway(phase).into()),
    ];
    if phase == 2 {
        RouteNetlinkMessage::DelRoute(route)
    } else {
        RouteNetlinkMessage::NewRoute(route)
    }
}

fn want(reconciler: &mut Reconciler, count: u32, link: u32, phase: usize) {
    for n in 0..count {
        let hop = NextHop {
            via: Some(gateway(phase).into()),
            link,
            onlink: false,
        };
        let key = RouteKey::main(Ipv4Net::from(destination(n)).into(), 0);
        reconciler.set_route(key, (phase < 2).then(|| Route::unicast([hop])));
    }
}

/// From the wish for every route to the kernel's answer for every route.
fn reconciler(count: u32, link: u32) -> [Duration; 3] {
    let mut socket = Socket::open().unwrap();
    let mut reconciler = Reconciler::new(1);
    reconciler.load([], []);
    std::array::from_fn(|phase| {
        timed(|| {
            want(&mut reconciler, count, link, phase);
            let now = Instant::now();
            while reconciler.has_work() {
                let ops = reconciler.plan(TURN, now);
                for (op, result) in ops.iter().zip(kernel::apply(&mut socket, &ops)) {
                    result.as_ref().unwrap();
                    reconciler.applied(op, result, now);
                }
            }
        })
    })
}

/// The same with a monitor that hears of every change, and is read.
fn driver(count: u32, link: u32) -> [Duration; 3] {
    let mut driver = Driver::open(1).unwrap();
    driver.read().unwrap();
    std::array::from_fn(|phase| {
        timed(|| {
            want(&mut driver.reconciler, count, link, phase);
            while driver.has_work() {
                assert!(driver.write(TURN, Instant::now()).is_empty());
                assert!(!driver.read().unwrap().resynced);
            }
        })
    })
}

fn ip_batch(count: u32, _link: u32) -> [Duration; 3] {
    std::array::from_fn(|phase| {
        let mut script = String::new();
        for n in 0..count {
            let (verb, to, via) = (
                ["add", "replace", "del"][phase],
                destination(n),
                gateway(phase),
            );
            writeln!(script, "route {verb} {to}/32 via {via} dev up0").unwrap();
        }
        let ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut ip) = ip else { return Duration::MAX };
        let before = children_time();
        ip.stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        assert!(ip.wait().unwrap().success());
        children_time() - before
    })
}

/// All of ours; all of a protocol that nobody uses; all of ours into a reconciler.
fn dumps(count: u32, link: u32) -> [Duration; 3] {
    let mut socket = Socket::open().unwrap();
    let mut reconciler = Reconciler::new(1);
    reconciler.load([], []);
    want(&mut reconciler, count, link, 0);
    let now = Instant::now();
    let ops = reconciler.plan(usize::MAX, now);
    for (op, result) in ops.iter().zip(kernel::apply(&mut socket, &ops)) {
        reconciler.applied(op, result, now);
    }
    let mut dump = |protocol, expected| {
        timed(|| {
            assert_eq!(
                kernel::dump_routes(&mut socket, protocol).unwrap().len(),
                expected
            )
        })
    };
    let (ours, none) = (dump(ROUTE_PROTOCOL, count as usize), dump(200, 0));
    let load = timed(|| {
        reconciler.load(
            kernel::dump_routes(&mut socket, ROUTE_PROTOCOL).unwrap(),
            [],
        )
    });
    assert!(!reconciler.has_work());
    [ours, none, load]
}

/// Resident memory of a reconciler that is at rest, per route.
fn memory(count: u32) -> usize {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut reconciler = Reconciler::new(1);
    reconciler.load([], []);
    want(&mut reconciler, count, 1, 0);
    let now = Instant::now();
    while reconciler.has_work() {
        for op in reconciler.plan(TURN, now) {
            reconciler.applied(&op, Ok(()), now);
        }
    }
    resident().saturating_sub(before) / count as usize
}
