//! Where the objects come from: a directory, or the Kubernetes API.

use std::{fmt, io};

use cluster::{Access, Change, OwnNode, Reporter, Source};
use tokio::sync::watch;

use crate::cli::Cli;
use crate::config::Wanted;
use crate::source::{Directory, Snapshot};

/// Where the objects come from.
#[derive(Debug)]
pub enum Origin {
    /// A directory of YAML.
    Directory(Directory),
    /// The Kubernetes API.
    Cluster(Box<Source>),
}

/// What there is to know.
#[derive(Debug)]
pub enum News {
    /// All that the directory holds.
    Files(io::Result<Snapshot>),
    /// What has changed in the cluster, if only whether the API server can be asked.
    Cluster(Vec<Change>),
}

impl Origin {
    /// The one that the command line names. Nothing is read yet.
    ///
    /// # Errors
    /// When what says where the API server is can't be read.
    pub async fn new(cli: &Cli) -> anyhow::Result<Self> {
        if let Some(folder) = &cli.config_dir {
            return Ok(Self::Directory(Directory::new(folder.clone())));
        }
        let access = match &cli.kubeconfig {
            Some(path) => Access::Kubeconfig(path.clone()),
            None => Access::Pod,
        };
        let (client, namespace) = cluster::connect(&access).await?;
        let namespace = cli.namespace.clone().unwrap_or(namespace);
        let source = Source::new(client, namespace, cli.node_name.clone());
        Ok(Self::Cluster(Box::new(source)))
    }

    /// Where to tell how the node is, and what is known of its Node object.
    #[must_use]
    pub fn reporter(&self) -> Option<(Reporter, watch::Receiver<Option<OwnNode>>)> {
        match self {
            Self::Directory(_) => None,
            Self::Cluster(source) => Some((source.reporter(), source.own_node())),
        }
    }

    /// Waits for something new. Cancel safe.
    pub async fn changed(&mut self) -> News {
        match self {
            Self::Directory(directory) => News::Files(directory.changed().await),
            Self::Cluster(source) => News::Cluster(source.changed().await),
        }
    }

    /// Has this watched; then says what has not been told yet, and what is wrong with asking.
    pub fn settle(&mut self, wanted: &Wanted) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Directory(_) => (Vec::new(), Vec::new()),
            Self::Cluster(source) => {
                source.want_kinds(&wanted.kinds);
                source.want_secrets(&wanted.secrets);
                (source.outstanding(), source.faults())
            }
        }
    }
}

/// For a person, and as the name of the source in what is wrong with it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.path().display().fmt(f),
            Self::Cluster(_) => f.write_str(resources::index::KUBERNETES),
        }
    }
}
