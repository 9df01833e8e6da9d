//! How connections come to be: accepted ones, dialled ones, and their keys.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp::config::Password;
use bgp::session::ConnId;
use bgp::speaker::Transport;
use ipnet::IpNet;
use socket2::Socket;
use tracing::{debug, warn};

use crate::connection::{Connection, Phase, Written};
use crate::engine::{Engine, LISTENERS, now};
use crate::md5::Md5Drops;
use crate::poller::Wait;
use crate::{md5, socket};

/// How many connections are accepted in one turn.
const ACCEPTS: usize = 64;
/// How long nothing is accepted after the kernel had no descriptor or memory for it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    pub(crate) fn accept(&mut self, listener: u64) {
        for _ in 0..ACCEPTS {
            let Some(socket) = usize::try_from(listener)
                .ok()
                .and_then(|index| self.listeners.get(index))
            else {
                return;
            };
            let (socket, remote) = match socket.accept() {
                Ok((socket, remote)) => (socket, remote),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It was there, and is gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    self.accept_pause = Some(now() + ACCEPT_PAUSE);
                    return self.watch_listeners(Wait::Nothing);
                }
            };
            if let Err(error) = self.accepted(socket, remote.as_socket()) {
                debug!(%error, "incoming connection dropped");
            }
        }
    }

    fn watch_listeners(&mut self, wait: Wait) {
        for (token, listener) in (LISTENERS..).zip(&self.listeners) {
            if let Err(error) = self.poller.modify(listener, token, wait) {
                warn!(%error, "cannot watch a listening socket");
            }
        }
    }

    fn accepted(&mut self, socket: Socket, remote: Option<SocketAddr>) -> io::Result<()> {
        let local = socket.local_addr()?.as_socket();
        let (Some(local), Some(remote)) = (local, remote) else {
            return Ok(());
        };
        let Some(transport) = self.speaker.transport(remote.ip()) else {
            debug!(%remote, "incoming connection refused: no such peer");
            return Ok(());
        };
        let missing = |peers: &IpNet| peers.contains(&remote.ip());
        if transport.password.is_some() && self.unkeyed.iter().any(missing) {
            debug!(%remote, "incoming connection refused: the kernel did not take its password");
            return Ok(());
        }
        socket.set_nonblocking(true)?;
        socket::set_up(&socket, remote.ip(), &transport)?;
        self.look_at_interfaces();
        let Some(conn) = self.speaker.handle_incoming(local, remote, now()) else {
            debug!(%remote, "incoming connection refused: the session is held off, or there are enough");
            return Ok(());
        };
        if let Err(error) = self.poller.add(&socket, conn.as_u64(), Wait::Read) {
            // The speaker has taken it for one of its own by now.
            self.speaker.handle_closed(conn, error.to_string(), now());
            return Err(error);
        }
        self.connections
            .insert(conn, Connection::new(socket, remote.ip(), Phase::Open));
        Ok(())
    }

    /// A session is about to come up, and its next hops may be other addresses than the connection's.
    fn look_at_interfaces(&mut self) {
        if let Some(interfaces) = self.interfaces.refresh(now()) {
            self.speaker.set_interfaces(interfaces);
        }
    }

    pub(crate) fn connect(&mut self, conn: ConnId, remote: SocketAddr, transport: &Transport) {
        let connected = socket::connect(remote, transport).and_then(|socket| {
            self.poller.add(&socket, conn.as_u64(), Wait::Write)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => {
                self.connections.insert(
                    conn,
                    Connection::new(socket, remote.ip(), Phase::Connecting),
                );
            }
            Err(error) => self
                .speaker
                .handle_closed(conn, format!("connect: {error}"), now()),
        }
    }

    pub(crate) fn connect_ended(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let addresses = match connection.socket.take_error() {
            Ok(None) => connection
                .socket
                .local_addr()
                .and_then(|local| Ok((local, connection.socket.peer_addr()?))),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match addresses.map(|(local, remote)| (local.as_socket(), remote.as_socket())) {
            Ok((Some(local), Some(remote))) => {
                connection.phase = Phase::Open;
                self.update_wait(conn, Written::All);
                self.look_at_interfaces();
                self.speaker.handle_connected(conn, local, remote, now());
            }
            Ok(_) => self.lost(conn, "no internet address".into()),
            Err(error) => self.lost(conn, format!("connect: {error}")),
        }
    }

    /// Signs segments from and to peers with another password, or with none.
    pub(crate) fn set_key(
        &mut self,
        peers: IpNet,
        password: Option<&Password>,
        connections: &[ConnId],
    ) {
        self.unkeyed.remove(&peers);
        for listener in &self.listeners {
            if let Err(error) = md5::set_listener_key(listener, peers, password) {
                warn!(%peers, %error, "the kernel does not take the password; connections from there are refused");
                if password.is_some() {
                    self.unkeyed.insert(peers);
                }
            }
        }
        for conn in connections {
            let Some(connection) = self.connections.get(conn) else {
                continue;
            };
            let remote = connection.remote;
            if let Err(error) = md5::set_key(&connection.socket, remote, password) {
                self.lost(*conn, format!("password: {error}"));
            }
        }
    }

    /// What the kernel has dropped for passwords' sake since the start.
    pub(crate) fn md5_drops(&self) -> Option<Md5Drops> {
        let (start, _) = self.drops?;
        Some(Md5Drops::read().ok()?.since(start))
    }

    /// A session did not come up: where it has a password and the kernel has dropped segments meanwhile, these two may
    /// belong together.
    pub(crate) fn look_at_drops(&mut self, peer: IpAddr) {
        let signed = self
            .speaker
            .transport(peer)
            .is_some_and(|transport| transport.password.is_some());
        if !signed {
            return;
        }
        if let (Some((_, before)), Ok(drops)) = (&mut self.drops, Md5Drops::read()) {
            let news = drops.since(std::mem::replace(before, drops));
            if !news.is_empty() {
                warn!(%peer, dropped = %news, "the kernel drops segments: do both ends have the same password?");
            }
        }
    }
}
