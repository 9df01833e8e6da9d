//! Routes flow between speakers.

use super::net::{Net, originating, peer, prefix, secs, speaker};
use crate::policy::Policy;
use crate::rib::Selection;
use crate::speaker::tests::net::address;

#[test]
fn routes_flow_and_follow_the_configuration() {
    let mut net = Net::new([
        originating(speaker(0, 65001, &[(1, peer(65002))]), &["10.1.0.0/24", "10.1.1.0/24"]),
        originating(speaker(1, 65002, &[(0, peer(65001))]), &["10.2.0.0/24"]),
    ]);
    net.run(secs(2));
    let views = net.speaker(0).routes_to(address(1), &Selection::All).unwrap();
    eprintln!("{views:#?}");
    let views = net.speaker(1).routes(&Selection::All);
    eprintln!("{views:#?}");
    eprintln!("{:?}", net.nodes[1].routes);
    assert_eq!(net.nodes[1].routes.len(), 2);
}
