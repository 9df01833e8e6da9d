//! Whether the agent lives, and whether it serves: for the kubelet's probes.
//!
//! It lives while its threads answer, whatever peers, configuration and API server do: a restart would mend none of them.
//! It serves once pods can be attached, the speaker runs, and the routes of all peers are in the kernel; after a while one
//! session is enough. That counts once: an update of all nodes goes no faster than their routes come back, and stops where
//! agents get no session at all; a ToR that fails later makes no node unready.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::control::{self, Agent};
use crate::readiness::Readiness;
use crate::server;

/// How long a thread may take to answer. Each bounds its turns to far less.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens at `address`. The future serves `/livez` and `/readyz` for ever.
///
/// # Errors
/// The address can't be listened at.
pub async fn serve(
    address: SocketAddr,
    agent: Agent,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--health: can't listen at {address}"))?;
    let routes = axum::Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(agent);
    info!(%address, "health");
    Ok(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            error!("health ended: {error}");
        }
    })
}

async fn live(State(agent): State<Agent>) -> (StatusCode, String) {
    let mut silent = Vec::new();
    if !matches!(
        tokio::time::timeout(PATIENCE, agent.fib.numbers()).await,
        Ok(Some(_))
    ) {
        silent.push("the dataplane thread does not answer".to_owned());
    }
    let speaker = agent.state.borrow().bgp.clone();
    if let Some(speaker) = speaker {
        // One that has ended is started anew by the main loop.
        let answer = tokio::time::timeout(PATIENCE, speaker.memory()).await;
        if answer.is_err() {
            silent.push("the BGP speaker's thread does not answer".to_owned());
        }
    }
    answer(&silent)
}

async fn ready(State(agent): State<Agent>) -> (StatusCode, String) {
    let snapshot = tokio::time::timeout(PATIENCE, server::snapshot(&agent)).await;
    let readiness = match snapshot {
        Ok(Some((status, peers))) => agent.readiness(&status, &peers),
        Ok(None) | Err(_) => Readiness::Unknown,
    };
    answer(&missing(&agent.state.borrow(), readiness))
}

/// Why the agent does not serve yet.
fn missing(state: &control::State, readiness: Readiness) -> Vec<String> {
    let mut missing = Vec::new();
    match &state.plan {
        None => missing.push("the configuration does not say enough of this node yet".to_owned()),
        Some(plan) if plan.pod_cidrs.is_empty() && !plan.addressing.gives() => {
            missing.push(
                "this node has no pod CIDR yet, and no IPPool gives addresses on it".to_owned(),
            );
        }
        Some(_) => {}
    }
    if state.plan.is_some() && state.bgp.is_none() {
        let reason = state.speaker_error.as_deref();
        missing.push(format!(
            "there is no BGP speaker: {}",
            reason.unwrap_or("it is starting")
        ));
    }
    match readiness {
        Readiness::Served | Readiness::TimedOut { alone: false, .. } => {}
        // What the others wait for is said above already.
        Readiness::Waiting(_) if !missing.is_empty() => {}
        Readiness::Waiting(reason) | Readiness::TimedOut { reason, .. } => missing.push(reason),
        Readiness::Unknown => missing.push("the agent's threads do not answer yet".to_owned()),
    }
    missing
}

/// In words for whoever reads the pod's events.
fn answer(faults: &[String]) -> (StatusCode, String) {
    if faults.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut text = String::new();
    for fault in faults
        .iter()
        .map(String::as_str)
        .chain(["see `margayctl status`"])
    {
        text.push_str(fault);
        text.push('\n');
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(state: &control::State, readiness: Readiness) -> (StatusCode, String) {
        answer(&missing(state, readiness))
    }

    #[test]
    fn what_is_missing_is_named() {
        let state = control::State::default();
        let (status, text) = asked(&state, Readiness::Unknown);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        for word in ["of this node", "threads", "margayctl status"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!text.contains("speaker"), "{text}");
        assert_eq!(answer(&[]), (StatusCode::OK, "ok\n".to_owned()));
    }

    /// Nothing else is missing: it is the peers that decide.
    #[test]
    fn a_session_is_enough_in_the_end_and_none_is_not() {
        let said = |readiness| {
            let mut missing = missing(&control::State::default(), readiness);
            missing.remove(0);
            missing
        };
        let over = |alone| Readiness::TimedOut {
            reason: "192.0.2.1".to_owned(),
            alone,
        };
        assert_eq!(said(Readiness::Served), [""; 0]);
        assert_eq!(said(over(false)), [""; 0]);
        assert_eq!(said(over(true)), ["192.0.2.1"]);
    }
}
