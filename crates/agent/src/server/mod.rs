//! The local API: HTTP over a Unix socket, for `margayctl`. It answers whatever else is down.

mod bgp_routes;
pub mod convert;
mod tunnels;

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::path;
use axum::Json;
use axum::extract::{Path as Part, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use resources::IpipMode;
use tokio::net::UnixListener;
use tracing::{error, info};

use crate::control::Agent;

/// An answer, or what is wrong with the question.
type Answer<T> = Result<Json<T>, Refusal>;

/// A status other than 200, and why.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(api::Error { error: self.1 })).into_response()
    }
}

/// Listens at `socket`, which only root may use. The future serves for ever.
///
/// # Errors
/// The socket can't be made.
pub fn serve(
    socket: PathBuf,
    agent: Agent,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listener =
        listen(&socket).with_context(|| format!("can't listen at {}", socket.display()))?;
    let routes = axum::Router::new()
        .route(path::STATUS, get(status))
        .route(path::PEERS, get(peers))
        .route(
            &format!("{}/{{address}}", path::PEERS),
            get(peer).post(order),
        )
        .route(path::BGP_ROUTES, get(bgp_routes))
        .route(path::ROUTES, get(kernel_routes))
        .route(path::TUNNELS, get(all_tunnels))
        .route(path::ENDPOINTS, get(endpoints))
        .fallback(async || {
            Refusal(
                StatusCode::NOT_FOUND,
                "no such path in this version".to_owned(),
            )
        })
        .with_state(agent);
    info!(socket = %socket.display(), "local API");
    Ok(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            error!("the local API ended: {error}");
        }
    })
}

/// A socket that has its mode before it has its name; it takes the place of one that an earlier agent left.
fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    let new = socket.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    std::fs::rename(&new, socket)?;
    Ok(listener)
}

fn unavailable(what: &str) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
}

fn stopping() -> Refusal {
    unavailable("the agent is stopping")
}

/// There's no speaker before there's a plan, nor while its port is taken.
fn speaker(agent: &Agent) -> Result<bgp_net::Handle, Refusal> {
    let state = agent.state.borrow();
    let error = state.speaker_error.as_deref();
    state
        .bgp
        .clone()
        .ok_or_else(|| unavailable(&no_speaker(error)))
}

fn no_speaker(error: Option<&str>) -> String {
    let reason = error.unwrap_or("the configuration doesn't say enough yet");
    format!("there is no BGP speaker: {reason}; see `margayctl status`")
}

async fn status(State(agent): State<Agent>) -> Answer<api::Status> {
    let speaker = agent.state.borrow().bgp.clone();
    let speaker = match speaker {
        Some(speaker) => speaker.peers().await.ok().zip(speaker.memory().await.ok()),
        None => None,
    };
    let numbers = agent.fib.numbers().await.ok_or_else(stopping)?;
    Ok(Json(convert::status(&agent, speaker.as_ref(), &numbers)))
}

/// How the agent is, and its peers; `None` while it is stopping.
pub(crate) async fn snapshot(agent: &Agent) -> Option<(api::Status, Vec<api::Peer>)> {
    let Json(status) = status(State(agent.clone())).await.ok()?;
    // There may be no speaker yet.
    let peers = all_peers(agent).await.unwrap_or_default();
    Some((status, peers))
}

async fn peers(State(agent): State<Agent>) -> Answer<api::Peers> {
    let peers = all_peers(&agent).await?;
    Ok(Json(api::Peers {
        node: agent.node.clone(),
        peers,
    }))
}

async fn peer(State(agent): State<Agent>, Part(address): Part<IpAddr>) -> Answer<api::Peer> {
    let peers = all_peers(&agent).await?;
    let peer = peers.into_iter().find(|peer| peer.address == address);
    peer.map(Json).ok_or_else(|| no_peer(&agent, Some(address)))
}

/// An order of the operator's to one peer.
async fn order(
    State(agent): State<Agent>,
    Part(address): Part<IpAddr>,
    Json(order): Json<api::PeerOrder>,
) -> Answer<api::PeerOrderDone> {
    let speaker = speaker(&agent)?;
    let text = order.text.as_str();
    let peers = speaker.peers().await.map_err(|_| stopping())?;
    if !peers.iter().any(|peer| peer.address == address) {
        return Err(no_peer(&agent, Some(address)));
    }
    let done = |message: String| Ok(Json(api::PeerOrderDone { message }));
    match order.action {
        api::PeerAction::Reset => {
            speaker.reset(address, text).await.map_err(|_| stopping())?;
            done(format!("the session with {address} starts anew"))
        }
        api::PeerAction::Shutdown => {
            let stopped = speaker.shut_down_peer(address, text).await;
            stopped.map_err(|_| stopping())?;
            done(format!("{address} stays down until it is reset"))
        }
        api::PeerAction::SoftReset => {
            let asked = speaker.refresh(address).await.map_err(|_| stopping())?;
            match asked {
                Some(true) => done(format!(
                    "everything goes to {address} again, and comes from it"
                )),
                Some(false) => done(format!(
                    "everything goes to {address} again; it has no route refresh, so it can't be asked for its own routes"
                )),
                None => Err(Refusal(
                    StatusCode::CONFLICT,
                    format!("there is no session with {address} at the moment"),
                )),
            }
        }
    }
}

fn no_peer(agent: &Agent, asked: Option<IpAddr>) -> Refusal {
    let state = agent.state.borrow();
    let known = state.plan.iter().flat_map(|plan| plan.speaker.peers.keys());
    let known = known.map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none" } else { &known };
    let asked = asked.map_or_else(String::new, |address| address.to_string());
    Refusal(
        StatusCode::NOT_FOUND,
        format!("{asked} is not a configured peer; configured: {known}"),
    )
}

async fn all_peers(agent: &Agent) -> Result<Vec<api::Peer>, Refusal> {
    let statuses = speaker(agent)?.peers().await.map_err(|_| stopping())?;
    let plan = agent.state.borrow().plan.clone().ok_or_else(stopping)?;
    let drops = match statuses.iter().any(|status| status.password) {
        true => speaker(agent)?.md5_drops().await.map_err(|_| stopping())?,
        false => None,
    };
    Ok(statuses
        .iter()
        .map(|status| convert::peer(status, &plan, drops))
        .collect())
}

async fn bgp_routes(
    State(agent): State<Agent>,
    Query(query): Query<api::BgpRoutesQuery>,
) -> Answer<api::BgpRoutes> {
    let speaker = speaker(&agent)?;
    let selection = bgp_routes::selection(query.prefix.as_deref())
        .map_err(|message| Refusal(StatusCode::BAD_REQUEST, message))?;
    // Why a path can't be used is the dataplane's knowledge.
    let unreachable = agent.fib.unreachable().await.ok_or_else(stopping)?;
    let show = |views| bgp_routes::routes(views, &unreachable);
    let routes = match (query.from, query.to) {
        (None, None) => Some(speaker.routes(selection).await.map(show)),
        (Some(peer), None) => {
            let answer = speaker.routes_from(peer, selection).await;
            answer.map(|views| views.map(show)).transpose()
        }
        (None, Some(peer)) => {
            let answer = speaker.routes_to(peer, selection).await;
            answer
                .map(|views| views.map(bgp_routes::exports))
                .transpose()
        }
        (Some(_), Some(_)) => {
            let message = "ask either `from` a peer or `to` a peer, not both";
            return Err(Refusal(StatusCode::BAD_REQUEST, message.to_owned()));
        }
    };
    let routes = match routes {
        Some(routes) => routes.map_err(|_| stopping())?,
        None => return Err(no_peer(&agent, query.from.or(query.to))),
    };
    Ok(Json(api::BgpRoutes {
        node: agent.node.clone(),
        routes,
    }))
}

async fn kernel_routes(State(agent): State<Agent>) -> Answer<api::KernelRoutes> {
    let view = agent.fib.view().await.ok_or_else(stopping)?;
    Ok(Json(api::KernelRoutes {
        node: agent.node.clone(),
        routes: convert::kernel_routes(&view),
    }))
}

async fn all_tunnels(State(agent): State<Agent>) -> Answer<api::Tunnels> {
    let ways = agent.fib.ways().await.ok_or_else(stopping)?;
    Ok(Json(tunnels::tunnels(agent.node.clone(), ways)))
}

/// How packets travel to next hops to which an IPPool wants a tunnel; `None` while the agent is stopping.
pub(crate) async fn wanted_tunnels(agent: &Agent) -> Option<api::Tunnels> {
    let mut ways = agent.fib.ways().await?;
    ways.ways.retain(|way| way.mode != IpipMode::Never);
    Some(tunnels::tunnels(agent.node.clone(), ways))
}

async fn endpoints(State(agent): State<Agent>) -> Answer<api::Endpoints> {
    let endpoints = agent
        .pods
        .endpoints()
        .into_iter()
        .map(convert::endpoint)
        .collect();
    Ok(Json(api::Endpoints {
        node: agent.node.clone(),
        endpoints,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_speaker_is_said() {
        assert_eq!(
            no_speaker(Some("cannot listen on 0.0.0.0:179: Address already in use")),
            "there is no BGP speaker: cannot listen on 0.0.0.0:179: Address already in use; see `margayctl status`"
        );
        assert!(no_speaker(None).contains("doesn't say enough"));
    }
}
