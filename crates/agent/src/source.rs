//! The directory source: a directory of YAML files, read whole whenever anything in it changes.
//!
//! Events only wake it. A directory that Kubernetes mounts from a ConfigMap changes by a symbolic link's swap, an editor
//! writes a file by renaming another over it, and an event can get lost: reading everything again is right in every
//! case, and a slow poll covers the last.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::Watcher as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
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
    /// It was said that the directory can't be watched.
    unwatched: bool,
    last: Last,
    /// Something may have changed since the directory was read; kept here, so that nothing is lost with a dropped future.
    dirty: bool,
    /// When to look without having been told to.
    poll_at: Instant,
    /// A read that is under way.
    reading: Option<JoinHandle<io::Result<Snapshot>>>,
}

/// What the last read came to.
#[derive(Debug)]
enum Last {
    /// There was none yet.
    Nothing,
    Read(Snapshot),
    Failed(io::ErrorKind),
}

impl Directory {
    /// Watches `path`, which may come into being later.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            changed: Arc::new(Notify::new()),
            watcher: None,
            unwatched: false,
            last: Last::Nothing,
            dirty: true,
            poll_at: Instant::now(),
            reading: None,
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the directory holds something else than when this was last called, or can be read again, and gives all
    /// of it. The first call waits for nothing. Cancel safe.
    ///
    /// # Errors
    /// The directory can't be listed: said when that begins, and again only when the reason is another.
    pub async fn changed(&mut self) -> io::Result<Snapshot> {
        loop {
            if !self.dirty {
                tokio::select! {
                    () = self.changed.notified() => {
                        self.dirty = true;
                        // Whoever was moved away or deleted tells it as a last word; the one at its place must be asked anew.
                        self.watcher = None;
                    }
                    () = tokio::time::sleep_until(self.poll_at) => self.dirty = true,
                }
            }
            if !matches!(self.last, Last::Nothing) && self.reading.is_none() {
                tokio::time::sleep(SETTLE).await;
            }
            let read = self.read().await;
            self.dirty = false;
            self.poll_at = Instant::now() + POLL;
            if let Some(news) = self.compare(read) {
                return news;
            }
        }
    }

    /// Reads on a thread that may block, and goes on with a read that was begun before.
    async fn read(&mut self) -> io::Result<Snapshot> {
        if self.reading.is_none() && self.watcher.is_none() {
            // Before the read: what changes after it is told.
            self.watch();
        }
        let path = &self.path;
        let reading = self.reading.get_or_insert_with(|| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || read(&path))
        });
        let read = reading.await;
        self.reading = None;
        read.map_err(io::Error::other).flatten()
    }

    /// What of it is news.
    fn compare(&mut self, read: io::Result<Snapshot>) -> Option<io::Result<Snapshot>> {
        match (&self.last, read) {
            (Last::Read(last), Ok(snapshot)) if *last == snapshot => None,
            (_, Ok(snapshot)) => {
                self.last = Last::Read(snapshot.clone());
                Some(Ok(snapshot))
            }
            (last, Err(error)) => {
                // Whatever comes at this path next is another directory.
                self.watcher = None;
                let known = matches!(last, Last::Failed(kind) if *kind == error.kind());
                self.last = Last::Failed(error.kind());
                (!known).then_some(Err(error))
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
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.unwatched = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unwatched, true) {
                    warn!(
                        directory = %self.path.display(), %error,
                        "can't watch the configuration directory; looking at it every {} s instead", POLL.as_secs()
                    );
                }
            }
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
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // Opening a FIFO waits for its writer, and some devices never end.
    if !metadata.is_file() {
        let what = kind(metadata.file_type());
        return Err(format!("this is {what}, not a regular file"));
    }
    let len = metadata.len();
    if len > MAX_FILE_LEN {
        return Err(format!(
            "the file has {len} octets; at most {MAX_FILE_LEN} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn kind(file_type: std::fs::FileType) -> &'static str {
    match file_type {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    }
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

    async fn error(directory: &mut Directory) -> io::ErrorKind {
        tokio::time::timeout(Duration::from_secs(5), directory.changed())
            .await
            .unwrap()
            .unwrap_err()
            .kind()
    }

    /// A look at the directory, and nothing to say about it.
    async fn silent(directory: &mut Directory) {
        directory.poll_at = Instant::now();
        while directory.poll_at <= Instant::now() {
            let looked = tokio::time::timeout(SETTLE * 2, directory.changed()).await;
            assert!(looked.is_err(), "{looked:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_directory_is_said_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("absent");
        let mut directory = Directory::new(path.clone());
        assert_eq!(error(&mut directory).await, io::ErrorKind::NotFound);
        silent(&mut directory).await;
        std::fs::write(&path, "").unwrap();
        directory.poll_at = Instant::now();
        assert_eq!(error(&mut directory).await, io::ErrorKind::NotADirectory);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        directory.poll_at = Instant::now();
        assert_eq!(next(&mut directory).await, Snapshot::new());
        silent(&mut directory).await;
    }

    #[tokio::test]
    async fn a_directory_that_goes_is_told_and_so_is_its_return() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        let aside = temp.path().join("aside");
        std::fs::create_dir(&path).unwrap();
        write(&path, "a.yaml", "one");
        let mut directory = Directory::new(path.clone());
        let before = next(&mut directory).await;
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(error(&mut directory).await, io::ErrorKind::NotFound);
        // Back with the same content: news all the same, for an error was told.
        std::fs::rename(&aside, &path).unwrap();
        directory.poll_at = Instant::now();
        assert_eq!(next(&mut directory).await, before);
        // It is watched again.
        write(&path, "a.yaml", "two");
        assert_eq!(next(&mut directory).await["a.yaml"], Ok("two".into()));
    }

    #[tokio::test]
    async fn a_directory_put_in_the_place_of_another_is_watched() {
        let temp = tempfile::tempdir().unwrap();
        let [path, other, aside] = ["config", "other", "aside"].map(|name| temp.path().join(name));
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(&other).unwrap();
        write(&other, "a.yaml", "one");
        let mut directory = Directory::new(path.clone());
        assert_eq!(next(&mut directory).await, Snapshot::new());
        std::fs::rename(&path, &aside).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(next(&mut directory).await["a.yaml"], Ok("one".into()));
        write(&path, "a.yaml", "two");
        assert_eq!(next(&mut directory).await["a.yaml"], Ok("two".into()));
    }

    #[tokio::test]
    async fn a_dropped_future_loses_no_change() {
        let temp = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(temp.path().to_owned());
        next(&mut directory).await;
        write(temp.path(), "a.yaml", "one");
        // Dropped after a little while each time: before the event, while it settles, in the midst of the read.
        while !directory.dirty {
            let given_up =
                tokio::time::timeout(Duration::from_millis(1), directory.changed()).await;
            assert!(given_up.is_err(), "not before it has settled");
        }
        assert_eq!(next(&mut directory).await["a.yaml"], Ok("one".into()));
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        let fifo = temp.path().join("fifo.yaml");
        let mode = rustix::fs::Mode::RUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        std::os::unix::fs::symlink("fifo.yaml", temp.path().join("link.yaml")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", temp.path().join("zero.yaml")).unwrap();
        std::fs::create_dir(temp.path().join("sub.yaml")).unwrap();
        write(temp.path(), "real.txt", "fine");
        std::os::unix::fs::symlink("real.txt", temp.path().join("good.yaml")).unwrap();
        let snapshot = next(&mut Directory::new(temp.path().to_owned())).await;
        let no = |what: &str| Err(format!("this is {what}, not a regular file"));
        let wanted = [
            ("fifo.yaml", no("a FIFO")),
            ("good.yaml", Ok("fine".to_owned())),
            ("link.yaml", no("a FIFO")),
            ("sub.yaml", no("a directory")),
            ("zero.yaml", no("a device")),
        ];
        assert_eq!(
            snapshot,
            wanted.map(|(name, text)| (name.to_owned(), text)).into()
        );
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
