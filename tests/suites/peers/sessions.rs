//! OPENs, timers, connections, and how sessions end.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bgp::config::Reach;
use bgp::session::{Direction, State};
use bgp_wire::{AsPath, Attributes, Capability};
use ipnet::IpNet;
use lab::peer::{Announcement, Kind, Neighbour, Restart};
use lab::probe::Capture;
use lab::{net, wait};
use tests::{oracle, same};

use crate::bench::{
    Bench, LIMIT, OUR_ASN, OURS, THEIR_ASN, THEIRS, originate, ours, ours_with, their_end,
};
use crate::third::{Third, WITNESS_ASN, witness};

const OUR_ROUTE: &str = "10.244.1.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";
const OTHER_PORT: u16 = 1790;
/// The protocol's number.
const TCP: u8 = 6;

pub(crate) fn four_octet_as(bench: &mut Bench) -> Result<()> {
    let (our_asn, their_asn) = (4_200_000_001, 4_200_000_002);
    let mut config = ours_with(|peer| peer.asn = their_asn);
    config.asn = our_asn;
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.asn = their_asn;
    theirs.neighbours[0].asn = our_asn;
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("AS_PATH", &route.as_path, &vec![our_asn])
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("AS_PATH", &route.as_path.asns().collect(), &vec![their_asn])
    })
}

/// Towards a speaker of two-octet AS numbers: one that doesn't fit becomes AS_TRANS, and AS4_PATH has the truth.
pub(crate) fn as_trans(bench: &mut Bench) -> Result<()> {
    const AS_TRANS: u32 = 23456;
    let behind = 4_200_000_001;
    let mut config = ours();
    let attributes = Attributes {
        as_path: AsPath::sequence([behind]),
        ..Attributes::originated()
    };
    originate(&mut config, OUR_ROUTE, attributes)?;
    let mut theirs = bench.theirs();
    theirs.neighbours[0].two_octet_as = true;
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)?;
    // Some put the path together from AS4_PATH, others leave that alone.
    bench.they_learn(OUR_ROUTE, |route| {
        let path = &route.as_path;
        ensure!(
            *path == [OUR_ASN, AS_TRANS] || *path == [OUR_ASN, behind],
            "AS_PATH"
        );
        Ok(())
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("AS_PATH", &route.as_path.asns().collect(), &vec![THEIR_ASN])
    })
}

/// Both sides agree on a hold time.
fn agree(bench: &mut Bench, seconds: u64) -> Result<()> {
    let negotiated = bench.status()?.negotiated.context("an OPEN")?;
    same("our hold time", &negotiated.hold_time.as_secs(), &seconds)?;
    same("theirs", &bench.session()?.hold_time, &Some(seconds))
}

pub(crate) fn hold_time_three(bench: &mut Bench) -> Result<()> {
    let config = ours_with(|peer| peer.hold_time = Duration::from_secs(3));
    let theirs = bench.theirs();
    bench.establish(config, &theirs)?;
    agree(bench, 3)?;
    // More than a hold time: it is keepalives that keep it up, both ways.
    wait::holds("the session", Duration::from_millis(3500), || {
        same("state", &bench.status()?.state, &State::Established)
    })?;
    same("flaps", &bench.status()?.flaps, &0)?;
    ensure!(bench.session()?.established, "down at their end");
    Ok(())
}

pub(crate) fn hold_time_zero(bench: &mut Bench) -> Result<()> {
    let mut config = ours_with(|peer| peer.hold_time = Duration::ZERO);
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)?;
    let negotiated = bench.status()?.negotiated.context("an OPEN")?;
    same("our hold time", &negotiated.hold_time, &Duration::ZERO)?;
    let theirs = bench.session()?.hold_time;
    // Some don't show a timer that doesn't run.
    ensure!(
        theirs.is_none_or(|hold| hold == 0),
        "their hold time: {theirs:?}"
    );
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))
}

pub(crate) fn we_are_passive(bench: &mut Bench) -> Result<()> {
    let config = ours_with(|peer| peer.passive = true);
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = false;
    bench.speak(config, false)?;
    bench.start_peer(&theirs)?;
    bench.wait_up()?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("our port", &connection.local.port(), &179)
}

pub(crate) fn they_are_passive(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = true;
    bench.establish(ours(), &theirs)?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("their port", &connection.remote.port(), &179)
}

/// Both start at once, again and again: there is one session, and one connection.
pub(crate) fn collision(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = false;
    bench.establish(ours(), &theirs)?;
    for _ in 0..3 {
        // Both ends lose the cable, and find each other again when it's back.
        bench.abandon()?;
        bench.peer()?.kill()?;
        bench.speak(ours(), false)?;
        bench.peer()?.restart()?;
        bench.wait_up()?;
        wait::until("one connection", LIMIT, || {
            same("connections", &oracle::bgp_connections(&bench.us)?, &1)
        })?;
        bench.wait_up()?;
    }
    Ok(())
}

pub(crate) fn gtsm(bench: &mut Bench) -> Result<()> {
    let config = ours_with(|peer| peer.reach = Reach::Gtsm(1));
    let mut theirs = bench.theirs();
    theirs.neighbours[0].ttl_security = true;
    // ExaBGP doesn't answer from its listening socket with that TTL.
    theirs.neighbours[0].passive = false;
    bench.establish(config, &theirs)
}

/// They send with a TTL of 1, or with the kernel's own: neither can be told from a stranger's far away.
pub(crate) fn gtsm_refuses(bench: &mut Bench) -> Result<()> {
    let config = ours_with(|peer| peer.reach = Reach::Gtsm(1));
    let theirs = bench.theirs();
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    wait::until("an attempt", LIMIT, || {
        let status = bench.status()?;
        ensure!(
            status.state > State::Idle || status.failures > 0,
            "none yet"
        );
        Ok(())
    })?;
    wait::holds("no session", Duration::from_secs(2), || {
        ensure!(
            bench.status()?.state < State::Established,
            "a session came up"
        );
        Ok(())
    })
}

pub(crate) fn multihop(bench: &mut Bench) -> Result<()> {
    let (here, there): (IpAddr, IpAddr) = ("10.255.0.1".parse()?, "10.255.0.2".parse()?);
    net::address(&bench.us, "lo", IpNet::from(here))?;
    net::address(&bench.them, "lo", IpNet::from(there))?;
    for (namespace, via) in [(&bench.us, THEIRS), (&bench.them, OURS)] {
        let IpAddr::V4(via) = via else { continue };
        net::default_route(namespace, via, "cable")?;
    }
    let mut config = ours();
    config.peers.clear();
    let mut peer = their_end(THEIR_ASN);
    peer.reach = Reach::Hops(8);
    peer.local_address = Some(here);
    config.peers.insert(there, peer);
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.neighbours = vec![Neighbour {
        multihop: true,
        ..Neighbour::new(here, OUR_ASN, there)
    }];
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    bench.wait_up_with(here)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("next hop", &route.next_hop, &Some(here))
    })
}

/// Waits until their tool or their log says `text`.
fn they_say(bench: &mut Bench, text: &str) -> Result<()> {
    wait::until(&format!("the words {text:?}"), LIMIT, || {
        let session = bench.session()?.text;
        let log = bench.peer()?.log()?;
        let said = session.to_lowercase() + &log.to_lowercase();
        ensure!(said.contains(&text.to_lowercase()), "they say {session}");
        Ok(())
    })
}

pub(crate) fn our_shutdown_text(bench: &mut Bench) -> Result<()> {
    let theirs = bench.theirs();
    bench.establish(ours(), &theirs)?;
    bench.shut_down("rack 7 is moved")?;
    they_say(bench, "rack 7 is moved")
}

pub(crate) fn their_shutdown_text(bench: &mut Bench) -> Result<()> {
    let theirs = bench.theirs();
    bench.establish(ours(), &theirs)?;
    bench.peer()?.shut_down(OURS, "back at noon")?;
    let error = bench.wait_down()?.last_error.context("a reason")?;
    same("who", &error.ended.direction, &Direction::Received)?;
    let notification = error.ended.notification.context("a NOTIFICATION")?;
    same("code", &(notification.code, notification.subcode), &(6, 2))?;
    same("text", &notification.communication(), &Some("back at noon"))
}

/// The NOTIFICATION that was said last, by either side.
fn last_notification(bench: &Bench) -> Result<(Direction, u8, u8)> {
    let error = bench.status()?.last_error.context("no error yet")?.ended;
    let notification = error.notification.context("no NOTIFICATION")?;
    Ok((error.direction, notification.code, notification.subcode))
}

pub(crate) fn bad_peer_as(bench: &mut Bench) -> Result<()> {
    let config = ours_with(|peer| peer.asn = 65009);
    let theirs = bench.theirs();
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    wait::until("a refusal", LIMIT, || {
        same(
            "who and what",
            &last_notification(bench)?,
            &(Direction::Sent, 2, 2),
        )
    })?;
    let words = match bench.kind {
        Kind::Bird | Kind::Frr | Kind::Exabgp => "bad peer as",
        // It counts the NOTIFICATION, and tells nowhere what was in it.
        Kind::Gobgp => r#""received":{"notification":"#,
        Kind::Openbgpd => "as unacceptable",
    };
    they_say(bench, words)
}

pub(crate) fn refused_by_them(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].asn = 65009;
    bench.start_peer(&theirs)?;
    bench.speak(ours(), false)?;
    wait::until("a refusal", LIMIT, || {
        same(
            "who and what",
            &last_notification(bench)?,
            &(Direction::Received, 2, 2),
        )
    })
}

pub(crate) fn deconfigured(bench: &mut Bench) -> Result<()> {
    let theirs = bench.theirs();
    bench.establish(ours(), &theirs)?;
    let mut config = ours();
    config.peers.clear();
    bench.speaker()?.configure(config);
    let words = match bench.kind {
        Kind::Bird | Kind::Exabgp => "peer de-configured",
        Kind::Frr => "cease/peer de-configured",
        Kind::Gobgp => "code 6(cease) subcode 3(peer deconfigured)",
        Kind::Openbgpd => "peer unconfigured",
    };
    they_say(bench, words)
}

/// They listen elsewhere, and only wait.
pub(crate) fn other_port(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = true;
    theirs.port = OTHER_PORT;
    let config = ours_with(|peer| peer.port = OTHER_PORT);
    bench.establish(config, &theirs)?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("their port", &connection.remote.port(), &OTHER_PORT)
}

/// We listen elsewhere, and only wait.
pub(crate) fn our_other_port(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = false;
    theirs.neighbours[0].port = OTHER_PORT;
    bench.speak_on(OTHER_PORT, ours_with(|peer| peer.passive = true), false)?;
    bench.start_peer(&theirs)?;
    bench.wait_up()?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("our port", &connection.local.port(), &OTHER_PORT)
}

/// They know us by an address that the kernel would not choose.
pub(crate) fn source_address(bench: &mut Bench) -> Result<()> {
    let other: IpAddr = "10.9.0.77".parse()?;
    net::address(&bench.us, "cable", IpNet::new(other, 24)?)?;
    let config = ours_with(|peer| peer.local_address = Some(other));
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = true;
    theirs.neighbours[0].address = other;
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    bench.wait_up_with(other)?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("our address", &connection.local.ip(), &other)
}

/// Every segment of ours, whoever has opened the connection, is marked as network control.
pub(crate) fn marked(bench: &mut Bench) -> Result<()> {
    const CS6: u8 = 48 << 2;
    for we_dial in [true, false] {
        let capture = Capture::start(&bench.them)?;
        let mut theirs = bench.theirs();
        theirs.neighbours[0].passive = we_dial;
        bench.speak(ours_with(|peer| peer.passive = !we_dial), false)?;
        bench.replace_peer(&theirs)?;
        bench.wait_up()?;
        bench.shut_down("")?;
        let frames = capture.finish()?;
        let ours = frames.iter().filter(|frame| {
            let route = frame.plain_ipv4();
            route.is_some_and(|(from, _, protocol)| IpAddr::V4(from) == OURS && protocol == TCP)
        });
        let segments: Vec<_> = ours.collect();
        // Those that the kernel answers by itself, before there is a socket of ours, have nothing to say.
        let said = segments.iter().filter(|frame| says_something(&frame.0));
        let marks: Vec<u8> = said.map(|frame| frame.0[15] & !3).collect();
        ensure!(marks.len() >= 2, "{} segments seen", segments.len());
        ensure!(marks.iter().all(|mark| *mark == CS6), "marks: {marks:?}");
    }
    Ok(())
}

/// A TCP segment in an Ethernet frame has data.
fn says_something(frame: &[u8]) -> bool {
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let header = usize::from(frame[14] & 15) * 4;
    let offset = usize::from(frame[14 + header + 12] >> 4) * 4;
    length > header + offset
}

/// An OPEN in extended form in a frame: Opt. Parm. Len. and the type after it are both 255.
fn extended_open_in(frame: &[u8]) -> bool {
    let header = [&[0xff; 16][..]].concat();
    frame
        .windows(31)
        .any(|it| it[..16] == header && it[18] == 1 && it[28] == 255 && it[29] == 255)
}

/// Their OPEN has the extended form, and we read it.
pub(crate) fn extended_open(bench: &mut Bench) -> Result<()> {
    let capture = Capture::start(&bench.us)?;
    let mut theirs = bench.theirs();
    theirs.neighbours[0].extended_open = true;
    theirs.neighbours[0].restart = Restart::On(60);
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    let mut config = ours();
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    bench.establish(config, &theirs)?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))?;
    let frames = capture.finish()?;
    let mut theirs = frames.iter().filter(|frame| {
        let route = frame.plain_ipv4();
        route.is_some_and(|(from, ..)| IpAddr::V4(from) == THEIRS)
    });
    ensure!(
        theirs.any(|frame| extended_open_in(&frame.0)),
        "their OPEN has not the extended form"
    );
    Ok(())
}

/// Our codec's OPEN in extended form, from a third speaker: the speaker itself has never so much to offer.
pub(crate) fn our_extended_open(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    let many = (0..40).map(|number| Capability::Unknown {
        code: 200,
        value: vec![number; 8],
    });
    let capture = Capture::start(&bench.them)?;
    let mut third = Third::behind_them_with(bench, theirs, witness(WITNESS_ASN), many.collect())?;
    wait::until("their route", LIMIT, || {
        ensure!(third.heard()?.0 > 0, "nothing yet");
        Ok(())
    })?;
    let frames = capture.finish()?;
    let found = frames.iter().any(|frame| extended_open_in(&frame.0));
    ensure!(found, "our OPEN has not the extended form");
    Ok(())
}
