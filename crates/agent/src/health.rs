//! Whether the agent lives, and whether it serves: for the kubelet's probes.
//!
//! It lives while its threads answer, whatever peers, configuration and API server do: a restart would mend none of them.
//! It serves once pods can be attached, the speaker runs, and the routes of all peers that can be had are in the kernel. The last
//! of these counts once: an update of all nodes goes no faster than their routes come back, and a ToR that fails later makes no
//! node unready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::control::{self, Agent};

/// How long a thread may take to answer. Each bounds its turns to far less.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the probes look at.
#[derive(Debug, Clone)]
struct Health {
    agent: Agent,
    /// The routes were in place once.
    arrived: Arc<AtomicBool>,
}

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
    let health = Health {
        agent,
        arrived: Arc::default(),
    };
    let routes = axum::Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(health);
    info!(%address, "health");
    Ok(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            error!("health ended: {error}");
        }
    })
}

async fn live(State(health): State<Health>) -> (StatusCode, String) {
    let agent = &health.agent;
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

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let numbers = tokio::time::timeout(PATIENCE, health.agent.fib.numbers()).await;
    let numbers = numbers.ok().flatten();
    let in_place = numbers.is_some_and(|numbers| numbers.paths_synced && numbers.idle);
    if in_place {
        health.arrived.store(true, Ordering::Relaxed);
    }
    let arrived = health.arrived.load(Ordering::Relaxed);
    answer(&missing(&health.agent.state.borrow(), arrived))
}

/// Why the agent does not serve yet.
fn missing(state: &control::State, arrived: bool) -> Vec<String> {
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
    if !arrived {
        missing.push("the routes of all peers are not in the kernel yet".to_owned());
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

    #[test]
    fn what_is_missing_is_named() {
        let state = control::State::default();
        let (status, text) = answer(&missing(&state, false));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        for word in ["of this node", "routes of all peers", "margayctl status"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!text.contains("speaker"), "{text}");
        assert_eq!(answer(&[]), (StatusCode::OK, "ok\n".to_owned()));
    }
}
