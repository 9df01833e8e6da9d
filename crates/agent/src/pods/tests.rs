//! What needs no kernel; the rest is driven through the real shim, in the tests of `cni`.

use super::*;
use crate::blocks::Want;
use ipam::AllocateError;
use registry::{Registry, Shortage};

fn id(container_id: &str, ifname: &str) -> AttachmentId {
    AttachmentId {
        container_id: container_id.into(),
        ifname: ifname.into(),
    }
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split_whitespace()
        .map(|address| address.parse().unwrap())
        .collect()
}

fn registry(cidrs: &str) -> Registry {
    let mut registry = Registry::new(Duration::from_secs(60));
    let plan = AddressPlan {
        cidrs: cidrs.split(' ').map(|cidr| cidr.parse().unwrap()).collect(),
        ..AddressPlan::default()
    };
    registry.set_addressing(&plan, &[], 1500);
    registry
}

fn endpoint(id: &AttachmentId, link: u32, own: &str) -> Endpoint {
    Endpoint {
        container_id: id.container_id.clone(),
        ifname: id.ifname.clone(),
        network: "margay".into(),
        netns: String::new(),
        link,
        host_ifname: id.identity().host_ifname,
        mac: [2, 0, 0, 0, 0, 1],
        host_mac: [2, 0, 0, 0, 0, 2],
        addresses: addresses(own),
        spoofing: false,
        pod: None,
    }
}

#[test]
fn one_address_a_family_or_none_at_all() {
    let mut registry = registry("10.0.0.0/30 fd00::/64");
    assert_eq!(
        registry.allocate(&[], None, clock()).unwrap(),
        addresses("10.0.0.1 fd00::1")
    );
    assert_eq!(
        registry
            .allocate(&addresses("fd00::99"), None, clock())
            .unwrap(),
        addresses("10.0.0.2 fd00::99")
    );
    // No IPv4 address is left: the IPv6 address that was asked for is free again.
    assert!(
        registry
            .allocate(&addresses("fd00::77"), None, clock())
            .is_err()
    );
    let full = registry.check_addresses(clock()).unwrap_err();
    assert!(full.to_string().contains("IPv4 address: 2 of 2"), "{full}");
    registry.give_back(&addresses("10.0.0.1"));
    assert_eq!(registry.check_addresses(clock()), Ok(()));
    assert_eq!(
        registry
            .allocate(&addresses("fd00::77"), None, clock())
            .unwrap(),
        addresses("10.0.0.1 fd00::77")
    );
}

#[test]
fn a_late_event_does_not_take_the_next_endpoint() {
    let (mut registry, id) = (registry("10.0.0.0/24"), id("a", "eth0"));
    registry.insert(endpoint(&id, 7, "10.0.0.1"));
    registry.insert(endpoint(&id, 9, "10.0.0.2"));
    assert_eq!(registry.remove_link(7, clock()), None);
    assert!(registry.get(&id).is_some());
    assert_eq!(
        registry
            .remove_link(9, clock())
            .map(|endpoint| endpoint.link),
        Some(9)
    );
    assert_eq!(registry.remove_link(9, clock()), None);
}

#[test]
fn an_address_found_twice_is_free_when_both_are_gone() {
    let mut registry = registry("10.0.0.0/30");
    assert!(
        registry
            .adopt(endpoint(&id("a", "eth0"), 7, "10.0.0.1"))
            .is_empty()
    );
    assert_eq!(
        registry.adopt(endpoint(&id("b", "eth0"), 8, "10.0.0.1")),
        addresses("10.0.0.1")
    );
    registry.remove_link(7, clock());
    assert_eq!(registry.usage(clock())[0].used, 1);
    registry.remove_link(8, clock());
    assert_eq!(
        (
            registry.usage(clock())[0].used,
            registry.usage(clock())[0].cooling
        ),
        (0, 1)
    );
}

#[test]
fn a_fixed_address_can_be_used_again_at_once() {
    let (mut registry, id) = (registry("10.0.0.0/24"), id("a", "eth0"));
    let fixed = addresses("10.0.0.9");
    assert_eq!(registry.allocate(&fixed, None, clock()).unwrap(), fixed);
    registry.insert(endpoint(&id, 7, "10.0.0.9"));
    registry.remove_link(7, clock());
    assert_eq!(registry.usage(clock())[0].cooling, 1);
    assert_eq!(registry.allocate(&fixed, None, clock()).unwrap(), fixed);
}

#[test]
fn an_address_that_is_given_back_stays_with_who_else_has_it() {
    let mut registry = registry("10.0.0.0/30");
    registry.adopt(endpoint(&id("a", "eth0"), 7, "10.0.0.1"));
    registry.adopt(endpoint(&id("b", "eth0"), 8, "10.0.0.1"));
    let taken = registry.take_link(7).unwrap();
    registry.give_back(&taken.addresses);
    assert_eq!(registry.usage(clock())[0].used, 1);
    let taken = registry.take_link(8).unwrap();
    registry.give_back(&taken.addresses);
    let usage = &registry.usage(clock())[0];
    assert_eq!((usage.used, usage.cooling), (0, 0));
}

#[test]
fn only_the_first_attachment_is_alone() {
    let mut registry = registry("10.0.0.0/24");
    registry.insert(endpoint(&id("a", "eth0"), 7, "10.0.0.1"));
    assert!(!registry.has_other(&id("a", "eth0")));
    assert!(registry.has_other(&id("a", "eth1")));
    assert!(!registry.has_other(&id("b", "eth0")));
}

struct NoSink;

impl EndpointSink for NoSink {
    fn up(&self, _: Endpoint) -> Result<(), String> {
        Ok(())
    }

    fn down(&self, _: &Endpoint) {}

    fn synced(&self, _: Vec<Endpoint>) {}
}

#[test]
fn a_claim_excludes_others_until_it_is_dropped() {
    let shared = Arc::new(Shared {
        registry: Mutex::new(registry("10.0.0.0/24")),
        freed: Condvar::new(),
        blocks: OnceLock::new(),
        sink: Arc::new(NoSink),
        metrics: Arc::default(),
    });
    let claim = Claim::wait(&shared, &id("a", "eth0"), Duration::ZERO).unwrap();
    assert!(Claim::wait(&shared, &id("b", "eth0"), Duration::ZERO).is_some());
    assert!(Claim::wait(&shared, &id("a", "eth0"), Duration::ZERO).is_none());
    let (waiting, id) = (Arc::clone(&shared), id("a", "eth0"));
    let waiter =
        std::thread::spawn(move || Claim::wait(&waiting, &id, Duration::from_secs(60)).is_some());
    drop(claim);
    assert!(waiter.join().unwrap());
}

#[test]
fn only_names_that_we_make_are_ours() {
    assert!(is_host_ifname("mgy6ad2516ced2a"));
    for other in [
        "mgy6ad2516ced2",
        "mgy6ad2516ced2aa",
        "mgyuplink0000",
        "mgy6AD2516CED2A",
        "veth6ad2516ced2a",
        "mgy",
    ] {
        assert!(!is_host_ifname(other), "{other}");
    }
}

#[test]
fn durations_fall_into_buckets() {
    let metrics = Metrics::default();
    for milliseconds in [0, 1, 3, 20, 5000] {
        metrics.add.record(
            metrics::Outcome::Succeeded,
            Duration::from_millis(milliseconds),
        );
    }
    let counts = metrics
        .add
        .buckets
        .each_ref()
        .map(|bucket| bucket.load(Ordering::Relaxed));
    assert_eq!(counts, [2, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(metrics.add.succeeded.load(Ordering::Relaxed), 5);
}

/// A file system of a test's own: files, and folders with the number of what is mounted there.
#[derive(Default)]
struct FakeFiles {
    files: Vec<&'static str>,
    folders: Vec<(&'static str, u64)>,
}

impl collector::Files for FakeFiles {
    fn exists(&self, path: &std::path::Path) -> bool {
        self.files
            .iter()
            .any(|file| path == std::path::Path::new(file))
    }

    fn folder(&self, path: &std::path::Path) -> Option<(u64, u64)> {
        let folder = self
            .folders
            .iter()
            .find(|(folder, _)| path == std::path::Path::new(folder))?;
        Some((folder.1, 1))
    }
}

#[test]
fn a_file_is_missed_where_one_was_seen_and_after_its_time() {
    let grace = Duration::from_secs(300);
    let mut collector = Collector::new(grace);
    let at = |container: &str, link, netns: &str| Endpoint {
        netns: netns.into(),
        ..endpoint(&id(container, "eth0"), link, "10.0.0.1")
    };
    let all = || {
        vec![
            at("a", 7, "/run/netns/a"),
            at("b", 9, "/run/netns/b"),
            at("c", 11, "/elsewhere/c"),
            at("d", 13, "/proc/1/ns/net"),
            at("e", 15, ""),
        ]
    };
    let mut files = FakeFiles {
        files: vec![],
        folders: vec![("/run/netns", 1), ("/proc/1/ns", 1)],
    };
    let start = clock();
    // Never seen anything there: it may be another file system.
    let mut look = |files: &FakeFiles, endpoints, seconds| -> Vec<String> {
        let now = start + Duration::from_secs(seconds);
        let gone = collector.look(endpoints, files, now);
        gone.into_iter()
            .map(|endpoint| endpoint.container_id)
            .collect()
    };
    let none = Vec::<String>::new();
    assert_eq!(look(&files, all(), 0), none);
    assert_eq!(look(&files, all(), 1000), none);
    files.files = vec!["/run/netns/a", "/run/netns/b"];
    assert_eq!(look(&files, all(), 1001), none);
    files.files = vec!["/run/netns/a"];
    assert_eq!(look(&files, all(), 1100), none);
    assert_eq!(look(&files, all(), 1399), none);
    // Another folder has been mounted there: nothing is known about it.
    files.folders[0].1 = 2;
    let mounted_over = FakeFiles {
        files: vec![],
        folders: files.folders.clone(),
    };
    assert_eq!(look(&mounted_over, all(), 1401), none);
    files.folders[0].1 = 1;
    assert_eq!(look(&files, all(), 1402), none, "and the time begins anew");
    assert_eq!(look(&files, all(), 1702), ["b"]);
    // The same container on another link was attached again.
    let mut again = all();
    again[1].link = 17;
    assert_eq!(look(&files, again, 1703), none);
}

/// A pool with blocks, for pods of one team or of all.
fn pooled(blocks: &str) -> Registry {
    let pool = |name: &str, cidr: &str, selector: Option<&str>| node::Pool {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        block_len: 30,
        automatic: name != "manual",
        namespaces: selector.map(|text| text.parse().unwrap()),
    };
    let plan = AddressPlan {
        cidrs: vec!["fd00::/64".parse().unwrap()],
        pools: vec![
            pool("all", "10.0.0.0/24", None),
            pool("manual", "10.1.0.0/24", None),
            pool(
                "team",
                "10.2.0.0/24",
                Some("kubernetes.io/metadata.name == 'x'"),
            ),
        ],
        reserved: vec!["10.0.0.2/32".parse().unwrap()],
        ..AddressPlan::default()
    };
    let mut registry = Registry::new(Duration::from_secs(60));
    let blocks: Vec<IpNet> = blocks
        .split_whitespace()
        .map(|net| net.parse().unwrap())
        .collect();
    registry.set_addressing(&plan, &blocks, 1500);
    registry
}

fn wanted(result: Result<Vec<IpAddr>, Shortage>) -> Want {
    match result {
        Err(Shortage::Block { want, .. }) => want,
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_come_from_blocks_of_the_pools_that_select_the_pod() {
    let mut registry = pooled("10.0.0.0/30 10.2.0.0/30 10.1.0.0/30");
    assert_eq!(
        registry.allocate(&[], None, clock()).unwrap(),
        addresses("10.0.0.1 fd00::1")
    );
    // What the block has left is reserved, and the other pools are for others.
    let want = wanted(registry.allocate(&[], Some("y"), clock()));
    assert_eq!((want.pools, want.address), (vec!["all".to_owned()], None));
    assert_eq!(
        registry.allocate(&[], Some("x"), clock()).unwrap(),
        addresses("10.2.0.1 fd00::2")
    );
    let want = wanted({
        registry.allocate(&[], Some("x"), clock()).unwrap();
        registry.allocate(&[], Some("x"), clock())
    });
    assert_eq!(want.pools, ["all", "team"]);
    // By name, also of a pool that gives nothing by itself.
    let named = registry
        .allocate(&addresses("10.1.0.2"), None, clock())
        .unwrap();
    assert_eq!(named, addresses("10.1.0.2 fd00::4"));
    let want = wanted(registry.allocate(&addresses("10.1.0.9"), None, clock()));
    assert_eq!(
        (want.pools, want.address),
        (vec!["manual".to_owned()], addresses("10.1.0.9").pop())
    );
    for no in ["10.0.0.2", "10.2.0.2", "10.3.0.1"] {
        let error = registry
            .allocate(&addresses(no), Some("y"), clock())
            .unwrap_err();
        assert_eq!(
            error,
            Shortage::Ipam(AllocateError::NotOurs(no.parse().unwrap()))
        );
    }
}

#[test]
fn a_closed_block_gives_nothing_and_keeps_what_it_gave() {
    let mut registry = pooled("10.0.0.0/30");
    let block: IpNet = "10.0.0.0/30".parse().unwrap();
    let given = registry.allocate(&[], None, clock()).unwrap();
    assert!(!registry.close(block, true, clock()));
    registry.give_back(&given);
    assert!(registry.close(block, true, clock()) && !registry.has_block(block));
    wanted(registry.allocate(&[], None, clock()));
    wanted(registry.allocate(&addresses("10.0.0.1"), None, clock()));
    registry.open(block);
    assert_eq!(
        registry
            .allocate(&addresses("10.0.0.1"), None, clock())
            .unwrap()[0],
        given[0]
    );
}

#[test]
fn status_counts_blocks_that_could_be_had() {
    let mut registry = pooled("");
    assert_eq!(registry.check_addresses(clock()), Ok(()));
    let full = |names: &[&str]| {
        let message = |name: &&str| ((*name).to_owned(), format!("{name} is full"));
        names.iter().map(message).collect::<BTreeMap<_, _>>()
    };
    registry.set_full(full(&["all"]));
    assert_eq!(registry.check_addresses(clock()), Ok(()));
    registry.set_full(full(&["all", "team"]));
    let error = registry.check_addresses(clock()).unwrap_err().to_string();
    assert_eq!(error, "all is full; team is full");
    // Its last block has addresses still.
    let mut registry = pooled("10.0.0.0/30");
    registry.set_full(full(&["all", "team"]));
    assert_eq!(registry.check_addresses(clock()), Ok(()));
}
