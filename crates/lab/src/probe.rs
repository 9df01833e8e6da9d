//! What a network does to packets, seen through plain sockets: no `ping`, no `traceroute`, no capture library.

pub mod advertise;
pub mod capture;
pub mod echo;
pub mod icmp;
mod packet;
pub mod stream;
pub mod tcp;
pub mod trace;

pub use advertise::advertise;
pub use capture::Capture;
pub use echo::EchoServer;
pub use icmp::{Echo, Pinger, Reply};
pub use stream::{Loss, Stream};
