//! A third speaker, by hand: behind us it says what no decent router would, behind them it hears what they pass on.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use bgp::config::{PeerConfig, SpeakerConfig};
use bgp::policy::Policy;
use bgp_wire::{Capability, Open};
use ipnet::IpNet;
use lab::peer::{Config, Neighbour};
use lab::speaker::{self, Heard, RawSpeaker};
use lab::{Namespace, net, wait};

use crate::bench::{Bench, LIMIT, their_end};

/// The AS of the third speaker behind us, where it is an external one.
pub(crate) const INJECTOR_ASN: u32 = 65003;
/// Its address.
pub(crate) const INJECTOR: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 3);
const BESIDE_INJECTOR: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);

/// The AS of the third speaker behind them.
pub(crate) const WITNESS_ASN: u32 = 65004;
/// Its address.
pub(crate) const WITNESS: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 4);
const BESIDE_WITNESS: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);

/// Longer than a case, for it sends no keepalives.
const HOLD_TIME: u16 = 240;

/// The third speaker, in a namespace of its own.
#[derive(Debug)]
pub(crate) struct Third {
    speaker: RawSpeaker,
    address: Ipv4Addr,
    _namespace: Namespace,
}

impl Third {
    /// Behind us: starts both speakers with one more peer in our configuration, and comes up as that.
    pub(crate) fn behind_us(
        bench: &mut Bench,
        mut config: SpeakerConfig,
        peer: PeerConfig,
        theirs: &Config,
    ) -> Result<Self> {
        let namespace = Namespace::create(&format!("{}-injector", bench.us.name()))?;
        net::cable((&bench.us, "side"), (&namespace, "side"))?;
        net::address(&bench.us, "side", IpNet::new(BESIDE_INJECTOR.into(), 24)?)?;
        net::address(&namespace, "side", IpNet::new(INJECTOR.into(), 24)?)?;
        let listener = speaker::listen(&namespace, INJECTOR)?;
        let asn = peer.asn;
        config.peers.insert(INJECTOR.into(), peer);
        bench.start_peer(theirs)?;
        bench.speak(config, false)?;
        let mut speaker = RawSpeaker::accept(&listener, LIMIT)?;
        speaker.establish(&open(asn, INJECTOR), LIMIT)?;
        Ok(Self {
            speaker,
            address: INJECTOR,
            _namespace: namespace,
        })
    }

    /// Behind them: starts their speaker with the third as one more neighbour, and dials it.
    pub(crate) fn behind_them(
        bench: &mut Bench,
        theirs: Config,
        neighbour: Neighbour,
    ) -> Result<Self> {
        Self::behind_them_with(bench, theirs, neighbour, Vec::new())
    }

    /// [`behind_them`](Self::behind_them) with more capabilities in its OPEN.
    pub(crate) fn behind_them_with(
        bench: &mut Bench,
        mut theirs: Config,
        neighbour: Neighbour,
        capabilities: Vec<Capability>,
    ) -> Result<Self> {
        let namespace = Namespace::create(&format!("{}-witness", bench.us.name()))?;
        net::cable((&bench.them, "side"), (&namespace, "side"))?;
        net::address(&bench.them, "side", IpNet::new(BESIDE_WITNESS.into(), 24)?)?;
        net::address(&namespace, "side", IpNet::new(WITNESS.into(), 24)?)?;
        let asn = neighbour.asn;
        theirs.neighbours.push(neighbour);
        bench.start_peer(&theirs)?;
        let speaker = wait::until("their port", LIMIT, || {
            let mut speaker = RawSpeaker::connect(&namespace, BESIDE_WITNESS)?;
            let mut open = open(asn, WITNESS);
            open.capabilities.extend(capabilities.iter().cloned());
            speaker.establish(&open, LIMIT)?;
            Ok(speaker)
        })?;
        Ok(Self {
            speaker,
            address: WITNESS,
            _namespace: namespace,
        })
    }

    /// Says these octets.
    pub(crate) fn say(&mut self, octets: &[u8]) -> Result<()> {
        self.speaker.say(octets)
    }

    /// Announces an IPv4 route with this AS path and these further attributes.
    pub(crate) fn announce(&mut self, nlri: &[u8], path: &[u32], more: &[u8]) -> Result<()> {
        let attributes = [attributes(self.address, path), more.to_vec()].concat();
        self.say(&update(&[], &attributes, nlri))
    }

    /// What it has heard since it was asked last: UPDATEs with routes, and UPDATEs that withdraw.
    pub(crate) fn heard(&mut self) -> Result<(usize, usize)> {
        let (mut announced, mut withdrawn) = (0, 0);
        // Nothing more to hear: it waits no longer than for what is on its way.
        while let Ok(heard) = self.speaker.hear(Duration::from_millis(100)) {
            match heard {
                Heard::Update(octets) => {
                    let withdraws = octets[19..21] != [0, 0];
                    withdrawn += usize::from(withdraws);
                    announced += usize::from(!withdraws && octets.len() > 23);
                }
                Heard::Closed | Heard::Notification(_) => bail!("they have left: {heard:?}"),
                Heard::Open(_) | Heard::Keepalive | Heard::RouteRefresh => {}
            }
        }
        Ok((announced, withdrawn))
    }
}

fn open(asn: u32, router_id: Ipv4Addr) -> Open {
    speaker::open(asn, router_id, HOLD_TIME)
}

/// The third speaker as our peer: external, and nothing is announced to it.
pub(crate) fn injector(asn: u32) -> PeerConfig {
    PeerConfig {
        export: Policy::reject_all("it only talks"),
        hold_time: Duration::from_secs(HOLD_TIME.into()),
        ..their_end(asn)
    }
}

/// The third speaker as their neighbour.
pub(crate) fn witness(asn: u32) -> Neighbour {
    Neighbour {
        passive: true,
        hold_time: HOLD_TIME,
        ..Neighbour::new(WITNESS.into(), asn, BESIDE_WITNESS.into())
    }
}

/// An UPDATE by hand.
pub(crate) fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let body = 4 + withdrawn.len() + attributes.len() + nlri.len();
    let length = |octets: usize| u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
    let mut octets = vec![0xff; 16];
    octets.extend(length(19 + body));
    octets.push(2);
    octets.extend(length(withdrawn.len()));
    octets.extend(withdrawn);
    octets.extend(length(attributes.len()));
    octets.extend(attributes);
    octets.extend(nlri);
    octets
}

/// ORIGIN IGP, AS_PATH of one sequence or of none, NEXT_HOP.
pub(crate) fn attributes(next_hop: Ipv4Addr, path: &[u32]) -> Vec<u8> {
    let mut octets = vec![0x40, 1, 1, 0];
    let count = u8::try_from(path.len()).unwrap_or(u8::MAX);
    if path.is_empty() {
        octets.extend([0x40, 2, 0]);
    } else {
        octets.extend([0x40, 2, 2 + 4 * count, 2, count]);
        octets.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    octets.extend([0x40, 3, 4]);
    octets.extend(next_hop.octets());
    octets
}
