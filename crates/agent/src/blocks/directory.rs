//! Blocks as files of a directory that several agents share.
//!
//! An object is the file `<name>.json`, written whole under another name and then linked to its own: `link` fails where
//! there is one already, on a local file system as on NFS, and nobody ever reads half of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use resources::{IpamBlock, ipam_block};

use super::store::{BlockStore, CreateError, Listed, StoreError, Stored, Unreadable};

/// A larger file is none that an agent wrote.
const MAX_LEN: u64 = 64 << 10;
/// What files end in that are being written.
const UNFINISHED: &str = ".tmp";

/// A directory with blocks. It comes into being with the first.
#[derive(Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    node: String,
}

impl DirectoryStore {
    /// The directory as this node uses it. What the node's last agent left half-written is deleted.
    #[must_use]
    pub fn new(path: PathBuf, node: &str) -> Self {
        let store = Self {
            path,
            node: node.to_owned(),
        };
        let ours = format!(".{node}{UNFINISHED}");
        for entry in fs::read_dir(&store.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with('.') && name.ends_with(&ours))
            {
                fs::remove_file(entry.path()).ok();
            }
        }
        store
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    fn failed(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError(format!("{}: {what}: {error}", self.path.display()))
    }

    fn write(&self, block: &IpamBlock) -> io::Result<String> {
        fs::create_dir_all(&self.path)?;
        let name = &block.metadata.name;
        let unfinished = self.path.join(format!(".{name}.{}{UNFINISHED}", self.node));
        let text = serde_json::to_string_pretty(block)? + "\n";
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::hard_link(&unfinished, self.file(name)));
        fs::remove_file(&unfinished).ok();
        written?;
        // The name must outlive a power cut as the addresses given from the block do elsewhere.
        File::open(&self.path)?.sync_all()?;
        Ok(text)
    }
}

impl BlockStore for DirectoryStore {
    fn list(&self) -> Result<Listed, StoreError> {
        let mut listed = Listed::default();
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listed),
            Err(error) => return Err(self.failed("not read", &error)),
        };
        for entry in entries {
            let path = entry
                .map_err(|error| self.failed("not read", &error))?
                .path();
            let file = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if file.starts_with('.') {
                continue;
            }
            let cidr = file
                .strip_suffix(".json")
                .and_then(ipam_block::cidr_of_name);
            let read = match read(&path) {
                Ok(None) => continue,
                Ok(Some(text)) => IpamBlock::parse(&text).and_then(|block| {
                    if cidr == Some(block.spec.cidr) {
                        return Ok(Stored {
                            block,
                            version: text,
                        });
                    }
                    let right = &block.metadata.name;
                    Err(format!("the file of {} is `{right}.json`", block.spec.cidr))
                }),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(stored) => listed.blocks.push(stored),
                Err(message) => listed.unreadable.push(Unreadable {
                    source: file,
                    cidr,
                    message,
                }),
            }
        }
        listed.blocks.sort_by_key(|stored| stored.block.spec.cidr);
        listed.unreadable.sort_by(|a, b| a.source.cmp(&b.source));
        Ok(listed)
    }

    fn create(&self, block: &IpamBlock) -> Result<Stored, CreateError> {
        match self.write(block) {
            Ok(version) => Ok(Stored {
                block: block.clone(),
                version,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CreateError::Exists),
            Err(error) => Err(CreateError::Failed(self.failed("not written", &error))),
        }
    }

    fn delete(&self, stored: &Stored) -> Result<(), StoreError> {
        let path = self.file(&stored.block.metadata.name);
        let changed = io::Error::other("somebody has changed it");
        match read(&path) {
            Ok(None) => Ok(()),
            // Only the node that has the block writes to its file; whoever else does is a person, and seen here as a rule.
            Ok(Some(text)) if text == stored.version => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Ok(Some(_)) => Err(changed),
            Err(error) => Err(error),
        }
        .map_err(|error| self.failed(&format!("{} not deleted", path.display()), &error))
    }
}

/// A file's text; `None` when there is no file.
fn read(path: &Path) -> io::Result<Option<String>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    // Opening a FIFO waits for its writer.
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_LEN).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text))
}
