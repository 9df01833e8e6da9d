//! Data centres in network namespaces, for the demo, the end-to-end tests and the benchmarks.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@enter`] | re-executes the program in private namespaces, so that the kernel tidies up whatever happens |
//! | [`netns`] | network namespaces with a name, and how to work inside them |
//! | [`net`] | links, segments, addresses and routes between them |
//! | [`process`] | programs in a namespace: logs, signals, restart |
//! | [`probe`] | ping, traceroute, path MTU, throughput, echo and capture over plain sockets |
//! | [`peer`] | single sessions with BIRD, FRR, GoBGP, OpenBGPD, ExaBGP, and what their own tools say of them |
//! | [`tor`] | top-of-rack and spine routers: BIRD, FRR, GoBGP, or Margay's own speaker |
//! | [`datacentre`] | racks, nodes with the real `margayd`, pods attached by the real `margay-cni` |
//! | [`kubernetes`] | a control plane: the real etcd and kube-apiserver |
//! | [`meter`] | CPU time and memory of a process, by the kernel's count |
//! | [`wait`] | conditions with deadlines |
//!
//! Nothing here starts `ip`, `ping` or the like: a lab needs the kernel, Margay, and the routers it was asked for.

pub mod datacentre;
pub mod enter;
pub mod kubernetes;
pub mod meter;
pub mod net;
pub mod netns;
pub mod peer;
pub mod probe;
pub mod process;
pub mod router;
pub mod speaker;
pub mod tor;
pub mod wait;

pub use enter::enter;
pub use netns::Namespace;
