//! A client from a kubeconfig, or from what a pod is given.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long the API server may take to answer a call to its port. A node that was cut off should not learn late that it
/// is back.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How the API server is found, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By a kubeconfig.
    Kubeconfig(PathBuf),
    /// As a pod: the service account that is mounted, and `KUBERNETES_SERVICE_HOST` and `_PORT`.
    Pod,
}

/// There is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is not one.
    #[error("kubeconfig {path}: {message}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// We are in no pod.
    #[error("no service account of a pod is here ({0}); outside a pod give --kubeconfig")]
    NoPod(#[source] kube::config::InClusterError),
    /// The client can't be made of that.
    #[error("can't make a client for the API server: {0}")]
    Client(#[source] kube::Error),
}

/// A client, and the namespace that is ours. Nothing is asked of the API server yet.
///
/// # Errors
/// When what says where it is can't be read.
pub async fn connect(access: &Access) -> Result<(Client, String), ConnectError> {
    let mut config = match access {
        Access::Pod => Config::incluster().map_err(ConnectError::NoPod)?,
        Access::Kubeconfig(path) => {
            let wrong = |error: kube::config::KubeconfigError| ConnectError::Kubeconfig {
                path: path.display().to_string(),
                message: error.to_string(),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(wrong)?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(ConnectError::Client)?;
    Ok((client, namespace))
}
