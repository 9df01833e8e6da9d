//! Objects that come and go, to the state of the cluster. Synchronous, and independent of order: what counts is which
//! objects there are now, not how they came.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::bgp_configuration::DEFAULT;
use crate::fault::Fault;
use crate::tree::Tree;
use crate::yaml::{self, Parsed};
use crate::{
    BgpConfigurationSpec, BgpFilterSpec, BgpPeerSpec, EndpointSlice, IpPoolSpec, IpReservationSpec,
    Kind, Namespace, Node, Object, ObjectRef, Problem, Secret, Service, Severity,
};

/// The source that [`Index::apply`] and [`Index::delete`] speak for.
pub const KUBERNETES: &str = "kubernetes";

/// All objects in force, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Settings: `default`, and `node.<name>`.
    pub configurations: BTreeMap<String, BgpConfigurationSpec>,
    /// Filters.
    pub filters: BTreeMap<String, BgpFilterSpec>,
    /// Peers.
    pub peers: BTreeMap<String, BgpPeerSpec>,
    /// Pools.
    pub pools: BTreeMap<String, IpPoolSpec>,
    /// Addresses that no pod gets.
    pub reservations: BTreeMap<String, IpReservationSpec>,
    /// Namespaces.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Nodes.
    pub nodes: BTreeMap<String, Node>,
    /// Secrets. Of those in Kubernetes only the ones that are named by a peer; in files, all that are there.
    pub secrets: BTreeMap<String, Secret>,
    /// Services with an address, by [full name](Kind::full_name).
    pub services: BTreeMap<String, Service>,
    /// EndpointSlices of nodes that matter: see [`Index::for_node`].
    pub endpoint_slices: BTreeMap<String, EndpointSlice>,
}

impl ClusterState {
    /// The Secrets that are named as a password's place.
    #[must_use]
    pub fn secret_names(&self) -> BTreeSet<String> {
        let peers = self.peers.values().map(|peer| &peer.password);
        let mesh = self
            .configurations
            .values()
            .map(|it| &it.node_mesh_password);
        let named = peers.chain(mesh).flatten();
        named.map(|it| it.secret_key_ref.name.clone()).collect()
    }

    /// The kinds that matter only because others say so: Namespaces where a pool selects some, Services and where their
    /// endpoints are where addresses of Services are announced.
    #[must_use]
    pub fn further_kinds(&self) -> BTreeSet<Kind> {
        let mut kinds = BTreeSet::new();
        if self
            .pools
            .values()
            .any(|pool| pool.namespace_selector.is_some())
        {
            kinds.insert(Kind::Namespace);
        }
        let announced = self.configurations.get(DEFAULT);
        if announced.is_some_and(|spec| spec.service_ranges().next().is_some()) {
            kinds.extend([Kind::Service, Kind::EndpointSlice]);
        }
        kinds
    }
}

/// The objects of all sources. An object with a fault is kept out and listed under [`problems`](Self::problems), while
/// its last good version from the same source stays in force. Where two sources have an object of the same kind and
/// name, the source whose name sorts first wins.
#[derive(Debug, Clone, Default)]
pub struct Index {
    sources: BTreeMap<String, Source>,
    state: ClusterState,
    /// The node whose endpoints matter; `None`: all nodes.
    node: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Source {
    objects: BTreeMap<ObjectRef, Held>,
    /// Faults that belong to no object in particular.
    problems: Vec<Problem>,
}

/// What a source says of one object.
#[derive(Debug, Clone, Default)]
struct Held {
    /// The last version without fault.
    good: Option<Object>,
    /// The line of that version.
    line: Option<u32>,
    /// What is wrong with the present version.
    problems: Vec<Problem>,
}

impl Index {
    /// An index for this node: of a Service's endpoints it keeps no more than whether there is one on it. Everything
    /// else is of the whole cluster.
    #[must_use]
    pub fn for_node(name: &str) -> Self {
        Self {
            node: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// The objects in force.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The good objects that came over the API.
    pub fn received(&self) -> impl Iterator<Item = &Object> {
        let source = self.sources.get(KUBERNETES).into_iter();
        let held = source.flat_map(|source| source.objects.values());
        held.filter_map(|held| held.good.as_ref())
    }

    /// An object is new or has changed. Returns whether the state changed.
    pub fn apply(&mut self, object: Object) -> bool {
        let reference = object.reference();
        let faults = object.validate();
        let Some(object) = self.relevant(object) else {
            return self.delete(reference.kind, &reference.name);
        };
        self.hold(&reference, Some(object), faults)
    }

    /// An object is new or has changed, as it came over the API. Returns whether the state changed.
    pub fn receive(&mut self, kind: Kind, json: &serde_json::Value) -> bool {
        let tree = Tree::from(json);
        match Object::from_tree(kind, &tree) {
            Ok(object) => self.apply(object),
            Err(fault) => {
                let reference = yaml::reference(kind, &tree);
                self.hold(&reference, None, vec![yaml::discreet(kind, fault)])
            }
        }
    }

    /// Keeps the new version of an object if nothing is wrong with it, else what is.
    fn hold(&mut self, reference: &ObjectRef, object: Option<Object>, faults: Vec<Fault>) -> bool {
        let source = self.sources.entry(KUBERNETES.to_owned()).or_default();
        let held = source.objects.entry(reference.clone()).or_default();
        held.problems = faults
            .into_iter()
            .map(|fault| Problem {
                source: KUBERNETES.to_owned(),
                line: None,
                object: Some(reference.clone()),
                field: fault.field(),
                severity: Severity::Error,
                message: fault.message,
            })
            .collect();
        if held.problems.is_empty() {
            held.good = object;
        }
        self.settle(reference)
    }

    /// An object is gone. Returns whether the state changed.
    pub fn delete(&mut self, kind: Kind, name: &str) -> bool {
        let reference = ObjectRef {
            kind,
            name: name.to_owned(),
        };
        if let Some(source) = self.sources.get_mut(KUBERNETES) {
            source.objects.remove(&reference);
        }
        self.settle(&reference)
    }

    /// Objects of this kind come over the API no more. Returns whether the state changed.
    pub fn forget(&mut self, kind: Kind) -> bool {
        let source = self.sources.get(KUBERNETES);
        let references = source.into_iter().flat_map(|source| source.objects.keys());
        let of_kind: Vec<ObjectRef> = references
            .filter(|reference| reference.kind == kind)
            .cloned()
            .collect();
        let mut changed = false;
        for reference in of_kind {
            changed |= self.delete(kind, &reference.name);
        }
        changed
    }

    /// A source now holds exactly this. Returns whether the state changed.
    ///
    /// Where the faulty document can't be told to be a certain object, every object that the source had and now lacks
    /// stays as it was: it may be the one.
    pub fn replace(&mut self, source: &str, parsed: Parsed) -> bool {
        let old = self.sources.remove(source).unwrap_or_default();
        let mut new = Source::default();
        for (line, object) in parsed.objects {
            let reference = object.reference();
            let Some(object) = self.relevant(object) else {
                continue;
            };
            let held = new.objects.entry(reference.clone()).or_default();
            if held.good.is_some() {
                held.problems.push(twice(
                    source,
                    line,
                    &reference,
                    &format!("line {}", held.line.unwrap_or(0)),
                ));
                continue;
            }
            (held.good, held.line) = (Some(object), Some(line));
        }
        for problem in parsed.problems {
            match problem
                .object
                .clone()
                .filter(|object| !object.name.is_empty())
            {
                Some(reference) => new
                    .objects
                    .entry(reference)
                    .or_default()
                    .problems
                    .push(problem),
                None => new.problems.push(problem),
            }
        }
        let unsure = !new.problems.is_empty();
        let mut kept = false;
        for (reference, before) in &old.objects {
            match new.objects.get_mut(reference) {
                Some(held) if held.good.is_none() => {
                    (held.good, held.line) = (before.good.clone(), before.line)
                }
                None if unsure && before.good.is_some() => {
                    kept = true;
                    new.objects.insert(
                        reference.clone(),
                        Held {
                            problems: Vec::new(),
                            ..before.clone()
                        },
                    );
                }
                _ => {}
            }
        }
        for problem in new.problems.iter_mut().filter(|_| kept) {
            problem
                .message
                .push_str(" (objects that the file had before stay in force)");
        }
        let touched: Vec<ObjectRef> = old
            .objects
            .keys()
            .chain(new.objects.keys())
            .cloned()
            .collect();
        self.sources.insert(source.to_owned(), new);
        let mut changed = false;
        for reference in &touched {
            changed |= self.settle(reference);
        }
        changed
    }

    /// Forgets the sources for which `keep` is false, with all that they held. Returns whether the state changed.
    pub fn retain_sources(&mut self, mut keep: impl FnMut(&str) -> bool) -> bool {
        let gone: Vec<String> = self
            .sources
            .keys()
            .filter(|source| !keep(source))
            .cloned()
            .collect();
        let mut changed = false;
        for source in gone {
            let Some(Source { objects, .. }) = self.sources.remove(&source) else {
                continue;
            };
            for reference in objects.keys() {
                changed |= self.settle(reference);
            }
        }
        changed
    }

    /// Everything that is wrong, by source and line.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut owners: BTreeMap<&ObjectRef, &str> = BTreeMap::new();
        for (name, source) in &self.sources {
            problems.extend(source.problems.iter().cloned());
            for (reference, held) in &source.objects {
                problems.extend(held.problems.iter().cloned().map(|mut problem| {
                    if held.good.is_some() && problem.severity == Severity::Error {
                        problem
                            .message
                            .push_str(" (the last good version stays in force)");
                    }
                    problem
                }));
                if held.good.is_none() {
                    continue;
                }
                match owners.get(reference) {
                    Some(owner) => {
                        problems.push(twice(name, held.line.unwrap_or(0), reference, owner))
                    }
                    None => {
                        owners.insert(reference, name);
                    }
                }
            }
        }
        problems.sort();
        problems
    }

    /// Where an object that is in force came from: its source, and its line there.
    #[must_use]
    pub fn origin(&self, kind: Kind, name: &str) -> Option<(&str, Option<u32>)> {
        let reference = ObjectRef {
            kind,
            name: name.to_owned(),
        };
        self.winner(&reference)
            .map(|(source, held)| (source, held.line))
    }

    /// A problem that a planner found with an object that is in force, with the place that it came from.
    #[must_use]
    pub fn locate(&self, mut problem: Problem) -> Problem {
        if let Some((source, line)) = problem
            .object
            .as_ref()
            .and_then(|object| self.origin(object.kind, &object.name))
        {
            (problem.source, problem.line) = (source.to_owned(), line);
        }
        problem
    }

    /// What of an object is worth keeping; `None`: nothing, as if it weren't there.
    fn relevant(&self, mut object: Object) -> Option<Object> {
        let keep = if let Object::EndpointSlice(slice) = &mut object {
            if let Some(node) = &self.node {
                slice.nodes.retain(|name| name == node);
            }
            !slice.nodes.is_empty() && !slice.service.is_empty()
        } else if let Object::Service(service) = &object {
            service.has_addresses()
        } else {
            true
        };
        keep.then_some(object)
    }

    fn winner(&self, reference: &ObjectRef) -> Option<(&str, &Held)> {
        self.sources.iter().find_map(|(name, source)| {
            let held = source.objects.get(reference)?;
            held.good.is_some().then_some((name.as_str(), held))
        })
    }

    /// Makes the state's one entry what the sources say. Returns whether it changed.
    fn settle(&mut self, reference: &ObjectRef) -> bool {
        let name = &reference.name;
        match self
            .winner(reference)
            .and_then(|(_, held)| held.good.clone())
        {
            Some(Object::BgpConfiguration(object)) => {
                put(&mut self.state.configurations, name, object.spec)
            }
            Some(Object::BgpFilter(object)) => put(&mut self.state.filters, name, object.spec),
            Some(Object::BgpPeer(object)) => put(&mut self.state.peers, name, object.spec),
            Some(Object::IpPool(object)) => put(&mut self.state.pools, name, object.spec),
            Some(Object::IpReservation(object)) => {
                put(&mut self.state.reservations, name, object.spec)
            }
            Some(Object::Namespace(namespace)) => put(&mut self.state.namespaces, name, namespace),
            Some(Object::Node(node)) => put(&mut self.state.nodes, name, node),
            Some(Object::Secret(secret)) => put(&mut self.state.secrets, name, secret),
            Some(Object::Service(service)) => put(&mut self.state.services, name, *service),
            Some(Object::EndpointSlice(slice)) => put(&mut self.state.endpoint_slices, name, slice),
            None => match reference.kind {
                Kind::BgpConfiguration => self.state.configurations.remove(name).is_some(),
                Kind::BgpFilter => self.state.filters.remove(name).is_some(),
                Kind::BgpPeer => self.state.peers.remove(name).is_some(),
                Kind::IpPool => self.state.pools.remove(name).is_some(),
                Kind::IpReservation => self.state.reservations.remove(name).is_some(),
                Kind::Namespace => self.state.namespaces.remove(name).is_some(),
                Kind::Node => self.state.nodes.remove(name).is_some(),
                Kind::Secret => self.state.secrets.remove(name).is_some(),
                Kind::Service => self.state.services.remove(name).is_some(),
                Kind::EndpointSlice => self.state.endpoint_slices.remove(name).is_some(),
            },
        }
    }
}

fn put<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    if map.get(name) == Some(&value) {
        return false;
    }
    map.insert(name.to_owned(), value);
    true
}

fn twice(source: &str, line: u32, reference: &ObjectRef, winner: &str) -> Problem {
    Problem {
        source: source.to_owned(),
        line: (line != 0).then_some(line),
        object: Some(reference.clone()),
        field: String::new(),
        severity: Severity::Warning,
        message: format!("defined twice: the one from {winner} counts; remove this one"),
    }
}
