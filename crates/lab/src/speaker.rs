//! A BGP speaker that says exactly what it is told to, right or wrong.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bgp_wire::{Capability, Context, Family, Message, Notification, Open, header};

use crate::{Namespace, wait};

/// BGP's port.
pub const PORT: u16 = 179;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An OPEN.
    Open(Open),
    /// An UPDATE, whole, with its header.
    Update(Vec<u8>),
    /// A NOTIFICATION.
    Notification(Notification),
    /// A KEEPALIVE.
    Keepalive,
    /// A ROUTE-REFRESH.
    RouteRefresh,
    /// The other side closed the connection.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct RawSpeaker {
    stream: TcpStream,
    context: Context,
    received: Vec<u8>,
}

/// Listens where a router would.
///
/// # Errors
/// When the address isn't there, or taken.
pub fn listen(namespace: &Namespace, address: Ipv4Addr) -> Result<TcpListener> {
    namespace.run(|| TcpListener::bind((address, PORT)).context("listen for BGP"))
}

/// An OPEN as a decent router sends it.
#[must_use]
pub fn open(asn: u32, router_id: Ipv4Addr, hold_time: u16) -> Open {
    Open {
        asn,
        hold_time,
        router_id,
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn),
        ],
    }
}

impl RawSpeaker {
    /// Takes the next connection.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn accept(listener: &TcpListener, limit: Duration) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let (stream, _) = wait::until("a connection", limit, || Ok(listener.accept()?))?;
        stream.set_nonblocking(false)?;
        Ok(Self::new(stream))
    }

    /// Connects from `namespace`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(namespace: &Namespace, to: Ipv4Addr) -> Result<Self> {
        let target = SocketAddrV4::new(to, PORT).into();
        let stream =
            namespace.run(|| Ok(TcpStream::connect_timeout(&target, Duration::from_secs(3))?))?;
        Ok(Self::new(stream))
    }

    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            context: Context {
                four_octet_as: true,
                ..Context::default()
            },
            received: Vec::new(),
        }
    }

    /// Says these octets.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn say(&mut self, octets: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(octets)?)
    }

    /// Says an OPEN.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn say_open(&mut self, open: &Open) -> Result<()> {
        let mut octets = Vec::new();
        open.encode(&mut octets);
        self.say(&octets)
    }

    /// Says a KEEPALIVE.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn say_keepalive(&mut self) -> Result<()> {
        let mut octets = Vec::new();
        header::encode_keepalive(&mut octets);
        self.say(&octets)
    }

    /// Exchanges OPENs and KEEPALIVEs: the session is up then. Gives what the other side's OPEN said.
    ///
    /// # Errors
    /// When anything else is heard.
    pub fn establish(&mut self, ours: &Open, limit: Duration) -> Result<Open> {
        self.say_open(ours)?;
        let heard = self.hear(limit)?;
        let Heard::Open(theirs) = heard else {
            bail!("heard {heard:?} instead of an OPEN");
        };
        self.say_keepalive()?;
        let heard = self.hear(limit)?;
        if heard != Heard::Keepalive {
            bail!("heard {heard:?} instead of a KEEPALIVE");
        }
        Ok(theirs)
    }

    /// The next message.
    ///
    /// # Errors
    /// When none comes within `limit`, or it is malformed.
    pub fn hear(&mut self, limit: Duration) -> Result<Heard> {
        let deadline = wait::now() + limit;
        loop {
            if let Some(heard) = self.take()? {
                return Ok(heard);
            }
            let left = deadline.saturating_duration_since(wait::now());
            if left.is_zero() {
                bail!("heard nothing for {limit:?}");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut block = [0; 4096];
            match self.stream.read(&mut block) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(length) => self.received.extend(&block[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Ok(Heard::Closed);
                }
                Err(error) => return Err(error).context("waiting for a message"),
            }
        }
    }

    /// The next message that is a NOTIFICATION; others before it are passed over.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn hear_notification(&mut self, limit: Duration) -> Result<Notification> {
        let deadline = wait::now() + limit;
        loop {
            match self.hear(deadline.saturating_duration_since(wait::now()))? {
                Heard::Notification(notification) => return Ok(notification),
                Heard::Closed => bail!("closed without a NOTIFICATION"),
                Heard::Open(_) | Heard::Update(_) | Heard::Keepalive | Heard::RouteRefresh => {}
            }
        }
    }

    fn take(&mut self) -> Result<Option<Heard>> {
        let Some(length) = header::frame_len(&self.received, &self.context)? else {
            return Ok(None);
        };
        if self.received.len() < length {
            return Ok(None);
        }
        let frame: Vec<u8> = self.received.drain(..length).collect();
        Ok(Some(match header::decode(&frame, &self.context)? {
            Message::Open(open) => Heard::Open(open),
            Message::Update(_) => Heard::Update(frame.clone()),
            Message::Notification(notification) => Heard::Notification(notification),
            Message::Keepalive => Heard::Keepalive,
            Message::RouteRefresh(_) => Heard::RouteRefresh,
        }))
    }
}
