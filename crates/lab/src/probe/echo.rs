//! A server that tells each client which source address it saw: the proof that nobody on the way translated it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Namespace, wait};

const PATIENCE: Duration = Duration::from_secs(1);

/// Over UDP and TCP, on one port number. It lives as long as the lab.
#[derive(Debug, Clone, Copy)]
pub struct EchoServer {
    address: SocketAddr,
}

impl EchoServer {
    /// Starts one on `address` in `namespace`.
    ///
    /// # Errors
    /// When the address isn't there.
    pub fn start(namespace: &Namespace, address: Ipv4Addr) -> Result<Self> {
        let (udp, tcp) = namespace.run(|| {
            let udp = UdpSocket::bind((address, 0)).with_context(|| format!("bind {address}"))?;
            let tcp = TcpListener::bind(udp.local_addr()?)?;
            Ok((udp, tcp))
        })?;
        let address = udp.local_addr()?;
        std::thread::spawn(move || answer_udp(&udp));
        std::thread::spawn(move || answer_tcp(&tcp));
        Ok(Self { address })
    }

    /// Asks over UDP, from `namespace`: the source address that the server saw.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn ask_udp(&self, namespace: &Namespace) -> Result<IpAddr> {
        let socket = namespace.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 64];
        wait::until("an answer over UDP", 5 * PATIENCE, || {
            socket.send_to(b"who am I?", self.address)?;
            let length = socket.recv(&mut buffer)?;
            Ok(std::str::from_utf8(&buffer[..length])?.parse()?)
        })
    }

    /// Asks over TCP, from `namespace`: the source address that the server saw.
    ///
    /// # Errors
    /// When no connection comes about.
    pub fn ask_tcp(&self, namespace: &Namespace) -> Result<IpAddr> {
        namespace.run(|| {
            let mut stream = TcpStream::connect_timeout(&self.address, 5 * PATIENCE)?;
            stream.set_read_timeout(Some(5 * PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.parse()?)
        })
    }
}

fn answer_udp(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        // A client that is gone is no reason to stop.
        drop(socket.send_to(from.ip().to_string().as_bytes(), from));
    }
}

fn answer_tcp(listener: &TcpListener) {
    while let Ok((mut stream, from)) = listener.accept() {
        drop(stream.write_all(from.ip().to_string().as_bytes()));
    }
}
