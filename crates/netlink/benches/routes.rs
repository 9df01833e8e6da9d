//! 100,000 routes into the kernel and out of it: a bare loop of batches, the reconciler with next hops in the routes and with
//! groups, the driver that also listens to events, and `ip -batch`, in one run. Then the move of all routes to another ToR,
//! and a dump beside a million routes of somebody else. Needs CAP_SYS_ADMIN, for network namespaces of its own.
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

use dataplane::{GroupKind, NextHop, ROUTE_PROTOCOL, Reconciler, Route, RouteKey};
use ipnet::Ipv4Net;
use netlink::packet::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink::packet::{AddressFamily, RouteNetlinkMessage};
use netlink::setup::{self, VethEnd};
use netlink::{Driver, Request, Socket, kernel, netns, sysctl};
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
    // One process for one number: what it has needed at most is its own.
    if std::env::args().any(|argument| argument == FILTERED) {
        return filtered_dump();
    }
    let ways: [(&str, Way); 5] = [
        ("bare loop", bare),
        ("inline", |count, link| reconciler(count, link, None)),
        ("groups", |count, link| reconciler(count, link, GROUPS)),
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
    failovers();
    foreign();
}

/// What routes point at where they point at groups.
const GROUPS: Option<GroupKind> = Some(GroupKind::HashThreshold);
/// Has this program be the child that dumps.
const FILTERED: &str = "--filtered-dump";
/// How many routes move to the other ToR.
const MOVING: u32 = 10_000;
/// How many routes somebody else has.
const FOREIGN: u32 = 1_000_000;

/// All routes of a node go to the other ToR: each by itself, and by their group.
fn failovers() {
    println!("\n{MOVING} routes move to the other ToR, medians of {RUNS} runs, processor time:");
    let ways: [(&str, Option<GroupKind>, &str); 3] = [
        ("each by itself", None, "1"),
        ("group, nexthop_compat_mode 1", GROUPS, "1"),
        ("group, nexthop_compat_mode 0", GROUPS, "0"),
    ];
    for (name, groups, compat) in ways {
        let run = || {
            in_fresh_netns(|link| {
                sysctl::set("net.ipv4.nexthop_compat_mode", compat).unwrap();
                failover(link, groups)
            })
        };
        let runs: Vec<_> = (0..RUNS).map(|_| run()).collect();
        let median = |of: fn(&(Duration, Duration, u64)) -> Duration| {
            let mut all: Vec<_> = runs.iter().map(of).collect();
            all.sort_unstable();
            all[RUNS / 2]
        };
        println!(
            "  {name:30} {:>8.3} ms in the kernel, {:>6.2} ms to say so, {} operations",
            median(|run| run.0).as_secs_f64() * 1e3,
            median(|run| run.1).as_secs_f64() * 1e3,
            runs[0].2
        );
    }
}

/// Time to have the kernel do it, time until it was asked, and how many operations that took.
fn failover(link: u32, groups: Option<GroupKind>) -> (Duration, Duration, u64) {
    let mut socket = Socket::open().unwrap();
    let mut reconciler = Reconciler::new(1);
    reconciler.use_groups(groups);
    reconciler.load([], []);
    let now = Instant::now();
    want(&mut reconciler, MOVING, link, 0);
    // Its object is there already: the other ToR has routes of its own.
    let other = NextHop {
        via: Some(gateway(1).into()),
        link,
        onlink: false,
    };
    let key = RouteKey::main("10.200.0.0/16".parse().unwrap(), 0);
    reconciler.set_route(key, Some(Route::unicast([other])));
    settle(&mut reconciler, &mut socket, now);
    let mut ops = Vec::new();
    let said = timed(|| {
        want(&mut reconciler, MOVING, link, 1);
        ops = reconciler.plan(usize::MAX, now);
    });
    let mut results = Vec::new();
    let done = timed(|| results = kernel::apply(&mut socket, &ops));
    assert!(results.iter().all(Result::is_ok));
    (done, said, ops.len() as u64)
}

fn settle(reconciler: &mut Reconciler, socket: &mut Socket, now: Instant) {
    while reconciler.has_work() {
        let ops = reconciler.plan(TURN, now);
        for (op, result) in ops.iter().zip(kernel::apply(socket, &ops)) {
            result.as_ref().unwrap();
            reconciler.applied(op, result, now);
        }
    }
}

/// A million routes of somebody else, and a dump of ours, of which there are none, in a process of its own.
fn foreign() {
    println!("\ndump of ours beside {FOREIGN} routes of somebody else, medians of {RUNS} runs:");
    in_fresh_netns(|link| {
        let mut socket = Socket::open().unwrap();
        let request = |n| {
            let mut message = bare_message(n, link, 0);
            if let RouteNetlinkMessage::NewRoute(route) = &mut message {
                route.header.protocol = RouteProtocol::Other(200);
            }
            Request::create(message)
        };
        let results = socket.request_batch((0..FOREIGN).map(request));
        assert!(results.iter().all(Result::is_ok));
        let program = std::env::current_exe().unwrap();
        let mut runs: Vec<(Duration, u64)> = (0..RUNS)
            .map(|_| {
                let output = Command::new(&program).arg(FILTERED).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                let (micros, kib) = text.trim().split_once(' ').unwrap();
                (
                    Duration::from_micros(micros.parse().unwrap()),
                    kib.parse().unwrap(),
                )
            })
            .collect();
        runs.sort_unstable();
        let (took, kib) = runs[RUNS / 2];
        println!(
            "  {:.1} ms; the process needed {:.1} MiB at most",
            took.as_secs_f64() * 1e3,
            kib as f64 / 1024.0
        );
    });
}

/// Prints the processor time of one dump in microseconds, and the most resident memory that this process has had, in KiB.
fn filtered_dump() {
    let mut socket = Socket::open().unwrap();
    let took = timed(|| {
        let routes = kernel::dump_routes(&mut socket, ROUTE_PROTOCOL).unwrap();
        assert_eq!(routes.len(), 0);
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    println!("{} {peak}", took.as_micros());
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
fn reconciler(count: u32, link: u32, groups: Option<GroupKind>) -> [Duration; 3] {
    let mut socket = Socket::open().unwrap();
    let mut reconciler = Reconciler::new(1);
    reconciler.use_groups(groups);
    reconciler.load([], []);
    std::array::from_fn(|phase| {
        timed(|| {
            want(&mut reconciler, count, link, phase);
            settle(&mut reconciler, &mut socket, Instant::now());
        })
    })
}

/// The same, with groups, and a monitor that hears of every change, and is read.
fn driver(count: u32, link: u32) -> [Duration; 3] {
    let mut driver = Driver::open(1).unwrap();
    assert!(driver.use_groups(GroupKind::HashThreshold).unwrap());
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
