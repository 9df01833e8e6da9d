//! TCP throughput.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::{Namespace, wait};

/// Sends for `duration` from one namespace to an address of another; bits per second as received.
///
/// # Errors
/// When no connection comes about or it breaks.
pub fn throughput(
    from: &Namespace,
    to: &Namespace,
    address: Ipv4Addr,
    duration: Duration,
) -> Result<f64> {
    let listener = to.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let target = listener.local_addr()?;
    let receiver = std::thread::spawn(move || receive(&listener));
    from.run(|| send(target, duration))?;
    let (bytes, took) = receiver
        .join()
        .map_err(|_| anyhow!("the receiver panicked"))??;
    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    let bits = bytes as f64 * 8.0;
    Ok(bits / took.as_secs_f64())
}

fn send(target: SocketAddr, duration: Duration) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(3))
        .with_context(|| format!("connect to {target}"))?;
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    let block = vec![0; 1 << 18];
    let start = wait::now();
    while start.elapsed() < duration {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn receive(listener: &TcpListener) -> Result<(u64, Duration)> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut block = vec![0; 1 << 18];
    let start = wait::now();
    let mut bytes = 0;
    loop {
        let length = stream.read(&mut block)?;
        if length == 0 {
            return Ok((bytes, start.elapsed()));
        }
        bytes += u64::try_from(length)?;
    }
}
