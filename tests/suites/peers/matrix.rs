//! The features, and which of them each speaker has.

use anyhow::Result;
use lab::peer::Kind;

use crate::bench::Bench;
use crate::{both, families, guards, limits, ranges, restart, routes, rules, sessions, silence};

/// What a case does on its bench.
pub(crate) type Case = fn(&mut Bench) -> Result<()>;

/// A feature with one speaker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell {
    /// There is a case.
    Case(Case),
    /// There is none, for this reason.
    Without(&'static str),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feature {
    /// The name of its cases.
    pub(crate) slug: &'static str,
    /// What it is, for a person.
    pub(crate) what: &'static str,
    /// Where it is defined.
    pub(crate) rfc: &'static str,
    case: Case,
    without: &'static [(Kind, &'static str)],
}

impl Feature {
    /// What there is for a speaker.
    pub(crate) fn cell(&self, kind: Kind) -> Cell {
        let mut without = self.without.iter();
        match without.find(|(other, _)| *other == kind) {
            Some((_, reason)) => Cell::Without(reason),
            None => Cell::Case(self.case),
        }
    }
}

const fn feature(
    slug: &'static str,
    what: &'static str,
    rfc: &'static str,
    case: Case,
    without: &'static [(Kind, &'static str)],
) -> Feature {
    Feature {
        slug,
        what,
        rfc,
        case,
        without,
    }
}

const NO_KNOB: &str = "Not offered: it can't be configured to.";
const DEAF_AT_ZERO: &str = "Not offered: without a hold time this version can't send an UPDATE, for its deadline to write is over at once.";
const BROKEN_TEXT: &str =
    "It ends the session over any shutdown text: this version fails to decode it.";
const OWN_COPY: &str = "Not offered: its soft reset works from what it has kept, and asks nobody.";
const NO_TABLE: &str = "Not offered: it keeps no table, so it has no routes to keep or to mark.";
const NOT_SHOWN: &str = "Its tools show no attributes that it doesn't know.";
const NO_EXTENDED: &str = "Not offered: this version has no extended messages.";
const NO_TEXT: &str = "Not offered: it can't send a shutdown text.";
const HELPER_ONLY: &str =
    "Not offered: it helps others restart, but doesn't restart gracefully itself.";
const NOT_FORWARDING: &str = "Its OPEN after a NOTIFICATION says that it has not kept its forwarding state, so its routes go (RFC 4724 §4.2).";
const NO_8538: &str = "Not offered: this version doesn't keep routes through a NOTIFICATION.";

const NO_8950: &str = "Not offered: this version has no extended next hops.";
const ONE_FAMILY: &str = "It takes our routes, but tells none of its own: it finds no address of its own for the family that the connection is not of.";
const NO_ANSWER: &str =
    "It answers no ROUTE-REFRESH, from nobody: its log says that the family isn't negotiated.";
const RESETS: &str =
    "It ends the session over a ROUTE-REFRESH, with a TCP reset, whoever sends it.";
const OWN_FILTER: &str = "It doesn't tell a neighbour of a path that has the neighbour's AS.";
const NO_REFLECTOR: &str = "Not offered: it reflects nothing and passes nothing on.";
const NO_LIMIT: &str = "Not offered: it has no limit.";
const LIMIT_FOR_GOOD: &str =
    "Not offered: a session that its limit has ended stays down until its operator enables it.";
const NO_RANGE_KEY: &str = "Not offered: this version gives the kernel passwords for single addresses only, so nobody gets in from a range that has one.";
const LIMIT_WARNS_OR_ENDS: &str = "Not offered: its limit warns or ends the session.";
const NO_9072: &str = "Not offered: this version refuses an OPEN in the extended form.";
const SHORT_OPEN: &str = "It never has more than 255 octets to offer.";
const PLAIN_SHUTDOWN: &str = "Its shutdown is a plain one, whatever was agreed on: what RFC 8538 §3 wants of it, it doesn't do.";
const LIMIT_ENDS_IT: &str = "Not offered: its limit always ends the session.";
const NO_7313: &str = "Not offered: it announces the capability, and never uses it.";

const GR_HELPERS: &[(Kind, &str)] = &[(Kind::Exabgp, NO_TABLE)];
const GR_BOTH: &[(Kind, &str)] = &[(Kind::Openbgpd, HELPER_ONLY), (Kind::Exabgp, NO_TABLE)];

const LIMIT_ENDS: &[(Kind, &str)] = &[
    (Kind::Gobgp, LIMIT_ENDS_IT),
    (Kind::Openbgpd, LIMIT_ENDS_IT),
    (Kind::Exabgp, NO_LIMIT),
];
const NO_HARD_RESET: &[(Kind, &str)] = &[
    (Kind::Bird, NO_8538),
    (Kind::Openbgpd, NO_8538),
    (Kind::Exabgp, NO_TABLE),
];

/// All of them, in the order of the page.
pub(crate) const FEATURES: &[Feature] = &[
    feature(
        "ipv4_unicast",
        "IPv4 routes and their withdrawal",
        "4271",
        routes::ipv4_unicast,
        &[],
    ),
    feature(
        "four_octet_as",
        "AS numbers of four octets",
        "6793",
        sessions::four_octet_as,
        &[],
    ),
    feature(
        "as_trans",
        "AS_TRANS and AS4_PATH towards a speaker with two-octet AS numbers",
        "6793",
        sessions::as_trans,
        &[(Kind::Gobgp, NO_KNOB)],
    ),
    feature(
        "hold_time_three",
        "hold time of 3 s",
        "4271",
        sessions::hold_time_three,
        &[],
    ),
    feature(
        "hold_time_zero",
        "no hold time, no keepalives",
        "4271",
        sessions::hold_time_zero,
        &[(Kind::Gobgp, DEAF_AT_ZERO)],
    ),
    feature(
        "we_are_passive",
        "we only wait",
        "4271",
        sessions::we_are_passive,
        &[],
    ),
    feature(
        "they_are_passive",
        "they only wait",
        "4271",
        sessions::they_are_passive,
        &[],
    ),
    feature(
        "collision",
        "both dial at once",
        "4271 §6.8",
        sessions::collision,
        &[],
    ),
    feature("gtsm", "GTSM on both sides", "5082", sessions::gtsm, &[]),
    feature(
        "gtsm_refuses",
        "GTSM refuses a peer without it",
        "5082",
        sessions::gtsm_refuses,
        &[],
    ),
    feature(
        "multihop",
        "sessions between loopback addresses",
        "4271",
        sessions::multihop,
        &[],
    ),
    feature(
        "other_port",
        "they listen on another port",
        "-",
        sessions::other_port,
        &[],
    ),
    feature(
        "our_other_port",
        "we listen on another port",
        "-",
        sessions::our_other_port,
        &[],
    ),
    feature(
        "source_address",
        "we dial from an address that is not the interface's first",
        "-",
        sessions::source_address,
        &[],
    ),
    feature(
        "marked",
        "what we send has DSCP CS6",
        "4594",
        sessions::marked,
        &[],
    ),
    feature(
        "extended_open",
        "their OPEN with extended optional parameters",
        "9072",
        sessions::extended_open,
        &[
            (Kind::Gobgp, NO_9072),
            (Kind::Openbgpd, SHORT_OPEN),
            (Kind::Exabgp, NO_9072),
        ],
    ),
    feature(
        "our_extended_open",
        "an OPEN of our making with more than 255 octets of parameters",
        "9072",
        sessions::our_extended_open,
        &[(Kind::Gobgp, NO_9072), (Kind::Exabgp, NO_9072)],
    ),
    feature(
        "our_shutdown_text",
        "our shutdown text is shown by them",
        "9003",
        sessions::our_shutdown_text,
        &[(Kind::Exabgp, BROKEN_TEXT)],
    ),
    feature(
        "their_shutdown_text",
        "their shutdown text is shown by us",
        "9003",
        sessions::their_shutdown_text,
        &[(Kind::Exabgp, NO_TEXT)],
    ),
    feature(
        "bad_peer_as",
        "wrong AS in an OPEN, refused by us",
        "4271 §6.2",
        sessions::bad_peer_as,
        &[],
    ),
    feature(
        "refused_by_them",
        "wrong AS in an OPEN, refused by them",
        "4271 §6.2",
        sessions::refused_by_them,
        &[],
    ),
    feature(
        "deconfigured",
        "a peer that is deconfigured: Cease with subcode 3",
        "4486",
        sessions::deconfigured,
        &[],
    ),
    feature(
        "refresh_asked",
        "their ROUTE-REFRESH is answered",
        "2918",
        routes::refresh_asked,
        &[(Kind::Gobgp, OWN_COPY)],
    ),
    feature(
        "end_of_rib",
        "End-of-RIB both ways",
        "4724",
        routes::end_of_rib,
        &[],
    ),
    feature("med", "MULTI_EXIT_DISC", "4271", routes::med, &[]),
    feature(
        "local_pref",
        "LOCAL_PREF within an AS",
        "4271",
        routes::local_pref,
        &[],
    ),
    feature(
        "communities",
        "communities, extended and large ones",
        "1997, 4360, 8092",
        routes::communities,
        &[],
    ),
    feature(
        "unknown_attribute",
        "an unknown transitive attribute is passed on",
        "4271 §5",
        routes::unknown_attribute,
        &[(Kind::Frr, NOT_SHOWN)],
    ),
    feature(
        "extended_message",
        "a message of more than 4,096 octets",
        "8654",
        routes::extended_message,
        &[(Kind::Gobgp, NO_EXTENDED), (Kind::Openbgpd, NO_EXTENDED)],
    ),
    feature(
        "malformed",
        "faults of others leave the session up and don't reach them",
        "7606",
        routes::malformed,
        &[],
    ),
    feature(
        "we_restart",
        "we restart: they keep our routes",
        "4724",
        restart::we_restart,
        GR_HELPERS,
    ),
    feature(
        "we_restart_twice",
        "we restart again before End-of-RIB",
        "4724",
        restart::we_restart_twice,
        GR_HELPERS,
    ),
    feature(
        "they_dial_in",
        "we restart, and they dial in",
        "4724",
        restart::they_dial_in,
        GR_HELPERS,
    ),
    feature(
        "they_restart",
        "they restart: we keep their routes",
        "4724",
        restart::they_restart,
        GR_BOTH,
    ),
    feature(
        "they_stay_away",
        "they don't come back: we drop their routes in time",
        "4724",
        restart::they_stay_away,
        GR_BOTH,
    ),
    feature(
        "both_restart",
        "both restart at once",
        "4724",
        restart::both_restart,
        GR_BOTH,
    ),
    feature(
        "we_restart_ipv6",
        "we restart, IPv6: kept, told anew, the rest swept",
        "4724",
        both::we_restart_ipv6,
        GR_HELPERS,
    ),
    feature(
        "we_restart_both",
        "we restart, both families: each with its End-of-RIB",
        "4724",
        both::we_restart_both,
        GR_HELPERS,
    ),
    feature(
        "they_restart_ipv6",
        "they restart, IPv6: kept, told anew, the rest swept",
        "4724",
        both::they_restart_ipv6,
        GR_BOTH,
    ),
    feature(
        "they_restart_both",
        "they restart, both families: kept, told anew, the rest swept",
        "4724",
        both::they_restart_both,
        GR_BOTH,
    ),
    feature(
        "no_cease",
        "we end for a restart: no NOTIFICATION on the wire",
        "4724",
        silence::no_cease,
        GR_HELPERS,
    ),
    feature(
        "our_hard_reset",
        "our Hard Reset: they drop our routes",
        "8538",
        silence::our_hard_reset,
        NO_HARD_RESET,
    ),
    feature(
        "their_hard_reset",
        "their Hard Reset: we drop their routes",
        "8538",
        silence::their_hard_reset,
        &[
            (Kind::Bird, NO_8538),
            (Kind::Gobgp, PLAIN_SHUTDOWN),
            (Kind::Openbgpd, NO_8538),
            (Kind::Exabgp, NO_TABLE),
        ],
    ),
    feature(
        "notification_keeps",
        "a NOTIFICATION leaves routes in place on both sides",
        "8538",
        restart::notification_keeps,
        &[
            (Kind::Bird, NO_8538),
            (Kind::Gobgp, NOT_FORWARDING),
            (Kind::Openbgpd, NO_8538),
            (Kind::Exabgp, NO_TABLE),
        ],
    ),
    feature(
        "ipv6_over_ipv6",
        "IPv6 over IPv6",
        "4760, 2545",
        families::ipv6_over_ipv6,
        &[],
    ),
    feature(
        "both_over_ipv4",
        "both families over IPv4",
        "4760",
        families::both_over_ipv4,
        &[(Kind::Openbgpd, ONE_FAMILY)],
    ),
    feature(
        "both_over_ipv6",
        "both families over IPv6",
        "4760",
        families::both_over_ipv6,
        &[(Kind::Openbgpd, ONE_FAMILY)],
    ),
    feature(
        "extended_next_hop",
        "IPv4 with an IPv6 next hop",
        "8950",
        families::extended_next_hop,
        &[(Kind::Openbgpd, NO_8950)],
    ),
    feature("md5", "TCP-MD5", "2385", guards::md5, &[]),
    feature(
        "md5_passive",
        "TCP-MD5 where they dial",
        "2385",
        guards::md5_passive,
        &[],
    ),
    feature(
        "md5_rekeyed",
        "a wrong password is shown, and mended without a restart",
        "2385",
        guards::md5_rekeyed,
        &[],
    ),
    feature(
        "our_limit_warns",
        "our prefix limit: said, and no more",
        "4271 §6.7",
        limits::ours_warns,
        &[],
    ),
    feature(
        "our_limit_restarts",
        "our prefix limit: the session ends for a while",
        "4486",
        limits::ours_restarts,
        &[],
    ),
    feature(
        "our_limit",
        "our prefix limit: the session stays down",
        "4486",
        limits::ours_stays_down,
        &[],
    ),
    feature(
        "their_limit_warns",
        "their prefix limit: said, and no more",
        "4271 §6.7",
        limits::theirs_warns,
        LIMIT_ENDS,
    ),
    feature(
        "their_limit_blocks",
        "their prefix limit: the rest is not taken",
        "4271 §6.7",
        limits::theirs_blocks,
        &[
            (Kind::Frr, LIMIT_WARNS_OR_ENDS),
            (Kind::Gobgp, LIMIT_ENDS_IT),
            (Kind::Openbgpd, LIMIT_ENDS_IT),
            (Kind::Exabgp, NO_LIMIT),
        ],
    ),
    feature(
        "their_limit_restarts",
        "their prefix limit: the session ends for a while",
        "4486",
        limits::theirs_restarts,
        &[(Kind::Gobgp, LIMIT_FOR_GOOD), (Kind::Exabgp, NO_LIMIT)],
    ),
    feature(
        "their_limit",
        "their prefix limit: the session stays down",
        "4486",
        limits::theirs_stays_down,
        &[(Kind::Exabgp, NO_LIMIT)],
    ),
    feature(
        "dynamic",
        "a neighbour that we know by its range only",
        "-",
        guards::dynamic,
        &[],
    ),
    feature(
        "our_range_md5",
        "TCP-MD5 for a range of ours; wrong and changed passwords",
        "2385",
        ranges::our_range_has_a_password,
        &[],
    ),
    feature(
        "their_range",
        "a neighbour that they know by its range only",
        "-",
        ranges::their_range,
        &[],
    ),
    feature(
        "their_range_md5",
        "TCP-MD5 for a range of theirs; a wrong password mended",
        "2385",
        ranges::their_range_has_a_password,
        &[
            (Kind::Gobgp, NO_RANGE_KEY),
            (Kind::Openbgpd, NO_RANGE_KEY),
            (Kind::Exabgp, NO_RANGE_KEY),
        ],
    ),
    feature(
        "we_ask",
        "our ROUTE-REFRESH is answered",
        "2918",
        guards::we_ask,
        &[(Kind::Openbgpd, NO_ANSWER), (Kind::Exabgp, RESETS)],
    ),
    feature(
        "enhanced_refresh",
        "marks around what is sent again",
        "7313",
        guards::enhanced_refresh,
        &[(Kind::Gobgp, NO_7313)],
    ),
    feature(
        "we_reflect",
        "we are their route reflector",
        "4456",
        rules::we_reflect,
        &[],
    ),
    feature(
        "they_reflect",
        "they are our route reflector",
        "4456",
        rules::they_reflect,
        &[(Kind::Exabgp, NO_REFLECTOR)],
    ),
    feature(
        "local_as",
        "another AS of ours towards them",
        "-",
        rules::local_as,
        &[],
    ),
    feature(
        "allowed_own_as",
        "our own AS in a path of theirs",
        "-",
        rules::allowed_own_as,
        &[(Kind::Gobgp, OWN_FILTER), (Kind::Exabgp, NO_REFLECTOR)],
    ),
    feature(
        "private_as",
        "private AS numbers are taken out",
        "6996",
        rules::private_as,
        &[],
    ),
    feature(
        "override_as",
        "their AS is replaced by ours",
        "-",
        rules::override_as,
        &[],
    ),
    feature(
        "well_known",
        "NO_EXPORT and NO_ADVERTISE",
        "1997",
        rules::well_known,
        &[],
    ),
    feature(
        "blackhole",
        "BLACKHOLE, where it is honoured",
        "7999",
        rules::blackhole,
        &[],
    ),
    feature(
        "multipath",
        "equal paths through two neighbouring ASes share traffic",
        "-",
        rules::multipath,
        &[],
    ),
    feature(
        "next_hops",
        "next hop kept, or ours, towards an internal peer",
        "4271 §5.1.3",
        rules::next_hops,
        &[],
    ),
    feature(
        "drain",
        "GRACEFUL_SHUTDOWN before maintenance",
        "8326",
        rules::drain,
        &[],
    ),
    feature(
        "policy",
        "filters both ways, without a reset",
        "-",
        rules::policy,
        &[],
    ),
];
