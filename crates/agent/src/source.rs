//! The directory source: a directory of YAML files, read whole whenever anything in it changes.
//!
//! Events only wake it. A directory that Kubernetes mounts from a ConfigMap changes by a symbolic link's swap, an editor
//! writes a file by renaming another over it, and an event can get lost: reading everything again is right in every
//! case, and a slow poll covers the last.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::Watcher as _;
use tokio::sync::Notify;
use tracing::warn;

/// Changes come in bursts (an editor's temporary file, several files copied): wait until they are over.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a lost event can go unnoticed.
const POLL: Duration = Duration::from_secs(10);
/// A file larger than this is refused: nothing that a person means to be configuration.
const MAX_FILE_LEN: u64 = 16 << 20;

/// What one file holds, or why it can't be read.
pub type FileText = Result<String, String>;

/// Every YAML file of the directory, by name.
pub type Snapshot = BTreeMap<String, FileText>;

/// Watches a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    changed: Arc<Notify>,
    // Dropping it ends the watch. `None` while the directory can't be watched: polling alone then.
    watcher: Option<notify::RecommendedWatcher>,
    last: Option<Snapshot>,
}

impl Directory {
    /// Watches `path`, which may come into being later.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let mut directory = Self {
            path,
            changed: Arc::new(Notify::new()),
            watcher: None,
            last: None,
        };
        directory.watch();
        directory
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the directory holds something else than when this was last called, and gives all of it. The first
    /// call returns at once. Cancel safe.
    ///
    /// # Errors
    /// The directory can't be listed; said once, then again only after it could be.
    pub async fn changed(&mut self) -> io::Result<Snapshot> {
        loop {
            if self.last.is_none() {
                match read(&self.path) {
                    Ok(snapshot) => {
                        self.last = Some(snapshot.clone());
                        return Ok(snapshot);
                    }
                    Err(error) => {
                        self.last = Some(Snapshot::new());
                        return Err(error);
                    }
                }
            }
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(POLL) => {}
            }
            if self.watcher.is_none() {
                self.watch();
            }
            if let Ok(snapshot) = read(&self.path)
                && self.last.as_ref() != Some(&snapshot)
            {
                self.last = Some(snapshot.clone());
                return Ok(snapshot);
            }
        }
    }

    fn watch(&mut self) {
        let changed = Arc::clone(&self.changed);
        let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files raises access events; answering those would never end.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                changed.notify_one();
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&self.path, notify::RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => warn!(
                directory = %self.path.display(), %error,
                "can't watch the configuration directory; looking at it every {} s instead", POLL.as_secs()
            ),
        }
    }
}

fn read(path: &Path) -> io::Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let yaml = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e));
        // Editors' and ConfigMaps' own files begin with a dot.
        if yaml && !name.starts_with('.') {
            snapshot.insert(name.to_owned(), read_file(&path));
        }
    }
    Ok(snapshot)
}

fn read_file(path: &Path) -> FileText {
    let len = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if len > MAX_FILE_LEN {
        return Err(format!(
            "the file has {len} octets; at most {MAX_FILE_LEN} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) {
        let hidden = directory.join(format!(".{name}.tmp"));
        std::fs::write(&hidden, text).unwrap();
        std::fs::rename(hidden, directory.join(name)).unwrap();
    }

    async fn next(directory: &mut Directory) -> Snapshot {
        tokio::time::timeout(Duration::from_secs(5), directory.changed())
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn gives_what_is_there_then_each_change() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), "a.yaml", "one");
        write(temp.path(), "notes.txt", "not configuration");
        let mut directory = Directory::new(temp.path().to_owned());
        assert_eq!(
            next(&mut directory).await,
            Snapshot::from([("a.yaml".into(), Ok("one".into()))])
        );

        write(temp.path(), "a.yaml", "two");
        assert_eq!(next(&mut directory).await["a.yaml"], Ok("two".into()));

        std::fs::remove_file(temp.path().join("a.yaml")).unwrap();
        assert_eq!(next(&mut directory).await, Snapshot::new());
    }

    #[tokio::test]
    async fn a_missing_directory_is_said_once() {
        let temp = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(temp.path().join("absent"));
        assert!(directory.changed().await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_not_text_does_not_hide_the_others() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), "good.yaml", "fine");
        std::fs::write(temp.path().join("bad.yaml"), [0xff, 0xfe, 0x00]).unwrap();
        let snapshot = next(&mut Directory::new(temp.path().to_owned())).await;
        assert_eq!(snapshot["good.yaml"], Ok("fine".into()));
        assert!(snapshot["bad.yaml"].is_err());
    }
}
