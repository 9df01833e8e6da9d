//! The features, and which of them each speaker has.

use anyhow::Result;
use lab::peer::Kind;

use crate::bench::Bench;
use crate::{restart, routes, sessions};

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

const GR_HELPERS: &[(Kind, &str)] = &[(Kind::Exabgp, NO_TABLE)];
const GR_BOTH: &[(Kind, &str)] = &[(Kind::Openbgpd, HELPER_ONLY), (Kind::Exabgp, NO_TABLE)];

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
];
