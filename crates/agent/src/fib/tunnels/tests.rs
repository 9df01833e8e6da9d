use std::collections::BTreeMap;

use dataplane::Link;
use node::tunnel::Pool;
use resources::IpipMode;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn wishes(mode: IpipMode) -> node::Tunnels {
    node::Tunnels {
        pools: vec![Pool {
            name: "pods".into(),
            cidr: "10.244.0.0/16".parse().unwrap(),
            mode,
        }],
        nodes: BTreeMap::new(),
        local: [(TunnelKind::Ipip, "192.0.2.1".parse().unwrap())].into(),
    }
}

/// A kernel that does what it is told, and a clock.
struct World {
    tunnels: Tunnels,
    links: Links,
    wishes: node::Tunnels,
    established: bool,
    in_use: bool,
    /// Why it refuses, while it does.
    refuses: Option<String>,
    attempts: usize,
    start: Instant,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(mode: IpipMode, established: bool) -> Self {
        let uplink = Link {
            index: 2,
            name: "eth0".into(),
            up: true,
            mtu: 1500,
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            ..Link::default()
        };
        let now = Instant::now();
        Self {
            tunnels: Tunnels::default(),
            links: Links {
                links: [(2, uplink)].into(),
                ..Links::default()
            },
            wishes: wishes(mode),
            established,
            in_use: false,
            refuses: None,
            attempts: 0,
            start: now,
            now,
        }
    }

    /// Turns until nothing is left to do at this moment.
    fn turn(&mut self) {
        for _ in 0..5 {
            let established = self.established;
            let situation = Situation {
                now: self.now,
                tunnels: &self.wishes,
                links: &self.links,
                established: &|| established,
            };
            let in_use = self.in_use;
            for (kind, op) in self.tunnels.turn(&situation, |_| in_use) {
                self.attempts += 1;
                let result = self.refuses.clone().map_or(Ok(()), Err);
                if result.is_ok() {
                    self.carry_out(&op);
                }
                self.tunnels.applied(kind, result, self.now);
            }
        }
    }

    fn carry_out(&mut self, op: &TunnelOp) {
        match op {
            TunnelOp::Create(tunnel) => {
                let device = Link {
                    index: 7,
                    name: tunnel.kind.device().into(),
                    kind: Some(tunnel.kind.link_kind().into()),
                    up: true,
                    mtu: tunnel.mtu,
                    tunnel: Some(tunnel.parameters()),
                    addresses: vec![tunnel.address()],
                    ..Link::default()
                };
                self.links.links.insert(7, device);
            }
            TunnelOp::Delete(index) => drop(self.links.links.remove(index)),
            TunnelOp::Change(..) | TunnelOp::AddAddress(..) | TunnelOp::RemoveAddress(..) => {
                panic!("{op:?}")
            }
        }
    }

    /// Lets timers run out until the end of this time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.turn();
            match self.tunnels.poll_timeout().filter(|at| *at <= end) {
                Some(at) => self.now = at.max(self.now + Duration::from_millis(1)),
                None => break,
            }
        }
        self.now = end;
        self.turn();
    }

    fn present(&self) -> bool {
        self.links.links.contains_key(&7)
    }

    fn open(&self) -> bool {
        self.tunnels.devices(&self.links).ipip.is_some()
    }
}

#[test]
fn a_node_without_routes_opens_at_once() {
    let mut world = World::new(IpipMode::Always, false);
    world.turn();
    assert!(world.present() && world.open());
    assert_eq!(world.tunnels.poll_timeout(), None);
}

#[test]
fn a_device_takes_packets_before_it_sends_them() {
    let mut world = World::new(IpipMode::Never, true);
    world.turn();
    assert!(!world.present());
    world.wishes = wishes(IpipMode::CrossSubnet);
    world.turn();
    assert!(world.present() && !world.open());
    let said = world.tunnels.unavailable(TunnelKind::Ipip).unwrap();
    assert!(said.contains("in a moment"), "{said}");
    world.pass(OPENING);
    assert!(world.open());
    // Somebody's slip does not close it.
    world.links.links.remove(&7);
    assert!(!world.open());
    world.turn();
    assert!(world.present() && world.open());
}

#[test]
fn a_predecessors_device_is_open() {
    let mut world = World::new(IpipMode::Always, false);
    world.turn();
    world.tunnels = Tunnels::default();
    world.established = true;
    world.attempts = 0;
    world.turn();
    assert!(world.open());
    assert_eq!(world.attempts, 0);
}

#[test]
fn a_device_outlives_the_need_and_its_routes() {
    let mut world = World::new(IpipMode::Always, false);
    world.turn();
    world.wishes = wishes(IpipMode::Never);
    world.turn();
    // It takes packets, and sends none.
    assert!(world.present() && !world.open());
    assert_eq!(world.tunnels.status(&world.links).len(), 1);
    world.in_use = true;
    world.pass(LEAVING + SECOND);
    assert!(world.present());
    world.in_use = false;
    world.pass(LEAVING);
    assert!(!world.present());
    assert_eq!(world.tunnels.poll_timeout(), None);
    assert_eq!(world.tunnels.status(&world.links), []);
}

#[test]
fn wanted_again_it_is_open_at_once() {
    let mut world = World::new(IpipMode::Always, false);
    world.turn();
    world.established = true;
    world.wishes = wishes(IpipMode::Never);
    world.pass(SECOND);
    world.wishes = wishes(IpipMode::CrossSubnet);
    world.turn();
    assert!(world.open());
    world.pass(LEAVING * 2);
    assert!(world.open());
}

#[test]
fn a_kernel_without_it_is_asked_ever_more_seldom() {
    let mut world = World::new(IpipMode::Always, true);
    world.refuses = Some("no such driver".into());
    world.pass(Duration::from_secs(600));
    assert!((10..20).contains(&world.attempts), "{}", world.attempts);
    assert_eq!(
        world.tunnels.unavailable(TunnelKind::Ipip),
        Some("no such driver")
    );
    assert_eq!(
        world.tunnels.status(&world.links)[0].trouble.as_deref(),
        Some("no such driver")
    );
    world.refuses = None;
    world.pass(MAX_RETRY + OPENING);
    assert!(world.open());
    assert_eq!(world.tunnels.status(&world.links)[0].trouble, None);
    // Another configuration is a reason to ask at once.
    let mut world = World::new(IpipMode::Always, true);
    world.refuses = Some("no such driver".into());
    world.pass(Duration::from_secs(200));
    world.wishes = wishes(IpipMode::Never);
    world.turn();
    assert_eq!(world.tunnels.status(&world.links), []);
    assert!(world.now > world.start);
}

#[test]
fn a_node_without_an_address_says_so() {
    let mut world = World::new(IpipMode::Always, false);
    world.wishes.local.clear();
    world.turn();
    let status = world.tunnels.status(&world.links);
    let trouble = status[0].trouble.as_deref().unwrap();
    assert_eq!(trouble, "this node has no IPv4 InternalIP to tunnel from");
    assert!(!world.present());
}
