//! The kernel's network state over rtnetlink: dumped, changed in batches, and watched.
//!
//! | module | what |
//! | --- | --- |
//! | [`driver`] | a reconciler with its kernel: the turn of a dataplane thread |
//! | [`kernel`] | the kernel's state as `dataplane` values: dumps, and its operations applied |
//! | `nexthop` | nexthop objects as messages |
//! | [`monitor`] | the kernel's events |
//! | [`socket`] | a blocking socket that sends hundreds of requests with one system call |
//! | [`sysctl`] | kernel parameters |
//! | [`netns`] | network namespaces: made, entered by helper threads, kept by a file |
//! | [`nft`] | our nftables table |
//! | [`pod`] | wiring a pod: a veth pair, and what both ends need to know |
//! | [`tunnel`] | tunnel devices: made, changed, removed |
//! | [`setup`] | links, addresses and routes made by hand, for laboratories and tests |

mod decode;
pub mod driver;
mod encode;
mod error;
mod frame;
pub mod kernel;
pub mod monitor;
pub mod netns;
mod nexthop;
pub mod nft;
pub mod pod;
pub mod setup;
pub mod socket;
mod sys;
pub mod sysctl;
pub mod tunnel;

pub use driver::{Driver, Seen};
pub use error::Error;
pub use monitor::{Events, Monitor};
pub use nft::Nft;
pub use socket::{Message, Request, Socket};

/// The message values that requests are made of, in the one version that this workspace uses.
pub use netlink_packet_route as packet;
