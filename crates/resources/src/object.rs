//! One object of any kind that we read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, instead};
use crate::tree::Tree;
use crate::{
    API_VERSION, BgpConfigurationSpec, BgpFilterSpec, BgpPeerSpec, EndpointSlice, IpPoolSpec,
    IpReservationSpec, Namespace, Node, Secret, Service,
};

/// The kinds that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`BgpConfigurationSpec`].
    BgpConfiguration,
    /// [`BgpFilterSpec`].
    BgpFilter,
    /// [`BgpPeerSpec`].
    BgpPeer,
    /// [`EndpointSlice`].
    EndpointSlice,
    /// [`IpPoolSpec`].
    IpPool,
    /// [`IpReservationSpec`].
    IpReservation,
    /// [`Namespace`].
    Namespace,
    /// [`Node`].
    Node,
    /// [`Secret`].
    Secret,
    /// [`Service`].
    Service,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BgpConfiguration,
        Self::BgpFilter,
        Self::BgpPeer,
        Self::EndpointSlice,
        Self::IpPool,
        Self::IpReservation,
        Self::Namespace,
        Self::Node,
        Self::Secret,
        Self::Service,
    ];

    /// As in an object's `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpFilter => "BGPFilter",
            Self::BgpPeer => "BGPPeer",
            Self::EndpointSlice => "EndpointSlice",
            Self::IpPool => "IPPool",
            Self::IpReservation => "IPReservation",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Secret => "Secret",
            Self::Service => "Service",
        }
    }

    /// As in an object's `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Secret | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::BgpConfiguration
            | Self::BgpFilter
            | Self::BgpPeer
            | Self::IpPool
            | Self::IpReservation => API_VERSION,
        }
    }

    /// Whether its objects' names are unique within their namespace only.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        matches!(self, Self::Service | Self::EndpointSlice)
    }

    /// What an object is called among those of its kind: where it is [namespaced](Self::is_namespaced), its namespace,
    /// a slash, and its name.
    #[must_use]
    pub fn full_name(self, metadata: &Metadata) -> String {
        match self.is_namespaced() {
            true => format!("{}/{}", metadata.namespace(), metadata.name),
            false => metadata.name.clone(),
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An object's kind and name. Shown as `BGPPeer/tor-a`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its [full name](Kind::full_name); empty when an object lacks one.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What we use of an object's `metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// Its namespace, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// Its namespace; Kubernetes' `default` where none is said.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

/// An object of one of our own kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource<S> {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
}

/// An object of any kind that we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Cluster-wide BGP settings.
    BgpConfiguration(Box<Resource<BgpConfigurationSpec>>),
    /// A filter.
    BgpFilter(Resource<BgpFilterSpec>),
    /// A peer of one or more nodes.
    BgpPeer(Box<Resource<BgpPeerSpec>>),
    /// Where a Service's endpoints are.
    EndpointSlice(EndpointSlice),
    /// A range of pod addresses.
    IpPool(Resource<IpPoolSpec>),
    /// Addresses that no pod gets.
    IpReservation(Resource<IpReservationSpec>),
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// A Secret.
    Secret(Secret),
    /// A Service.
    Service(Box<Service>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::BgpConfiguration(_) => Kind::BgpConfiguration,
            Self::BgpFilter(_) => Kind::BgpFilter,
            Self::BgpPeer(_) => Kind::BgpPeer,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::IpPool(_) => Kind::IpPool,
            Self::IpReservation(_) => Kind::IpReservation,
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Secret(_) => Kind::Secret,
            Self::Service(_) => Kind::Service,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::BgpConfiguration(object) => &object.metadata,
            Self::BgpFilter(object) => &object.metadata,
            Self::BgpPeer(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::IpPool(object) => &object.metadata,
            Self::IpReservation(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
        }
    }

    /// Its kind and name.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind(),
            name: self.kind().full_name(self.metadata()),
        }
    }

    /// What is wrong with it although every field by itself can be read.
    pub(crate) fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let metadata = self.metadata();
        if let Err(message) = validate_name(&metadata.name) {
            faults.push(Fault::at("metadata.name", message));
        }
        if let Some(namespace) = &metadata.namespace
            && let Err(message) = validate_name(namespace)
        {
            faults.push(Fault::at("metadata.namespace", message));
        }
        match self {
            Self::BgpConfiguration(object) => object.spec.validate(&metadata.name, &mut faults),
            Self::BgpFilter(object) => object.spec.validate(&mut faults),
            Self::BgpPeer(object) => object.spec.validate(&mut faults),
            Self::IpPool(object) => object.spec.validate(&mut faults),
            Self::IpReservation(object) => object.spec.validate(&mut faults),
            Self::Namespace(_) => {}
            Self::Node(object) => object.validate(&mut faults),
            Self::Secret(object) => object.validate(&mut faults),
            Self::Service(object) => object.validate(&mut faults),
            Self::EndpointSlice(_) => {}
        }
        faults
    }

    /// Reads one document of a known kind.
    pub(crate) fn from_tree(kind: Kind, tree: &Tree) -> Result<Self, Fault> {
        check_metadata(tree)?;
        Ok(match kind {
            Kind::BgpConfiguration => Self::BgpConfiguration(Box::new(resource(tree)?)),
            Kind::BgpFilter => Self::BgpFilter(resource(tree)?),
            Kind::BgpPeer => Self::BgpPeer(Box::new(resource(tree)?)),
            Kind::EndpointSlice => Self::EndpointSlice(EndpointSlice::deserialize(tree)?),
            Kind::IpPool => Self::IpPool(resource(tree)?),
            Kind::IpReservation => Self::IpReservation(resource(tree)?),
            Kind::Namespace => Self::Namespace(Namespace::deserialize(tree)?),
            Kind::Node => Self::Node(Node::deserialize(tree)?),
            Kind::Secret => Self::Secret(Secret::deserialize(tree)?),
            Kind::Service => Self::Service(Box::new(Service::deserialize(tree)?)),
        })
    }
}

fn resource<S: DeserializeOwned>(tree: &Tree) -> Result<Resource<S>, Fault> {
    /// The envelope as written; `status` is what somebody copied from a cluster.
    #[derive(Deserialize)]
    #[serde(
        rename_all = "camelCase",
        deny_unknown_fields,
        bound = "S: DeserializeOwned"
    )]
    struct Document<S> {
        #[serde(rename = "apiVersion")]
        _api_version: IgnoredAny,
        #[serde(rename = "kind")]
        _kind: IgnoredAny,
        metadata: Metadata,
        spec: S,
        #[serde(default, rename = "status")]
        _status: Option<IgnoredAny>,
    }
    let Document { metadata, spec, .. } = Document::deserialize(tree)?;
    Ok(Resource { metadata, spec })
}

/// A misspelt `labels` would silently take a node out of every selector.
fn check_metadata(tree: &Tree) -> Result<(), Fault> {
    const KNOWN: &[&str] = &["name", "namespace", "labels", "annotations"];
    const IGNORED: &[&str] = &[
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let Some(metadata) = tree.child("metadata") else {
        return Ok(());
    };
    match metadata
        .keys()
        .find(|key| !KNOWN.contains(&key.name.as_str()) && !IGNORED.contains(&key.name.as_str()))
    {
        Some(key) => {
            let message = format!("no such field{}", instead(&key.name, KNOWN));
            Err(Fault::at("metadata", message)
                .below(&key.name)
                .on_line(key.line))
        }
        None => Ok(()),
    }
}

/// RFC 1123 subdomain, as Kubernetes has it.
fn validate_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("an object needs a name".to_owned());
    }
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!(
            "`{name}` is not a name: use lower-case letters, digits, `-` and `.`, as in `rack-a.tor-1`"
        ));
    }
    Ok(())
}
