//! Questions and orders from the rest of the program.

use std::net::IpAddr;

use bgp::rib::{ExportView, Memory, RouteView, Selection};
use bgp::view::PeerStatus;
use tokio::sync::oneshot;
use tracing::debug;

use crate::engine::{Engine, now};
use crate::md5::Md5Drops;

/// What the rest of the program asks of the speaker.
#[derive(Debug)]
pub(crate) enum Command {
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(Selection, oneshot::Sender<Vec<RouteView>>),
    RoutesFrom(IpAddr, Selection, oneshot::Sender<Option<Vec<RouteView>>>),
    RoutesTo(IpAddr, Selection, oneshot::Sender<Option<Vec<ExportView>>>),
    Memory(oneshot::Sender<Memory>),
    NextHops(Vec<(IpAddr, Option<u32>)>),
    Md5Drops(oneshot::Sender<Option<Md5Drops>>),
    Reset(IpAddr, String, oneshot::Sender<bool>),
    ShutDownPeer(IpAddr, String, oneshot::Sender<bool>),
    Refresh(IpAddr, oneshot::Sender<Option<bool>>),
    Shutdown(String, oneshot::Sender<()>),
    Abandon(oneshot::Sender<()>),
}

impl Engine {
    /// Serves a command; false: stop at once.
    pub(crate) fn command(&mut self, command: Command) -> bool {
        // A question that follows a new configuration is about that one.
        if self.config.has_changed().unwrap_or(false) {
            self.configure();
        }
        let speaker = &mut self.speaker;
        match command {
            Command::Peers(answer) => reply(answer, speaker.peers(now())),
            Command::Routes(selection, answer) => reply(answer, speaker.routes(&selection)),
            Command::RoutesFrom(peer, selection, answer) => {
                reply(answer, speaker.routes_from(peer, &selection))
            }
            Command::RoutesTo(peer, selection, answer) => {
                reply(answer, speaker.routes_to(peer, &selection))
            }
            Command::Memory(answer) => reply(answer, speaker.memory()),
            Command::NextHops(costs) => {
                speaker.set_next_hops(costs, now());
                self.next_hops_taken += 1;
            }
            Command::Md5Drops(answer) => reply(answer, self.md5_drops()),
            Command::Reset(peer, text, answer) => {
                reply(answer, speaker.reset_peer(peer, &text, now()))
            }
            Command::ShutDownPeer(peer, text, answer) => {
                reply(answer, speaker.shut_down_peer(peer, &text, now()));
            }
            Command::Refresh(peer, answer) => reply(answer, speaker.refresh_peer(peer)),
            Command::Shutdown(text, answer) => {
                self.listeners.clear();
                self.feed = None;
                speaker.shutdown(&text, now());
                self.shutdown = Some(answer);
            }
            Command::Abandon(answer) => {
                self.listeners.clear();
                self.connections.clear();
                reply(answer, ());
                return false;
            }
        }
        true
    }
}

pub(crate) fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    if answer.send(value).is_err() {
        debug!("who asked has gone");
    }
}
