//! Attachments whose container is gone without a DEL: which they are.
//!
//! When a namespace dies the kernel takes its attachment away, and nobody need look for it. What is left is a namespace
//! that the runtime has given up while something still holds it: a stray process, a mount in another container. The
//! runtime then has removed the file that stood for it, without a DEL that came through; containerd never asks for GC.
//!
//! Only what this agent can see counts. It may have a file system of its own, in which no namespace has ever had a file:
//! so a file is missed only in a folder where it saw one, and only while that is the same folder. A namespace under
//! `/proc` belongs to a process and is the kernel's to end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::cni::AttachmentId;

use super::Endpoint;

/// What the file system says.
pub(crate) trait Files {
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;
    /// What tells the folder from another one that is mounted in its place.
    fn folder(&self, path: &Path) -> Option<(u64, u64)>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct Real;

impl Files for Real {
    fn exists(&self, path: &Path) -> bool {
        // What can't be looked at may be there.
        !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    fn folder(&self, path: &Path) -> Option<(u64, u64)> {
        let folder = fs::metadata(path).ok()?;
        Some((folder.dev(), folder.ino()))
    }
}

/// Remembers what it saw. Plain state; time and files come from outside.
#[derive(Debug)]
pub(crate) struct Collector {
    grace: Duration,
    /// Folders in which a namespace's file was seen.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// Attachments whose file is missed, and since when.
    missed: BTreeMap<AttachmentId, (u32, Instant)>,
}

impl Collector {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            folders: BTreeMap::new(),
            missed: BTreeMap::new(),
        }
    }

    /// Looks at all endpoints. Returns those whose file has been missed for the grace time.
    pub(crate) fn look(
        &mut self,
        endpoints: Vec<Endpoint>,
        files: &impl Files,
        now: Instant,
    ) -> Vec<Endpoint> {
        let (present, absent): (Vec<Endpoint>, Vec<Endpoint>) = endpoints
            .into_iter()
            .filter(|endpoint| folder(endpoint).is_some())
            .partition(|endpoint| files.exists(Path::new(&endpoint.netns)));
        for path in present.iter().filter_map(folder) {
            if let Some(identity) = files.folder(path) {
                self.folders.insert(path.to_owned(), identity);
            }
        }
        let missed = std::mem::take(&mut self.missed);
        let mut gone = Vec::new();
        for endpoint in absent {
            let known = folder(&endpoint)
                .and_then(|path| Some((self.folders.get(path)?, files.folder(path)?)));
            if known.is_none_or(|(known, found)| *known != found) {
                continue;
            }
            // The same attachment on another link is another one.
            let id = endpoint.id();
            let before = missed.get(&id).filter(|(link, _)| *link == endpoint.link);
            let since = before.map_or(now, |(_, since)| *since);
            self.missed.insert(id, (endpoint.link, since));
            if now.saturating_duration_since(since) >= self.grace {
                gone.push(endpoint);
            }
        }
        gone
    }
}

/// The folder of an endpoint's namespace, where that has a file that a runtime made.
fn folder(endpoint: &Endpoint) -> Option<&Path> {
    let path = Path::new(&endpoint.netns);
    let made = path.is_absolute() && !path.starts_with("/proc");
    path.parent().filter(|_| made)
}
