//! Thousands of speakers in one process and in virtual time.
//!
//! Every node is the real thing: a [`Speaker`](bgp::speaker::Speaker) with its whole RIB, sessions made by encoded messages
//! over connections that have latency, windows, loss and FIN or RST, and a kernel whose routes the speaker feeds. What is
//! simulated is what lies between them, and the clock. Nothing is shared between nodes but octets on their way: an update
//! group's messages are counted references to one buffer, as they are in the real program.
//!
//! | module | what |
//! | --- | --- |
//! | [`address`] | numbers and addresses of nodes and their blocks |
//! | [`topology`] | who peers with whom |
//! | [`net`] | hosts, processes, connections, and the clock |
//! | [`fib`] | a node's kernel, as far as routes go |
//! | [`oracle`] | what every node should have, worked out independently |
//! | [`check`] | what must hold |
//! | [`scenario`] | random faults by seed, and the check after them |
//! | [`scale`] | large topologies, from power-up to rest |
#![forbid(unsafe_code)]

pub mod address;
pub mod check;
pub mod fib;
pub mod net;
pub mod oracle;
pub mod scale;
pub mod scenario;
pub mod topology;
