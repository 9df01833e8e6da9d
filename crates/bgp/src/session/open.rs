//! What two OPENs agree on (RFC 4271 §4.2, §6.2; RFC 5492; RFC 4724 §3).

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_wire::capability::GracefulRestart;
use bgp_wire::notification::{code, open_error};
use bgp_wire::{Asn, Capability, Context, Family, Notification, Open};

use super::Settings;

/// The one pair of a family and another next hop's AFI that there is here: IPv4 unicast by IPv6.
const EXTENDED_NEXT_HOP: (Family, u16) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST.afi);

/// What our OPENs say about our own restart (RFC 4724 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LocalRestart {
    /// R: we have restarted, and still wait for the peers' routes.
    pub(crate) restarting: bool,
    /// F: packets were forwarded all the while.
    pub(crate) forwarding: bool,
}

/// What the peer said about graceful restart, where both sides want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerRestart {
    /// R: it has restarted.
    pub(crate) restarted: bool,
    /// N, on both sides: a NOTIFICATION other than Hard Reset keeps routes too (RFC 8538 §2).
    pub(crate) notification: bool,
    /// How long to wait for it when it goes away.
    pub(crate) restart_time: Duration,
    /// Families whose routes are kept meanwhile.
    pub(crate) families: Vec<Family>,
    /// Those of them for which it kept forwarding through its last restart (F).
    pub(crate) forwarding: Vec<Family>,
}

/// What both OPENs agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// How messages are written and read.
    pub(crate) context: Context,
    /// Families that both sides speak, in our order.
    pub(crate) families: Vec<Family>,
    /// IPv4 routes may have an IPv6 next hop, either way (RFC 8950 §4).
    pub(crate) extended_next_hop: bool,
    /// The peer sends a family again when asked to (RFC 2918).
    pub(crate) route_refresh: bool,
    /// Both sides mark where that begins and ends (RFC 7313).
    pub(crate) enhanced_refresh: bool,
    /// The smaller of both; zero switches keepalives off.
    pub(crate) hold_time: Duration,
    /// The peer's AS.
    pub(crate) peer_asn: Asn,
    /// The peer's BGP identifier.
    pub(crate) peer_router_id: Ipv4Addr,
    /// Both sides want graceful restart.
    pub(crate) graceful_restart: Option<PeerRestart>,
    /// What we announced.
    pub(crate) local_capabilities: Vec<Capability>,
    /// What the peer announced.
    pub(crate) peer_capabilities: Vec<Capability>,
}

impl Negotiated {
    /// The families for which the peer kept forwarding through its last restart.
    pub(crate) fn forwarding(&self) -> &[Family] {
        self.graceful_restart
            .as_ref()
            .map_or(&[], |restart| &restart.forwarding)
    }
}

/// The OPEN that we send.
pub(crate) fn ours(settings: &Settings, restart: LocalRestart) -> Open {
    let mut capabilities: Vec<_> = settings
        .families
        .iter()
        .map(|family| Capability::Multiprotocol(*family))
        .collect();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::EnhancedRouteRefresh,
        Capability::ExtendedMessage,
        Capability::FourOctetAs(settings.local_asn),
    ]);
    if settings.extended_next_hop && settings.families.contains(&Family::IPV4_UNICAST) {
        capabilities.push(Capability::ExtendedNextHop(vec![EXTENDED_NEXT_HOP]));
    }
    if let Some(restart_time) = settings.graceful_restart {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted: restart.restarting,
            notification: true,
            restart_time: u16::try_from(restart_time.as_secs())
                .unwrap_or(u16::MAX)
                .min(0x0fff),
            families: settings
                .families
                .iter()
                .map(|family| (*family, restart.forwarding))
                .collect(),
        }));
    }
    Open {
        asn: settings.local_asn,
        hold_time: u16::try_from(settings.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: settings.router_id,
        capabilities,
    }
}

/// Checks the peer's OPEN against ours and the configuration.
///
/// # Errors
///
/// The NOTIFICATION to send, and what was wrong in words that name both sides' values.
pub(crate) fn negotiate(
    settings: &Settings,
    ours: &Open,
    theirs: &Open,
) -> Result<Negotiated, (Notification, String)> {
    let reject = |subcode, data: Vec<u8>, detail: String| {
        Err((Notification::new(code::OPEN, subcode, data), detail))
    };

    if !settings.peer_asns.contains(theirs.asn) {
        let detail = format!(
            "peer says AS {}, configured is {}",
            theirs.asn, settings.peer_asns
        );
        return reject(open_error::BAD_PEER_AS, Vec::new(), detail);
    }
    let ibgp = theirs.asn == settings.local_asn;
    if theirs.router_id.is_unspecified() || (ibgp && theirs.router_id == settings.router_id) {
        let detail = format!(
            "router id {} of the peer is ours too, or zero",
            theirs.router_id
        );
        return reject(open_error::BAD_BGP_IDENTIFIER, Vec::new(), detail);
    }
    if matches!(theirs.hold_time, 1 | 2) {
        let detail = format!("hold time {} s", theirs.hold_time);
        return reject(open_error::UNACCEPTABLE_HOLD_TIME, Vec::new(), detail);
    }
    let offered = theirs.families();
    let families: Vec<_> = settings
        .families
        .iter()
        .copied()
        .filter(|family| offered.contains(family))
        .collect();
    if families.is_empty() {
        // Data: the capabilities that we miss, as they stand in an OPEN (RFC 5492 §5).
        let data = settings.families.iter().flat_map(|family| {
            let [high, low] = family.afi.to_be_bytes();
            [1, 4, high, low, 0, family.safi]
        });
        let detail = format!("no common address family: peer has {}", list(&offered));
        return reject(open_error::UNSUPPORTED_CAPABILITY, data.collect(), detail);
    }

    let four_octet = |open: &Open| {
        open.capabilities
            .iter()
            .any(|c| matches!(c, Capability::FourOctetAs(_)))
    };
    Ok(Negotiated {
        context: Context {
            four_octet_as: four_octet(ours) && four_octet(theirs),
            extended_message: ours.has(&Capability::ExtendedMessage)
                && theirs.has(&Capability::ExtendedMessage),
            ibgp,
        },
        route_refresh: theirs.has(&Capability::RouteRefresh),
        enhanced_refresh: ours.has(&Capability::EnhancedRouteRefresh)
            && theirs.has(&Capability::EnhancedRouteRefresh),
        extended_next_hop: families.contains(&EXTENDED_NEXT_HOP.0)
            && has_extended_next_hop(ours)
            && has_extended_next_hop(theirs),
        graceful_restart: peer_restart(ours, theirs, &families),
        families,
        hold_time: Duration::from_secs(ours.hold_time.min(theirs.hold_time).into()),
        peer_asn: theirs.asn,
        peer_router_id: theirs.router_id,
        local_capabilities: ours.capabilities.clone(),
        peer_capabilities: theirs.capabilities.clone(),
    })
}

/// The capability may come more than once, each time with other families (RFC 5492 §5).
fn has_extended_next_hop(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(offered) if offered.contains(&EXTENDED_NEXT_HOP))
    })
}

fn peer_restart(ours: &Open, theirs: &Open, common: &[Family]) -> Option<PeerRestart> {
    let local = ours.graceful_restart()?;
    let peer = theirs.graceful_restart()?;
    let families: Vec<_> = peer
        .families
        .iter()
        .filter(|(family, _)| common.contains(family))
        .collect();
    Some(PeerRestart {
        restarted: peer.restarted,
        notification: local.notification && peer.notification,
        restart_time: Duration::from_secs(peer.restart_time.into()),
        forwarding: families
            .iter()
            .filter(|(_, kept)| *kept)
            .map(|(family, _)| *family)
            .collect(),
        families: families.iter().map(|(family, _)| *family).collect(),
    })
}

fn list(families: &[Family]) -> String {
    families
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether ours is the higher identifier of the two, so that of two connections the one that we opened stays
/// (RFC 4271 §6.8; equal identifiers: the higher AS, RFC 6286 §2.3).
pub(crate) fn we_are_higher(settings: &Settings, peer: &Negotiated) -> bool {
    let order = |router_id: Ipv4Addr, asn: Asn| (u32::from(router_id), asn);
    order(settings.router_id, settings.local_asn) > order(peer.peer_router_id, peer.peer_asn)
}
