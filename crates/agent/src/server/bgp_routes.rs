//! The RIB's views to those of the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{BgpPath, BgpRoute, PathState};
use bgp::rib::{self, ExportView, PathView, RouteView, Selection};
use bgp_wire::Attributes;
use ipnet::IpNet;

/// What `prefix` of a query selects: an address stands for the prefixes that hold it.
///
/// # Errors
/// It is neither a prefix nor an address.
pub(super) fn selection(prefix: Option<&str>) -> Result<Selection, String> {
    let Some(text) = prefix else {
        return Ok(Selection::All);
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Selection::Covering(address.into()));
    }
    text.parse::<IpNet>().map(|prefix| Selection::Within(prefix.trunc())).map_err(|_| {
        format!("prefix `{text}`: write a prefix such as 10.244.1.0/24, or an address such as 10.244.1.7")
    })
}

/// Why next hops can't be reached.
type Unreachable = BTreeMap<IpAddr, String>;

/// The Loc-RIB or an Adj-RIB-In.
pub(super) fn routes(views: Vec<RouteView>, unreachable: &Unreachable) -> Vec<BgpRoute> {
    views
        .into_iter()
        .map(|view| BgpRoute {
            prefix: view.prefix,
            paths: view.paths.iter().map(|it| path(it, unreachable)).collect(),
        })
        .collect()
}

/// An Adj-RIB-Out, and what is missing there.
pub(super) fn exports(views: Vec<ExportView>) -> Vec<BgpRoute> {
    views
        .into_iter()
        .map(|view| {
            let policy = policy(view.decided_by.as_deref(), &view.changed_by);
            let path = match view.result {
                Ok(attributes) => BgpPath {
                    reason: if view.pending {
                        "not yet sent".to_owned()
                    } else {
                        String::new()
                    },
                    policy,
                    ..described(PathState::Advertised, &attributes)
                },
                Err(withheld) => BgpPath {
                    reason: withheld.to_string(),
                    policy,
                    ..described(PathState::NotAdvertised, &Attributes::originated())
                },
            };
            BgpRoute {
                prefix: view.prefix,
                paths: vec![path],
            }
        })
        .collect()
}

fn path(view: &PathView, unreachable: &Unreachable) -> BgpPath {
    let (state, reason) = match &view.state {
        rib::PathState::Best(why) => (PathState::Best, why.won().to_owned()),
        rib::PathState::Lost(why) if view.multipath => {
            (PathState::Multipath, why.lost().to_owned())
        }
        rib::PathState::Lost(why) => (PathState::Candidate, why.lost().to_owned()),
        rib::PathState::Unreachable | rib::PathState::Unresolved => {
            let next_hop = view.attributes.next_hop.map(|it| it.address());
            let reason = next_hop.and_then(|address| unreachable.get(&address));
            let unknown = || "its next hop is being looked at".to_owned();
            (
                PathState::Candidate,
                reason.cloned().unwrap_or_else(unknown),
            )
        }
        rib::PathState::Rejected(rejected) => (PathState::Rejected, rejected.to_string()),
    };
    BgpPath {
        reason,
        from: view.peer_address,
        stale: view.stale,
        policy: policy(view.decided_by.as_deref(), &view.changed_by),
        ..described(state, &view.attributes)
    }
}

fn described(state: PathState, attributes: &Attributes) -> BgpPath {
    let standard = attributes.communities.iter().map(ToString::to_string);
    let extended = attributes
        .extended_communities
        .iter()
        .map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    BgpPath {
        state,
        reason: String::new(),
        from: None,
        next_hop: attributes.next_hop.map(|next_hop| next_hop.address()),
        as_path: attributes.as_path.to_string(),
        origin: attributes.origin.to_string(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: standard.chain(extended).chain(large).collect(),
        originator_id: attributes.originator_id,
        cluster_list: attributes.cluster_list.clone(),
        stale: false,
        policy: String::new(),
    }
}

/// Who decided about a route, and who changed it.
fn policy(decided_by: Option<&str>, changed_by: &[String]) -> String {
    let mut words = decided_by.map_or_else(String::new, |name| format!("decided by {name}"));
    if !changed_by.is_empty() {
        words += &format!(", changed by {}", changed_by.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_told_in_words() {
        let changed = ["BGPFilter/a importV4[0]", "BGPFilter/a importV4[2]"].map(str::to_owned);
        assert_eq!(policy(None, &[]), "");
        assert_eq!(policy(Some("default: own"), &[]), "decided by default: own");
        assert_eq!(
            policy(Some("BGPFilter/a importV4[2]"), &changed),
            "decided by BGPFilter/a importV4[2], changed by BGPFilter/a importV4[0], BGPFilter/a importV4[2]"
        );
    }

    #[test]
    fn an_address_stands_for_the_prefixes_that_hold_it() {
        let covering = Selection::Covering("10.244.1.7/32".parse().unwrap());
        assert_eq!(selection(Some("10.244.1.7")), Ok(covering));
        let within = Selection::Within("10.244.0.0/16".parse().unwrap());
        assert_eq!(selection(Some("10.244.3.0/16")), Ok(within));
        assert_eq!(selection(None), Ok(Selection::All));
        assert!(
            selection(Some("pods"))
                .unwrap_err()
                .contains("write a prefix")
        );
    }
}
