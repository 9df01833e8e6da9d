use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::config::PeerConfig;
use resources::{ClusterState, Index};

use super::{Handover, PATIENCE, SETTLED};
use crate::plan;

fn cluster(spec: &str, nodes: &[u8]) -> ClusterState {
    let mut text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    );
    for number in nodes {
        text += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}, labels: {{number: \"{number}\"}}}}\n\
             spec: {{podCIDR: 10.244.{number}.0/24}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]}}\n"
        );
    }
    let mut index = Index::default();
    index.replace("a.yaml", resources::yaml::parse("a.yaml", &text));
    assert_eq!(index.problems(), []);
    index.state().clone()
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

/// The agent of one node in virtual time.
struct Agent {
    node: &'static str,
    handover: Handover,
    now: Instant,
    cluster: ClusterState,
}

impl Agent {
    fn new(node: &'static str, cluster: ClusterState) -> Self {
        let mut agent = Self {
            node,
            handover: Handover::default(),
            now: start(),
            cluster,
        };
        agent.after(0, &[]);
        agent
    }

    /// The last parts of the peers' addresses after so many seconds, in which sessions with `whole` were up.
    fn after(&mut self, seconds: u64, whole: &[u8]) -> Vec<u8> {
        self.peers(seconds, whole).into_keys().collect()
    }

    fn peers(&mut self, seconds: u64, whole: &[u8]) -> BTreeMap<u8, PeerConfig> {
        self.now += Duration::from_secs(seconds);
        let mut plan = plan(&self.cluster, self.node).unwrap();
        let whole: BTreeSet<IpAddr> = whole.iter().map(|it| [192, 0, 2, *it].into()).collect();
        self.handover
            .merge(&mut plan, |peer| whole.contains(&peer), self.now);
        let last = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let peers = plan.speaker.peers.into_iter();
        peers
            .map(|(address, peer)| (last(&address), peer))
            .collect()
    }
}

fn reflector(number: u8) -> String {
    format!("routeReflectors: {{nodeSelector: number = {number}}}")
}

const ALL: [u8; 4] = [1, 2, 3, 4];

#[test]
fn a_client_keeps_the_old_reflector_until_the_new_one_has_told_all() {
    let mut agent = Agent::new("n1", cluster(&reflector(2), &ALL));
    assert_eq!(agent.after(0, &[2]), [2]);
    agent.cluster = cluster(&reflector(3), &ALL);
    assert_eq!(agent.after(1, &[2]), [2, 3]);
    assert!(agent.handover.is_under_way());
    assert_eq!(agent.after(60, &[2]), [2, 3]);
    // Up, lost once more, and up for good.
    assert_eq!(agent.after(1, &[2, 3]), [2, 3]);
    assert_eq!(agent.after(SETTLED.as_secs() - 1, &[2]), [2, 3]);
    assert_eq!(agent.after(1, &[2, 3]), [2, 3]);
    assert_eq!(agent.after(SETTLED.as_secs() - 1, &[2, 3]), [2, 3]);
    assert_eq!(agent.after(1, &[2, 3]), [3]);
    assert!(!agent.handover.is_under_way());
}

#[test]
fn a_reflector_that_is_none_any_more_keeps_its_clients_for_a_while() {
    let mut agent = Agent::new("n2", cluster(&reflector(2), &ALL));
    assert_eq!(agent.after(0, &[]), [1, 3, 4]);
    agent.cluster = cluster(&reflector(3), &ALL);
    assert_eq!(agent.after(1, &[1, 3, 4]), [1, 3, 4]);
    // It goes on reflecting to all of them, the new reflector among them: that may hear of it last.
    let during = agent.peers(1, &[1, 3, 4]);
    assert!(during.values().all(|peer| peer.rules.client.is_some()));
    let after = agent.peers(SETTLED.as_secs(), &[1, 3, 4]);
    assert_eq!(after.keys().copied().collect::<Vec<_>>(), [3]);
    assert!(after.values().all(|peer| peer.rules.client.is_none()));
    assert_ne!(after[&3].export, during[&3].export);
    assert!(!agent.handover.is_under_way());
}

#[test]
fn the_mesh_stays_until_reflectors_are_up_and_the_other_way_round() {
    let mut agent = Agent::new("n1", cluster("", &ALL));
    agent.cluster = cluster(&reflector(2), &ALL);
    assert_eq!(agent.after(1, &[2, 3, 4]), [2, 3, 4]);
    agent.after(1, &[2, 3, 4]);
    assert_eq!(agent.after(SETTLED.as_secs(), &[2, 3, 4]), [2]);
    agent.cluster = cluster("", &ALL);
    assert_eq!(agent.after(1, &[2]), [2, 3, 4]);
    assert!(!agent.handover.is_under_way());
}

#[test]
fn nobody_waits_for_a_broken_node_for_good() {
    let mut agent = Agent::new("n1", cluster(&reflector(2), &ALL));
    agent.cluster = cluster(&reflector(3), &ALL);
    agent.after(1, &[2]);
    assert_eq!(agent.after(PATIENCE.as_secs() - 1, &[2]), [2, 3]);
    assert_eq!(agent.after(1, &[2]), [3]);
}

#[test]
fn a_node_that_is_gone_is_gone() {
    let mut agent = Agent::new("n1", cluster("", &ALL));
    agent.cluster = cluster("", &[1, 2, 3]);
    assert_eq!(agent.after(1, &[2, 3, 4]), [2, 3]);
    // A reflector's client as well.
    let mut agent = Agent::new("n2", cluster(&reflector(2), &ALL));
    agent.cluster = cluster(&reflector(2), &[1, 2, 3]);
    assert_eq!(agent.after(1, &[1, 3, 4]), [1, 3]);
}

#[test]
fn no_session_is_kept_where_none_is_wanted_or_all_are_new() {
    let mut agent = Agent::new("n1", cluster("", &ALL));
    agent.cluster = cluster("nodeToNodeMeshEnabled: false", &ALL);
    assert_eq!(agent.after(1, &ALL), [] as [u8; 0]);
    let mut agent = Agent::new("n1", cluster("", &ALL));
    agent.cluster = cluster(&format!("asNumber: 65001, {}", reflector(2)), &ALL);
    assert_eq!(agent.after(1, &ALL), [2]);
}
