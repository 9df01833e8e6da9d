//! Copies what each connection says to all others, and does nothing else: the floor under what a route reflector costs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Result, ensure};
use lab::speaker::PORT;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

const LISTENER: u64 = 0;

fn main() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let watch = |socket: &dyn std::os::fd::AsFd, token| {
        epoll::add(
            &epoll,
            socket.as_fd(),
            EventData::new_u64(token),
            EventFlags::IN,
        )
    };
    watch(&listener, LISTENER)?;
    let mut connections: BTreeMap<u64, TcpStream> = BTreeMap::new();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let from = event.data.u64();
            if from == LISTENER {
                let (connection, _) = listener.accept()?;
                connection.set_nodelay(true)?;
                let token = connections
                    .last_key_value()
                    .map_or(LISTENER, |(last, _)| *last)
                    + 1;
                watch(&connection, token)?;
                connections.insert(token, connection);
                continue;
            }
            let Some(mut connection) = connections.get(&from) else {
                continue;
            };
            let len = connection.read(&mut buffer)?;
            ensure!(len > 0, "a connection ended");
            for (to, mut connection) in &connections {
                // Waits where a socket is full: who is at the other end always reads.
                if *to != from {
                    connection.write_all(&buffer[..len])?;
                }
            }
        }
    }
}
