//! Against the directory store, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use ipam::Usage;
use node::Pool;
use resources::{IpamBlock, Selector};
use tempfile::TempDir;

use super::holder::WITHDRAWAL;
use super::*;

const GRACE: Duration = Duration::from_secs(300);

/// Addresses by block: how many are in use, of how many.
#[derive(Debug, Default)]
struct Pods {
    used: Mutex<BTreeMap<IpNet, (u128, u128)>>,
    closed: Mutex<BTreeSet<IpNet>>,
    full: Mutex<BTreeMap<String, String>>,
}

impl Pods {
    fn set(&self, block: IpNet, used: u128) {
        self.used.lock().unwrap().insert(block, (used, 62));
    }
}

impl Addresses for Pods {
    fn usage(&self) -> Vec<Usage> {
        let used = self.used.lock().unwrap();
        let usage = used.iter().map(|(cidr, (used, total))| Usage {
            cidr: *cidr,
            total: *total,
            used: *used,
            cooling: 0,
        });
        usage.collect()
    }

    fn close(&self, block: IpNet, only_unused: bool) -> bool {
        let used = self.used.lock().unwrap();
        if only_unused && used.get(&block).is_some_and(|(used, _)| *used > 0) {
            return false;
        }
        self.closed.lock().unwrap().insert(block);
        true
    }

    fn open(&self, block: IpNet) {
        self.closed.lock().unwrap().remove(&block);
    }

    fn set_full(&self, pools: BTreeMap<String, String>) {
        *self.full.lock().unwrap() = pools;
    }
}

struct Node {
    holder: Holder,
    pods: Arc<Pods>,
    /// What its kernel has routes to.
    routes: Arc<Mutex<Vec<IpNet>>>,
    now: Instant,
}

fn kernel(routes: &Arc<Mutex<Vec<IpNet>>>) -> Routed {
    let routes = Arc::clone(routes);
    Box::new(move || Some(routes.lock().unwrap().clone()))
}

fn pool(name: &str, cidr: &str, block_len: u8) -> Pool {
    Pool {
        name: name.to_owned(),
        cidr: cidr.parse().unwrap(),
        block_len,
        automatic: true,
        namespaces: None::<Selector>,
    }
}

fn plan(pools: &[Pool]) -> Arc<AddressPlan> {
    Arc::new(AddressPlan {
        pools: pools.to_vec(),
        nodes: ["a", "b"].map(str::to_owned).into(),
        ..AddressPlan::default()
    })
}

impl Node {
    fn new(name: &str, directory: &Path, pools: &[Pool]) -> Self {
        let pods = Arc::new(Pods::default());
        let store = Box::new(DirectoryStore::new(directory.to_owned(), name));
        let addresses: Arc<dyn Addresses> = Arc::<Pods>::clone(&pods);
        let routes = Arc::default();
        let mut holder = Holder::new(name.to_owned(), store, addresses, kernel(&routes), GRACE);
        holder.set_plan(plan(pools));
        holder.refresh();
        Self {
            holder,
            pods,
            routes,
            now: clock(),
        }
    }

    fn want(&mut self, pool: &str) -> Answer {
        self.holder.want(&Want {
            pools: vec![pool.to_owned()],
            address: None,
        })
    }

    fn want_address(&mut self, pool: &str, address: &str) -> Answer {
        self.holder.want(&Want {
            pools: vec![pool.to_owned()],
            address: Some(address.parse().unwrap()),
        })
    }

    fn claim(&mut self, pool: &str) -> IpNet {
        let answer = self.want(pool);
        let Answer::Claimed(block) = answer else {
            panic!("{answer:?}");
        };
        block
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.holder.look(self.now);
    }

    fn announced(&self) -> Vec<IpNet> {
        self.holder.announced().unwrap()
    }

    fn says(&self, words: &str) -> bool {
        let problems = self.holder.problems();
        problems
            .iter()
            .any(|problem| problem.message.contains(words))
    }
}

fn files(directory: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn full(answer: Answer) -> String {
    let Answer::Full(message) = answer else {
        panic!("{answer:?}");
    };
    message
}

#[test]
fn nodes_share_a_pool_until_it_is_full_and_are_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let pools = [pool("p", "10.0.0.0/24", 26)];
    let (mut a, mut b) = (
        Node::new("a", directory.path(), &pools),
        Node::new("b", directory.path(), &pools),
    );
    let first = a.claim("p");
    // It has addresses: no second one is taken.
    assert_eq!(a.claim("p"), first);
    a.pods.set(first, 61);
    assert_eq!(a.claim("p"), first);
    a.pods.set(first, 62);
    let blocks: BTreeSet<IpNet> = [first, a.claim("p"), b.claim("p")].into();
    assert_eq!(blocks.len(), 3);
    let last = b.want_address("p", "10.0.0.1");
    let owner_is_a = a
        .announced()
        .iter()
        .any(|block| block.contains(&"10.0.0.1".parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(matches!(last, Answer::Full(_)), owner_is_a, "{last:?}");
    for block in b.announced() {
        b.pods.set(block, 62);
    }
    while let Answer::Claimed(block) = b.want("p") {
        b.pods.set(block, 62);
    }
    let message = full(b.want("p"));
    assert!(
        message.contains("all 4 are reserved or taken, by 2 nodes"),
        "{message}"
    );
    assert!(!message.contains("there is no Node"), "{message}");
    assert!(b.pods.full.lock().unwrap()["p"].contains("10.0.0.0/24"));
    assert_eq!(files(&directory).len(), 4);
    assert_eq!(b.holder.pools()[0].taken, 4);
    // A node that is no more is named.
    let mut plan = (*plan(&pools)).clone();
    plan.nodes.remove("a");
    b.holder.set_plan(Arc::new(plan));
    let message = full(b.want("p"));
    assert!(message.contains("there is no Node a"), "{message}");
}

#[test]
fn an_unused_block_is_withdrawn_and_only_then_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/24", 26)]);
    let block = a.claim("p");
    a.pods.set(block, 1);
    a.pass(GRACE * 2);
    a.pods.set(block, 0);
    a.pass(Duration::from_secs(1));
    a.pass(GRACE - Duration::from_secs(1));
    assert_eq!(a.announced(), [block]);
    a.pass(Duration::from_secs(1));
    assert_eq!(a.announced(), []);
    assert!(a.pods.closed.lock().unwrap().contains(&block));
    // As long as a plan with it is in force, it stays.
    a.holder.in_force(&[block], a.now);
    a.pass(WITHDRAWAL * 10);
    assert_eq!(files(&directory).len(), 1);
    // After a restart the kernel keeps what it had for longer than that.
    a.routes.lock().unwrap().push(block);
    a.holder.in_force(&[], a.now);
    a.pass(WITHDRAWAL * 10);
    assert_eq!(files(&directory).len(), 1);
    a.routes.lock().unwrap().clear();
    a.pass(Duration::ZERO);
    a.pass(WITHDRAWAL / 2);
    assert_eq!(files(&directory).len(), 1);
    a.pass(WITHDRAWAL / 2);
    assert_eq!(files(&directory), [""; 0]);
    assert!(a.pods.closed.lock().unwrap().is_empty());
}

#[test]
fn a_block_on_its_way_out_is_wanted_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/24", 26)]);
    let block = a.claim("p");
    a.pods.set(block, 0);
    a.pass(Duration::ZERO);
    a.pass(GRACE);
    a.holder.in_force(&[], a.now);
    assert_eq!(a.announced(), []);
    assert_eq!(a.claim("p"), block);
    a.pass(WITHDRAWAL);
    assert_eq!((a.announced(), files(&directory).len()), (vec![block], 1));
    assert!(a.pods.closed.lock().unwrap().is_empty());
}

/// A pool that is disabled, deleted, or not for this node any more: for the holder they are one.
#[test]
fn a_pool_that_is_gone_keeps_its_pods_and_gives_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/24", 26)]);
    let block = a.claim("p");
    a.pods.set(block, 3);
    a.holder.set_plan(plan(&[]));
    assert!(matches!(a.want("p"), Answer::Unavailable(_)));
    a.pass(GRACE * 3);
    assert_eq!(a.announced(), [block]);
    assert!(a.says("in no IPPool that gives addresses"));
    a.pods.set(block, 0);
    a.pass(Duration::ZERO);
    a.pass(GRACE);
    assert_eq!(a.announced(), []);
}

#[test]
fn a_restart_finds_its_blocks_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let pools = [pool("p", "10.0.0.0/24", 26), pool("q", "fd00::/112", 122)];
    let (mut a, mut b) = (
        Node::new("a", directory.path(), &pools),
        Node::new("b", directory.path(), &pools),
    );
    let blocks = [a.claim("p"), a.claim("q")];
    b.claim("p");
    std::fs::write(directory.path().join(".10-0-0-0-26.a.tmp"), "half").unwrap();
    std::fs::write(directory.path().join(".10-0-0-0-26.b.tmp"), "half").unwrap();
    drop(a);
    let again = Node::new("a", directory.path(), &[]);
    assert_eq!(again.announced(), blocks);
    // Its own litter alone.
    let left = files(&directory);
    assert_eq!(
        left.iter().filter(|name| name.starts_with('.')).count(),
        1,
        "{left:?}"
    );
}

#[test]
fn what_somebody_does_to_a_block_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/24", 26)]);
    let block = a.claim("p");
    a.pods.set(block, 1);
    let file = directory.path().join(files(&directory)[0].clone());
    std::fs::remove_file(&file).unwrap();
    a.holder.refresh();
    assert!(file.exists());
    assert_eq!(a.announced(), [block]);
    // Another node's name in it: the node gives it up.
    let text = serde_json::to_string(&IpamBlock::new(block, "b")).unwrap();
    std::fs::write(&file, text).unwrap();
    a.holder.refresh();
    assert_eq!(a.announced(), []);
    assert!(a.says("now is Node b's"));
    // Nothing that can be read: still nobody else's.
    std::fs::write(&file, "{").unwrap();
    a.holder.refresh();
    assert!(a.says("nobody takes"));
    let others: BTreeSet<IpNet> = std::iter::repeat_with(|| match a.want("p") {
        Answer::Claimed(other) => {
            a.pods.set(other, 62);
            Some(other)
        }
        Answer::Full(_) | Answer::Unavailable(_) => None,
    })
    .map_while(|other| other)
    .collect();
    assert!(others.len() == 3 && !others.contains(&block), "{others:?}");
    std::fs::write(directory.path().join("note.json"), "{}").unwrap();
    std::fs::write(directory.path().join("10-9-0-0-26.yaml"), "x: 1").unwrap();
    a.holder.refresh();
    assert_eq!(a.announced().len(), 3);
}

#[test]
fn blocks_of_two_sizes_do_not_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/25", 26)]);
    let mut b = Node::new("b", directory.path(), &[pool("p", "10.0.0.0/25", 27)]);
    let large = a.claim("p");
    let small = b.claim("p");
    assert!(!large.contains(&small));
    a.pods.set(large, 62);
    full(a.want("p"));
    // A crash between creating a block and looking at it left an overlap: who finds it gives no address from it.
    let inside = large.subnets(27).unwrap().next().unwrap();
    let text = serde_json::to_string(&IpamBlock::new(inside, "b")).unwrap();
    let file = directory
        .path()
        .join(resources::ipam_block::name(inside) + ".json");
    std::fs::write(&file, text).unwrap();
    b.holder.refresh_own();
    assert!(b.says("overlaps block"));
    assert!(b.pods.closed.lock().unwrap().contains(&inside));
    b.pass(Duration::ZERO);
    // On its way out it is not wanted again.
    b.pods.set(small, 62);
    let third = b.claim("p");
    assert_ne!(third, inside);
    let asked = b.want_address("p", &inside.addr().to_string());
    assert!(!matches!(asked, Answer::Claimed(_)), "{asked:?}");
    assert!(b.pods.closed.lock().unwrap().contains(&inside));
    b.holder.in_force(&b.announced(), b.now);
    b.pass(WITHDRAWAL);
    assert!(!file.exists());
    let mut left = vec![small, third];
    left.sort();
    assert_eq!(b.announced(), left);
}

#[test]
fn a_directory_that_fails_takes_nothing_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipam");
    let mut a = Node::new("a", &path, &[pool("p", "10.0.0.0/24", 26)]);
    let block = a.claim("p");
    a.pods.set(block, 62);
    // No directory: root may do anything, so that permissions would stop nobody here.
    let aside = directory.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::write(&path, "").unwrap();
    a.holder.refresh();
    assert_eq!(a.announced(), [block]);
    assert!(a.says("keeps the blocks that it has"));
    let Answer::Unavailable(reason) = a.want("p") else {
        panic!("it can't be told");
    };
    assert!(reason.contains("ipam"), "{reason}");
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    a.claim("p");
    assert!(!a.says("keeps the blocks"));
    // One that was never read says so.
    let nowhere = directory.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    assert!(Node::new("a", &nowhere, &[]).holder.announced().is_err());
}

/// Many agents at one directory, which take blocks of two sizes and give them back as fast as they can: at no time is an
/// address two nodes'. The ledger knows of a block from after it was claimed until before it is given up.
#[test]
fn two_nodes_never_have_one_block() {
    const NODES: usize = 12;
    const ROUNDS: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let ledger: Mutex<BTreeMap<IpNet, usize>> = Mutex::default();
    let start = Barrier::new(NODES);
    let claimed = Mutex::new(0);
    std::thread::scope(|scope| {
        for number in 0..NODES {
            let (directory, ledger, start, claimed) = (&directory, &ledger, &start, &claimed);
            scope.spawn(move || {
                let len = if number % 2 == 0 { 28 } else { 27 };
                let pools = [pool("p", "10.0.0.0/24", len)];
                let mut node = Node::new(&format!("n{number}"), directory.path(), &pools);
                start.wait();
                for round in 0..ROUNDS {
                    if let Answer::Claimed(block) = node.want("p") {
                        let mut ledger = ledger.lock().unwrap();
                        let meets = |other: &IpNet| other.contains(&block) || block.contains(other);
                        for (other, owner) in ledger.iter().filter(|(other, _)| meets(other)) {
                            assert_eq!(*owner, number, "{block} of {number}, {other} of {owner}");
                        }
                        ledger.insert(block, number);
                        node.pods.set(block, 62);
                        *claimed.lock().unwrap() += 1;
                    }
                    if round % 3 == 2 {
                        ledger.lock().unwrap().retain(|_, owner| *owner != number);
                        for block in node.announced() {
                            node.pods.set(block, 0);
                        }
                        node.pass(Duration::ZERO);
                        node.pass(GRACE);
                        node.holder.in_force(&[], node.now);
                        node.pass(WITHDRAWAL);
                        assert_eq!(node.announced(), []);
                    }
                    node.holder.refresh();
                }
            });
        }
    });
    assert!(*claimed.lock().unwrap() > NODES * ROUNDS / 4);
}

/// A directory whose nodes a test knows.
struct Known {
    directory: DirectoryStore,
    gone: Arc<Mutex<BTreeSet<String>>>,
}

impl BlockStore for Known {
    fn list(&self) -> Result<Listed, StoreError> {
        self.directory.list()
    }

    fn create(&self, block: &IpamBlock) -> Result<Stored, CreateError> {
        self.directory.create(block)
    }

    fn delete(&self, block: &Stored) -> Result<(), StoreError> {
        self.directory.delete(block)
    }

    fn is_gone(&self, node: &str) -> Result<bool, StoreError> {
        Ok(self.gone.lock().unwrap().contains(node))
    }
}

#[test]
fn blocks_of_a_node_that_is_gone_come_back_when_nobody_announces_them() {
    let directory = tempfile::tempdir().unwrap();
    let pools = [pool("p", "10.0.0.0/26", 26)];
    let block = Node::new("b", directory.path(), &pools).claim("p");
    let gone = Arc::new(Mutex::new(BTreeSet::new()));
    let store = Known {
        directory: DirectoryStore::new(directory.path().to_owned(), "a"),
        gone: Arc::clone(&gone),
    };
    let mut a = Node::new("a", directory.path(), &pools);
    let addresses: Arc<dyn Addresses> = Arc::<Pods>::clone(&a.pods);
    let routed = Arc::clone(&a.routes);
    routed.lock().unwrap().push(block);
    a.holder = Holder::new(
        "a".to_owned(),
        Box::new(store),
        addresses,
        kernel(&routed),
        GRACE,
    );
    a.holder.set_reclaim(GRACE);
    a.holder.set_plan(plan(&pools));
    a.holder.refresh();
    let without = |names: &[&str]| {
        let mut plan = (*plan(&pools)).clone();
        plan.nodes.retain(|node| !names.contains(&node.as_str()));
        Arc::new(plan)
    };
    // It comes back in time: it is counted anew.
    a.holder.set_plan(without(&["b"]));
    a.pass(Duration::ZERO);
    a.pass(GRACE / 2);
    a.holder.set_plan(plan(&pools));
    a.pass(GRACE);
    a.holder.set_plan(without(&["b"]));
    a.pass(Duration::ZERO);
    a.pass(GRACE / 2);
    assert!(full(a.want("p")).contains("there is no Node b: its blocks come back 300 s"));
    // Somebody announces it, then nobody, but the record has the Node.
    a.pass(GRACE * 2);
    assert!(a.says("somebody announces it"));
    routed.lock().unwrap().clear();
    a.pass(GRACE);
    assert!(!a.says("somebody announces it"));
    assert_eq!(files(&directory).len(), 1);
    gone.lock().unwrap().insert("b".to_owned());
    // An agent that knows of no Node of its own does nothing.
    a.holder.set_plan(without(&["a", "b"]));
    a.pass(GRACE);
    assert_eq!(files(&directory).len(), 1);
    a.holder.set_plan(without(&["b"]));
    a.pass(GRACE);
    assert_eq!(files(&directory), [""; 0]);
    // Its agent lives after all, and makes it again.
    let text = serde_json::to_string(&IpamBlock::new(block, "b")).unwrap();
    let file = directory
        .path()
        .join(resources::ipam_block::name(block) + ".json");
    std::fs::write(&file, text).unwrap();
    a.holder.refresh();
    a.pass(GRACE * 9);
    assert!(file.exists() && a.says("its agent has made it again"));
    std::fs::remove_file(&file).unwrap();
    a.holder.refresh();
    assert_eq!(a.claim("p"), block);
}

#[test]
fn one_node_alone_is_the_first_to_take_a_block_back() {
    let directory = tempfile::tempdir().unwrap();
    let pools = [pool("p", "10.0.0.0/26", 26)];
    let block = Node::new("gone", directory.path(), &pools).claim("p");
    let firsts = ["a", "b"].map(|name| {
        let gone = Arc::new(Mutex::new(["gone".to_owned()].into()));
        let store = Known {
            directory: DirectoryStore::new(directory.path().to_owned(), name),
            gone,
        };
        let addresses: Arc<dyn Addresses> = Arc::new(Pods::default());
        let routes = kernel(&Arc::default());
        let mut holder = Holder::new(name.to_owned(), Box::new(store), addresses, routes, GRACE);
        holder.set_reclaim(GRACE);
        holder.set_plan(plan(&pools));
        holder.refresh();
        let now = clock();
        holder.look(now);
        holder.look(now + GRACE);
        let first = files(&directory).is_empty();
        let text = serde_json::to_string(&IpamBlock::new(block, "gone")).unwrap();
        let file = resources::ipam_block::name(block) + ".json";
        std::fs::write(directory.path().join(file), text).unwrap();
        first
    });
    assert_ne!(firsts[0], firsts[1], "{firsts:?}");
}

#[test]
fn another_block_is_there_before_the_last_address_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", directory.path(), &[pool("p", "10.0.0.0/22", 26)]);
    let first = a.claim("p");
    a.pods.set(first, 55);
    a.pass(Duration::ZERO);
    assert_eq!(a.announced(), [first]);
    // Six of 62 are left.
    a.pods.set(first, 56);
    a.pass(Duration::from_secs(1));
    let blocks = a.announced();
    assert_eq!(blocks.len(), 2);
    // The new one is no reason for a third, be it in force or not.
    a.pass(Duration::from_secs(60));
    let second = *blocks.iter().find(|block| **block != first).unwrap();
    a.pods.set(second, 0);
    a.pass(Duration::from_secs(60));
    assert_eq!(a.announced().len(), 2);
    // It stays unused for as long as it may be wanted soon, and goes when pods do.
    a.pass(GRACE * 2);
    assert_eq!(a.announced().len(), 2);
    a.pods.set(first, 49);
    a.pass(GRACE);
    assert_eq!(a.announced().len(), 2);
    a.pods.set(first, 48);
    a.pass(Duration::from_secs(1));
    assert_eq!(a.announced(), [first]);
    // Of two that are unused one stays.
    a.holder.in_force(&[first], a.now);
    a.pass(WITHDRAWAL);
    a.pods.set(first, 62);
    let more = [a.claim("p"), {
        let other = a.announced().into_iter().find(|block| *block != first);
        a.pods.set(other.unwrap(), 62);
        a.claim("p")
    }];
    for block in more {
        a.pods.set(block, 0);
    }
    a.pass(Duration::ZERO);
    a.pass(GRACE);
    assert_eq!(a.announced().len(), 2);
    // Without a pod nothing is kept.
    a.pods.set(first, 0);
    a.pass(Duration::ZERO);
    a.pass(GRACE);
    assert_eq!(a.announced(), []);
}

#[test]
fn nothing_is_taken_ahead_where_blocks_are_scarce() {
    let directory = tempfile::tempdir().unwrap();
    let pools = [pool("p", "10.0.0.0/24", 26)];
    let (mut a, mut b) = (
        Node::new("a", directory.path(), &pools),
        Node::new("b", directory.path(), &pools),
    );
    let first = a.claim("p");
    a.pods.set(first, 61);
    for _ in 0..2 {
        let block = b.claim("p");
        b.pods.set(block, 62);
    }
    a.holder.refresh();
    a.pass(Duration::ZERO);
    assert_eq!(a.announced(), [first]);
    // One is needed, and there is one.
    a.pods.set(first, 62);
    a.claim("p");
    assert_eq!(a.announced().len(), 2);
}
