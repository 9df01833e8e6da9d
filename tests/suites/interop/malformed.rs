//! A peer that misbehaves: each fault has the NOTIFICATION that the RFC asks for, or leaves the session up (RFC 7606).

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::datacentre::{DataCentre, Shape};
use lab::speaker::{self, Heard, RawSpeaker};
use lab::wait;
use tests::{Case, SESSION, oracle, same, wait_session};

const LIMIT: Duration = Duration::from_secs(5);

/// Of the peer that we play.
const ASN: u32 = 4_200_001_001;

pub(crate) fn cases() -> Vec<Case> {
    let alone = Shape {
        tor: None,
        racks: 1,
        nodes: 1,
        pods: 0,
        ..Shape::default()
    };
    let case = |name: &str, body| Case::new(&format!("malformed::{name}"), alone.clone(), body);
    vec![
        case("headers", headers),
        case("opens", opens),
        case("messages_out_of_turn", out_of_turn),
        case("attributes_leave_the_session_up", attributes).with("ip"),
    ]
}

/// Starts the only node's agent with the ToR's address as its peer, where nobody but us listens.
fn listen(dc: &mut DataCentre) -> Result<TcpListener> {
    let rack = dc.racks.first_mut().context("a rack")?;
    let listener = speaker::listen(&rack.tor.namespace, rack.tor.address)?;
    let node = rack.nodes.first_mut().context("a node")?;
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: rogue\nspec:\n  \
         peerIP: {}\n  asNumber: {ASN}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: pods\nspec:\n  cidr: 10.244.0.0/16\n",
        rack.tor.address
    );
    node.write_config("rogue.yaml", &text)?;
    node.start()?;
    node.wait_ready(SESSION)?;
    Ok(listener)
}

fn accept(listener: &TcpListener) -> Result<RawSpeaker> {
    RawSpeaker::accept(listener, SESSION)
}

fn our_open() -> bgp_wire::Open {
    speaker::open(ASN, [172, 20, 1, 1].into(), 90)
}

/// Says `octets` where an OPEN is due, and hears a NOTIFICATION.
fn refused(
    listener: &TcpListener,
    octets: &[u8],
    code: u8,
    subcode: u8,
    data: &[u8],
) -> Result<()> {
    let mut peer = accept(listener)?;
    peer.say(octets)?;
    let heard = peer.hear_notification(LIMIT)?;
    let expected = (code, subcode, data.to_vec());
    let what = format!("answer to {octets:02x?}");
    same(&what, &(heard.code, heard.subcode, heard.data), &expected)?;
    same("then", &peer.hear(LIMIT)?, &Heard::Closed)
}

/// A header by hand: marker, length, type.
fn header(length: u16, kind: u8) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend(length.to_be_bytes());
    octets.push(kind);
    octets
}

/// RFC 4271 §6.1.
fn headers(dc: &mut DataCentre) -> Result<()> {
    let listener = listen(dc)?;
    let mut broken = header(19, 4);
    broken[3] = 0;
    refused(&listener, &broken, 1, 1, &[])?;
    refused(&listener, &header(18, 4), 1, 2, &18u16.to_be_bytes())?;
    refused(&listener, &header(4097, 1), 1, 2, &4097u16.to_be_bytes())?;
    refused(&listener, &header(20, 4), 1, 2, &20u16.to_be_bytes())?;
    refused(&listener, &header(19, 9), 1, 3, &[9])
}

/// An OPEN by hand, without capabilities.
fn open(version: u8, asn: u16, hold_time: u16, router_id: [u8; 4]) -> Vec<u8> {
    let mut octets = header(29, 1);
    octets.push(version);
    octets.extend(asn.to_be_bytes());
    octets.extend(hold_time.to_be_bytes());
    octets.extend(router_id);
    octets.push(0);
    octets
}

/// RFC 4271 §6.2, RFC 6286.
fn opens(dc: &mut DataCentre) -> Result<()> {
    let listener = listen(dc)?;
    let id = [172, 20, 1, 1];
    refused(
        &listener,
        &open(3, 23456, 90, id),
        2,
        1,
        &4u16.to_be_bytes(),
    )?;
    refused(&listener, &open(4, 23456, 2, id), 2, 6, &[])?;
    refused(&listener, &open(4, 23456, 90, [0; 4]), 2, 3, &[])?;
    // Not the AS that was configured.
    refused(&listener, &open(4, 65001, 90, id), 2, 2, &[])
}

/// RFC 4271 §6.6 with the subcodes of RFC 6608, whose data is the type that was not expected.
fn out_of_turn(dc: &mut DataCentre) -> Result<()> {
    let listener = listen(dc)?;
    // In OpenSent.
    refused(&listener, &header(19, 4), 5, 1, &[4])?;
    // In OpenConfirm.
    let mut peer = accept(&listener)?;
    peer.say_open(&our_open())?;
    let heard = peer.hear(LIMIT)?;
    if !matches!(heard, Heard::Open(_)) {
        bail!("heard {heard:?}");
    }
    peer.say(&update(&[], &[]))?;
    let heard = peer.hear_notification(LIMIT)?;
    same("in OpenConfirm", &(heard.code, heard.subcode), &(5, 2))?;
    // In Established.
    let mut peer = accept(&listener)?;
    peer.establish(&our_open(), LIMIT)?;
    peer.say_open(&our_open())?;
    let heard = peer.hear_notification(LIMIT)?;
    same("in Established", &(heard.code, heard.subcode), &(5, 3))
}

/// An UPDATE by hand.
fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let body = 4 + attributes.len() + nlri.len();
    let length = |octets: usize| u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
    let mut octets = header(0, 2);
    octets[16..18].copy_from_slice(&length(19 + body));
    octets.extend([0, 0]);
    octets.extend(length(attributes.len()));
    octets.extend(attributes);
    octets.extend(nlri);
    octets
}

/// ORIGIN IGP, AS_PATH of the one AS, NEXT_HOP.
fn good_attributes() -> Vec<u8> {
    let mut octets = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    octets.extend(ASN.to_be_bytes());
    octets.extend([0x40, 3, 4, 172, 20, 1, 1]);
    octets
}

/// RFC 7606: treat-as-withdraw for a broken ORIGIN, attribute discard for a broken ATOMIC_AGGREGATE; and the session
/// stays for both.
fn attributes(dc: &mut DataCentre) -> Result<()> {
    let listener = listen(dc)?;
    let mut peer = accept(&listener)?;
    peer.establish(&our_open(), LIMIT)?;
    let node = dc.nodes().next().context("a node")?;
    wait_session(node, true, LIMIT)?;
    let end_of_rib = update(&[], &[]);
    let prefix = "10.244.200.0/24".parse()?;
    let nlri = [24, 10, 244, 200];

    peer.say(&update(&good_attributes(), &nlri))?;
    peer.say(&end_of_rib)?;
    let present = |wanted: bool| {
        wait::until("the route", SESSION, || {
            let routes = oracle::margay_routes(&node.namespace)?;
            same("present", &routes.contains_key(&prefix), &wanted)
        })
    };
    present(true)?;

    let mut broken = good_attributes();
    broken[3] = 9;
    peer.say(&update(&broken, &nlri))?;
    present(false)?;

    let mut discarded = good_attributes();
    discarded.extend([0x40, 6, 1, 0]);
    peer.say(&update(&discarded, &nlri))?;
    present(true)?;
    wait_session(node, true, LIMIT).map(drop)
}
