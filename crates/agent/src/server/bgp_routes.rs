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
            let path = match view.result {
                Ok(attributes) => BgpPath {
                    reason: if view.pending {
                        "not yet sent".to_owned()
                    } else {
                        String::new()
                    },
                    ..described(PathState::Advertised, &attributes)
                },
                Err(withheld) => BgpPath {
                    reason: withheld.to_string(),
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
        rib::PathState::Best(why) => (PathState::Best, why.to_string()),
        rib::PathState::Lost(why) if view.multipath => (PathState::Multipath, why.to_string()),
        rib::PathState::Lost(why) => (PathState::Candidate, why.to_string()),
        rib::PathState::Unreachable => {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
