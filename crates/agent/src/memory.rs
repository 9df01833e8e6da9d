//! What the API server said last, in a file: for an agent that starts while nobody can be asked.
//!
//! It is a copy of what others own and never the truth: as soon as the API server has told all, that counts and nothing else.
//! The file holds passwords of peers, so it is root's alone and lies where the sockets do, in memory: `/run` is gone after a
//! reboot, and without an API server a kubelet starts no pod then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use resources::{Index, Kind, Object};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cli::Cli;

/// What the file looks like. One of another number is somebody else's.
const FORMAT: u32 = 1;
/// No more is written, and no more read: a hundred times what a large cluster has.
const MAX_LEN: u64 = 256 << 20;
/// How long between two writes, unless something must not stay in the file.
const PACE: Duration = Duration::from_secs(5);

/// What the API server said last.
#[derive(Debug, Clone)]
pub struct Memory {
    /// When that was, RFC 3339.
    pub written: Timestamp,
    /// Where it was read.
    pub path: PathBuf,
    /// The blocks of pools that the node announced.
    pub blocks: Vec<IpNet>,
    /// The objects.
    pub index: Index,
}

/// The file, as far as it says what it is.
#[derive(Deserialize)]
struct Head {
    format: u32,
    node: String,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Document<O> {
    format: u32,
    node: String,
    written: String,
    blocks: Vec<IpNet>,
    objects: O,
}

/// Objects one after the other, without all of their documents at once.
struct Objects<'a>(&'a Index);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.received().map(Object::document))
    }
}

/// What an earlier agent has kept, and who keeps it from now on.
#[must_use]
pub fn open(cli: &Cli) -> (Option<Memory>, Option<Keeper>) {
    let Some(path) = cli.cache_file() else {
        return (None, None);
    };
    let memory = Memory::read(&path, &cli.node_name).unwrap_or_else(|reason| {
        warn!(path = %path.display(), "the copy of the cluster's objects is of no use: {reason}");
        None
    });
    (memory, Some(Keeper::new(path, cli.node_name.clone())))
}

impl Memory {
    /// Reads the file of this node. `None`: there is none.
    ///
    /// # Errors
    /// It can't be read, is broken, or is not this node's: in words.
    pub fn read(path: &Path, node: &str) -> Result<Option<Self>, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_LEN + 1).read_to_end(&mut text);
        read.map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_LEN {
            return Err(format!("it has more than {MAX_LEN} octets"));
        }
        Self::parse(&text, path, node).map(Some)
    }

    fn parse(text: &[u8], path: &Path, node: &str) -> Result<Self, String> {
        let broken = |error: serde_json::Error| match error.is_data() {
            true => format!(
                "it is no copy of the cluster's objects: line {}",
                error.line()
            ),
            // Without what stands there: it may be a password.
            false => format!("it is broken at octet {} of {}", error.column(), text.len()),
        };
        let head: Head = serde_json::from_slice(text).map_err(broken)?;
        if head.format != FORMAT {
            let format = head.format;
            return Err(format!(
                "its format is {format}, and only {FORMAT} is known"
            ));
        }
        if head.node != node {
            return Err(format!("it is of Node {}, and this is {node}", head.node));
        }
        let document: Document<Vec<Value>> = serde_json::from_slice(text).map_err(broken)?;
        let written = document.written.parse();
        let written = written.map_err(|_| format!("`{}` is no time", document.written))?;
        let mut index = Index::for_node(node);
        for object in &document.objects {
            let name = object["kind"].as_str().unwrap_or_default();
            let mut kinds = Kind::ALL.into_iter();
            let kind = kinds.find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| format!("it has an object of kind `{name}`"))?;
            index.receive(kind, object);
        }
        if let Some(problem) = index.problems().first() {
            return Err(format!("an object in it is wrong: {problem}"));
        }
        Ok(Self {
            written,
            path: path.to_owned(),
            blocks: document.blocks,
            index,
        })
    }
}

/// Keeps the file.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    node: String,
    /// What has changed since it was written.
    changed: bool,
    /// The blocks in it, once this agent has written it.
    blocks: Option<Vec<IpNet>>,
    /// When it was written, or was to be.
    at: Option<Instant>,
    /// Why it could not be written: said once.
    error: Option<String>,
}

impl Keeper {
    /// For this node, at this path.
    #[must_use]
    pub fn new(path: PathBuf, node: String) -> Self {
        Self {
            path,
            node,
            changed: true,
            blocks: None,
            at: None,
            error: None,
        }
    }

    /// The objects have changed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// How long until [`keep`](Self::keep) is to be called, unless something happens before.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self.at.filter(|_| self.changed) {
            Some(at) => PACE.saturating_sub(at.elapsed()),
            None => Duration::MAX,
        }
    }

    /// Writes what is in force, if that is another and the last write is not of a moment ago. A block that is about to go
    /// back leaves the file at once, for whoever read it later would announce what may be another node's.
    pub async fn keep(&mut self, index: &Index, blocks: &[IpNet]) {
        let last = self.blocks.as_deref();
        self.changed |= last != Some(blocks);
        let gone = last.is_some_and(|last| last.iter().any(|block| !blocks.contains(block)));
        // What an earlier agent wrote may have more blocks than there are.
        let urgent = gone || last.is_none();
        if !self.changed || !urgent && self.at.is_some_and(|at| at.elapsed() < PACE) {
            return;
        }
        let text = document(&self.node, index, blocks, Timestamp::now());
        let path = self.path.clone();
        let written = match text {
            Ok(text) => tokio::task::spawn_blocking(move || write(&path, &text))
                .await
                .map_err(io::Error::other)
                .flatten(),
            Err(error) => Err(error),
        };
        self.at = Some(Instant::now());
        match written {
            Ok(()) => {
                (self.changed, self.blocks) = (false, Some(blocks.to_vec()));
                if self.error.take().is_some() {
                    info!(path = %self.path.display(), "the copy of the cluster's objects is written again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// A file that can't be made new is better gone than old.
    fn failed(&mut self, error: &io::Error) {
        fs::remove_file(&self.path).ok();
        let error = Some(error.to_string());
        if self.error != error {
            warn!(
                path = %self.path.display(), error,
                "can't keep a copy of the cluster's objects: an agent that starts while the API server is away will know of none"
            );
            self.error = error;
        }
    }
}

fn document(node: &str, index: &Index, blocks: &[IpNet], now: Timestamp) -> io::Result<Vec<u8>> {
    let document = Document {
        format: FORMAT,
        node: node.to_owned(),
        written: now.to_string(),
        blocks: blocks.to_vec(),
        objects: Objects(index),
    };
    let text = serde_json::to_vec(&document)?;
    match text.len() as u64 <= MAX_LEN {
        true => Ok(text),
        false => Err(io::Error::other(format!("more than {MAX_LEN} octets"))),
    }
}

/// All of it or nothing, whenever the machine stops.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One that died on the way may have left its own, with rights that are not ours.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        fs::remove_file(&beside).ok();
        return Err(error);
    }
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests;
