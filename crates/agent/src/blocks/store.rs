//! Where it is written which node has which block.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use resources::IpamBlock;

/// A shared record of blocks. It must be linearizable: what one agent has created, every later [`list`](Self::list) of
/// any agent has. All calls may block for seconds.
pub trait BlockStore: Send {
    /// All that is there.
    ///
    /// # Errors
    /// When it can't be read as a whole; never for want of one object, which then is [`Listed::unreadable`].
    fn list(&self) -> Result<Listed, StoreError>;

    /// What there is of one node's, and perhaps more. Where reading all is no dearer, that.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    fn list_of(&self, _node: &str) -> Result<Listed, StoreError> {
        self.list()
    }

    /// How often all is read although nobody asks, by one of so many nodes. Where its own blocks change, a node hears of it by
    /// other ways, if at all; `waiting`: there is no free block, and pods may wait for one.
    fn pace(&self, _nodes: usize, _waiting: bool) -> Duration {
        Duration::from_secs(30)
    }

    /// Creates an object. Of several agents that create one of the same name, one succeeds.
    ///
    /// # Errors
    /// [`CreateError::Exists`] when there is one of this name.
    fn create(&self, block: &IpamBlock) -> Result<Stored, CreateError>;

    /// Whether it is certain that there is no Node of this name any more.
    ///
    /// # Errors
    /// When that can't be told now.
    fn is_gone(&self, _node: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Deletes an object, provided that it still is this version of it; one that is gone already is as good.
    ///
    /// # Errors
    /// When it has changed, or can't be deleted.
    fn delete(&self, block: &Stored) -> Result<(), StoreError>;
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object.
    pub block: IpamBlock,
    /// What changes with every write: a file's content, Kubernetes' `resourceVersion`.
    pub version: String,
}

/// All that a store has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Objects.
    pub blocks: Vec<Stored>,
    /// What should be an object and can't be read.
    pub unreadable: Vec<Unreadable>,
}

/// What should be an object and can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is: a file's name.
    pub source: String,
    /// The block by its name, where that can be read: whoever has it, nobody else may take it.
    pub cidr: Option<IpNet>,
    /// What is wrong.
    pub message: String,
}

/// A store that doesn't do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Why an object was not created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateError {
    /// There is one of this name.
    Exists,
    /// Anything else.
    Failed(StoreError),
}
