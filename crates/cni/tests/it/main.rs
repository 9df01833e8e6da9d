//! The real `margay-cni`, started as a container runtime starts it, in network namespaces of its own. Needs root.
#![expect(
    clippy::unwrap_used,
    reason = "tests; the lint's own exception does not reach helpers"
)]
#![expect(unreachable_pub, reason = "helpers of tests")]

mod attach;
mod checklist;
mod crash;
mod forgiving;
mod install;
mod support;
