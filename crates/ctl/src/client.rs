//! One HTTP/1.1 request over the agent's Unix socket, here or in its pod: blocking, one connection a request.

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::cluster::Pod;

/// How long the agent may take. It answers from memory: this is for one that hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than a full table of routes; less than what a broken agent could fill memory with.
const MAX_RESPONSE: u64 = 1 << 30;

/// Where an agent is asked.
#[derive(Debug, Clone)]
pub(crate) enum Agent {
    /// At its socket on this machine.
    Local(PathBuf),
    /// In its pod.
    Pod(Pod),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody answers.
    #[error("can't reach the agent at {}: {source}\n{}", socket.display(), hint(source))]
    Unreachable { socket: PathBuf, source: io::Error },
    /// There is no way to it on the cluster.
    #[error("{0}")]
    Cluster(String),
    /// The agent answers, but not with what was asked for.
    #[error("{0}")]
    Refused(String),
    /// What answers is no agent of ours, or another version of it.
    #[error("the agent's answer makes no sense: {0}; is margayctl as new as margayd?")]
    Garbled(String),
}

/// What to do about it.
fn hint(error: &io::Error) -> &'static str {
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::NotFound) {
        "no such socket: is margayd running on this node, and is --socket (or MARGAY_SOCKET) right?"
    } else if is(io::ErrorKind::ConnectionRefused) {
        "the socket is there but nobody listens: margayd is not running"
    } else if is(io::ErrorKind::PermissionDenied) {
        "only root may talk to it: try sudo"
    } else if is(io::ErrorKind::WouldBlock) || is(io::ErrorKind::TimedOut) {
        "it took too long to answer: its log may say why"
    } else {
        "is margayd running on this node?"
    }
}

/// Asks for `target` (path and query), and gives back the answer's text.
pub(crate) fn get(agent: &Agent, target: &str) -> Result<String, Failure> {
    ask(agent, "GET", target, "")
}

/// Sends `body` to `target`, and gives back the answer's text.
pub(crate) fn post(
    agent: &Agent,
    target: &str,
    body: &impl serde::Serialize,
) -> Result<String, Failure> {
    let body = serde_json::to_string(body).map_err(|error| Failure::Garbled(error.to_string()))?;
    ask(agent, "POST", target, &body)
}

fn request(method: &str, target: &str, body: &str) -> String {
    let kind = if body.is_empty() {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: margay\r\nAccept: application/json\r\n{kind}Connection: close\r\n\r\n{body}"
    )
}

/// The answer as it comes over the socket.
pub(crate) fn raw(
    socket: &Path,
    method: &str,
    target: &str,
    body: &str,
) -> Result<Vec<u8>, Failure> {
    let request = request(method, target, body);
    exchange(socket, &request).map_err(|source| Failure::Unreachable {
        socket: socket.to_owned(),
        source,
    })
}

fn ask(agent: &Agent, method: &str, target: &str, body: &str) -> Result<String, Failure> {
    let raw = match agent {
        Agent::Local(socket) => raw(socket, method, target, body)?,
        Agent::Pod(pod) => pod.raw(method, target, body)?,
    };
    let (status, body) = parse(&raw)?;
    let body =
        String::from_utf8(body).map_err(|_| Failure::Garbled("it is not text".to_owned()))?;
    if status == 200 {
        return Ok(body);
    }
    match serde_json::from_str::<api::Error>(&body) {
        Ok(api::Error { error }) => Err(Failure::Refused(error)),
        Err(_) => Err(Failure::Refused(format!(
            "the agent answered HTTP {status} {}",
            body.trim()
        ))),
    }
}

/// An answer as a value.
pub(crate) fn decode<T: DeserializeOwned>(body: &str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| Failure::Garbled(error.to_string()))
}

fn exchange(socket: &Path, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut raw)?;
    if raw.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(raw)
}

/// Status and body of a response that was read to its end.
fn parse(raw: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
    let garbled = |what: &str| Failure::Garbled(what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(raw) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Err(garbled("it breaks off")),
        Err(error) => return Err(Failure::Garbled(error.to_string())),
    };
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let rest = &raw[start..];
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok((
            status,
            dechunk(rest).ok_or_else(|| garbled("it breaks off"))?,
        ));
    }
    match header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => Ok((
            status,
            rest.get(..length)
                .ok_or_else(|| garbled("it breaks off"))?
                .to_vec(),
        )),
        Some(Err(_)) => Err(garbled("its length is no number")),
        None => Ok((status, rest.to_vec())),
    }
}

/// A chunked body (RFC 9112 §7.1) in one piece.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(rest) {
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
    None
}
