//! A BGP speaker in thirty lines: peers with one neighbour, announces prefixes, and prints what it learns.
//!
//! `cargo run -p bgp-net --example speaker -- LOCAL_ASN ROUTER_ID LISTEN PEER PEER_ASN [PREFIX]...`
#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use bgp::config::{PeerConfig, SpeakerConfig};
use bgp::policy::Policy;
use bgp_net::{Listen, RouteFeed};
use bgp_wire::Attributes;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [asn, router_id, listen, peer, peer_asn, prefixes @ ..] = args.as_slice() else {
        anyhow::bail!("usage: speaker LOCAL_ASN ROUTER_ID LISTEN PEER PEER_ASN [PREFIX]...");
    };
    let listen: SocketAddr = listen.parse().context("LISTEN")?;
    let peer: IpAddr = peer.parse().context("PEER")?;

    let mut config = SpeakerConfig::new(
        asn.parse().context("LOCAL_ASN")?,
        router_id.parse().context("ROUTER_ID")?,
    );
    let neighbour = PeerConfig {
        local_address: Some(listen.ip()),
        port: listen.port(),
        hold_time: Duration::from_secs(9),
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        ..PeerConfig::new(peer_asn.parse().context("PEER_ASN")?)
    };
    config.peers.insert(peer, neighbour);
    for prefix in prefixes {
        config
            .originated
            .insert(prefix.parse().context("PREFIX")?, Attributes::originated());
    }

    let (_speaker, mut routes) = bgp_net::spawn(
        config,
        &Listen {
            addresses: vec![listen],
        },
        false,
    )?;
    while let Some(feed) = routes.blocking_recv() {
        match feed {
            RouteFeed::Synced => println!("synced"),
            RouteFeed::NextHops(_) | RouteFeed::NextHopsTaken(_) => {}
            RouteFeed::Changes(changes) => {
                for change in changes {
                    println!("{} via {:?}", change.prefix, change.next_hops);
                }
            }
        }
    }
    Ok(())
}
