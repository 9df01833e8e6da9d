//! The kernel's network state over rtnetlink: dumped, changed in batches, and watched.
//!
//! | module | what |
//! | --- | --- |
//! | [`netns`] | network namespaces: made, entered by helper threads, kept by a file |
//! | [`pod`] | wiring a pod: a veth pair, and what both ends need to know |
//! | [`setup`] | links, addresses and routes made by hand, for laboratories and tests |
//! | [`socket`] | a blocking socket that sends hundreds of requests with one system call |

mod decode;
mod encode;
mod error;
mod frame;
pub mod netns;
pub mod pod;
pub mod setup;
pub mod socket;
mod sys;

pub use error::Error;
pub use socket::{Request, Socket};

/// The message values that requests are made of, in the one version that this workspace uses.
pub use netlink_packet_route as packet;
