//! Routes of other programs for the very prefixes that ours are for.
//!
//! Of routes for one prefix the kernel uses that with the lowest metric. Another's with a lower one than ours leaves ours where
//! it is and takes its packets, which nothing else would show; one with the same metric keeps ours out.
//!
//! Others may have a million routes, and only these few are kept. Nobody tells which there are when a prefix comes to be wanted:
//! the kernel is asked for all ([`is_due`](Rivals::is_due), [`load`](Rivals::load)), by whoever sees to it that this costs little.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{LinkIndex, NextHop, RouteKey, protocol_name};

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// Another program's route of the main table for a prefix of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rival {
    /// Its metric.
    pub priority: u32,
    /// Whose it is (`rtm_protocol`).
    pub protocol: u8,
    /// Where it leads; nowhere when it drops packets.
    pub next_hops: Vec<NextHop>,
}

impl Rival {
    /// As `ip route` writes it; `name` gives links' names.
    pub fn describe(&self, name: impl Fn(LinkIndex) -> String) -> String {
        let hop = |hop: &NextHop| {
            let via = |via: IpAddr| format!("via {via} ");
            let via = hop.via.map(via).unwrap_or_default();
            format!("{via}dev {}", name(hop.link))
        };
        let hops: Vec<_> = self.next_hops.iter().map(hop).collect();
        let hops = match hops.is_empty() {
            true => "that leads nowhere".to_owned(),
            false => hops.join(" + "),
        };
        let protocol = protocol_name(self.protocol);
        format!("a route of {protocol}, metric {}, {hops}", self.priority)
    }

    /// Whether packets take it and not ours under this key.
    pub fn shadows(&self, key: &RouteKey) -> bool {
        key.table == MAIN && self.priority < key.priority
    }
}

/// What is known of them.
#[derive(Debug, Default)]
pub struct Rivals {
    known: BTreeMap<IpNet, Rival>,
    due: bool,
}

impl Rivals {
    /// The one that comes first of those for a prefix.
    pub fn of(&self, prefix: &IpNet) -> Option<&Rival> {
        self.known.get(prefix)
    }

    /// Whether there may be others than we know of: [`load`](Self::load) them.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// There may be others than we know of: events were lost, or told of one.
    pub fn look(&mut self) {
        self.due = true;
    }

    /// Those that we know of may be gone.
    pub(crate) fn look_again(&mut self) {
        self.due |= !self.known.is_empty();
    }

    /// A route of ours under this key comes to be wanted. What has metric 0 has nothing before it.
    pub(crate) fn wanted(&mut self, key: &RouteKey) {
        self.due |= key.table == MAIN && key.priority > 0;
    }

    /// All that there are. Returns those that are new or have changed, and the prefixes where there is none any more.
    pub fn load(
        &mut self,
        all: impl IntoIterator<Item = (IpNet, Rival)>,
    ) -> (Vec<(IpNet, Rival)>, Vec<IpNet>) {
        self.due = false;
        let mut found: BTreeMap<IpNet, Rival> = BTreeMap::new();
        for (prefix, rival) in all {
            let first = found.entry(prefix).or_insert_with(|| rival.clone());
            if rival < *first {
                *first = rival;
            }
        }
        let before = std::mem::replace(&mut self.known, found);
        let gone = before.keys().filter(|it| !self.known.contains_key(it));
        let gone = gone.copied().collect();
        let news = self
            .known
            .iter()
            .filter(|it| before.get(it.0) != Some(it.1));
        let news = news.map(|(prefix, rival)| (*prefix, rival.clone()));
        (news.collect(), gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rival(priority: u32, protocol: u8) -> Rival {
        let hop = NextHop {
            via: Some([192, 0, 2, 1].into()),
            link: 2,
            onlink: false,
        };
        Rival {
            priority,
            protocol,
            next_hops: vec![hop],
        }
    }

    #[test]
    fn the_lowest_metric_comes_first() {
        let prefix: IpNet = "10.244.1.0/24".parse().unwrap();
        let mut rivals = Rivals::default();
        let both = [(prefix, rival(20, 12)), (prefix, rival(10, 4))];
        let (news, gone) = rivals.load(both.clone());
        assert_eq!((news, gone), (vec![(prefix, rival(10, 4))], vec![]));
        assert_eq!(rivals.load(both), (vec![], vec![]), "said once");
        let key = |priority| RouteKey::main(prefix, priority);
        let first = rivals.of(&prefix).unwrap();
        assert!(first.shadows(&key(11)) && !first.shadows(&key(10)));
        assert_eq!(
            first.describe(|link| format!("eth{link}")),
            "a route of protocol static, metric 10, via 192.0.2.1 dev eth2"
        );
        assert_eq!(rivals.load([]), (vec![], vec![prefix]));
    }

    #[test]
    fn a_look_is_due_when_something_may_be_before_ours() {
        let prefix: IpNet = "10.244.1.1/32".parse().unwrap();
        let mut rivals = Rivals::default();
        rivals.wanted(&RouteKey::main(prefix, 0));
        rivals.look_again();
        assert!(!rivals.is_due());
        rivals.wanted(&RouteKey::main(prefix, 1));
        assert!(rivals.is_due());
        rivals.load([(prefix, rival(0, 4))]);
        assert!(!rivals.is_due());
        rivals.look_again();
        assert!(rivals.is_due());
    }
}
