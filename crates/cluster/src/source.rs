//! All watches together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::{Client, Resource};
use resources::{Kind, ObjectRef};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::blocks::Blocks;
use crate::error::Fault;
use crate::kinds::{self, ALWAYS, OwnNode, Received, SlimNode};
use crate::report::Reporter;
use crate::watch::{News, Origin, Subject, Watch};

/// Changes come in bursts: wait until they are over.
const SETTLE: Duration = Duration::from_millis(20);
/// News that wait to be taken. A watch that is ahead waits.
const QUEUE: usize = 256;

/// Something that has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An object is new, or another.
    Applied(Received),
    /// An object is gone.
    Deleted(ObjectRef),
    /// Nobody looks at objects of this kind any more.
    Forgotten(Kind),
}

/// The cluster's objects, as the API server has them.
pub struct Source {
    client: Client,
    namespace: String,
    news: mpsc::Sender<(Origin, News)>,
    inbox: mpsc::Receiver<(Origin, News)>,
    watches: BTreeMap<Subject, State>,
    /// Watches that were ever begun.
    begun: u64,
    pending: Vec<Change>,
    settled_at: Option<Instant>,
    node: String,
    own: watch::Sender<Option<OwnNode>>,
}

impl Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("namespace", &self.namespace)
            .field("watches", &self.watches)
            .finish_non_exhaustive()
    }
}

/// What is known of a watch.
#[derive(Debug)]
struct State {
    task: JoinHandle<()>,
    number: u64,
    /// All that there was has been told once.
    listed: bool,
    /// Why it doesn't work.
    fault: Option<Fault>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    /// Begins to watch, for the node of this name. Secrets are those of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: String, node: String) -> Self {
        let (news, inbox) = mpsc::channel(QUEUE);
        let mut source = Self {
            client,
            namespace,
            news,
            inbox,
            watches: BTreeMap::new(),
            begun: 0,
            pending: Vec::new(),
            settled_at: None,
            node,
            own: watch::Sender::new(None),
        };
        for kind in ALWAYS {
            source.watch(Subject { kind, name: None });
        }
        source
    }

    /// Tells the same API server how the node is.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.client.clone(), self.node.clone())
    }

    /// Which node has which block, by the same API server.
    #[must_use]
    pub fn blocks(&self) -> Blocks {
        Blocks::new(self.client.clone(), self.node.clone())
    }

    /// Our own Node, as it was seen last.
    #[must_use]
    pub fn own_node(&self) -> watch::Receiver<Option<OwnNode>> {
        self.own.subscribe()
    }

    /// The namespace of the Secrets.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Waits until something has changed, if only whether the API server answers, and gives all that has. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Change> {
        loop {
            let at = self.settled_at;
            let settled = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((origin, news)) = self.inbox.recv() => self.take(&origin, news),
                () = settled => {
                    self.settled_at = None;
                    return std::mem::take(&mut self.pending);
                }
            }
        }
    }

    /// What has not been told once yet: of the kinds that are watched as a whole, and of the Secrets that are wanted.
    #[must_use]
    pub fn outstanding(&self) -> Vec<String> {
        let outstanding = self.watches.iter().filter(|(_, state)| !state.listed);
        let name = |subject: &Subject| match &subject.name {
            Some(name) => format!("{} {}/{name}", subject.kind, self.namespace),
            None => subject.kind.to_string(),
        };
        outstanding.map(|(subject, _)| name(subject)).collect()
    }

    /// Watches exactly these kinds beside those that always are. The others are forgotten.
    pub fn want_kinds(&mut self, kinds: &BTreeSet<Kind>) {
        let whole = |subject: &Subject| subject.name.is_none() && !ALWAYS.contains(&subject.kind);
        let watched: BTreeSet<Kind> = self
            .watches
            .keys()
            .filter(|subject| whole(subject))
            .map(|subject| subject.kind)
            .collect();
        for &kind in watched.difference(kinds) {
            self.watches.remove(&Subject { kind, name: None });
            self.push(Change::Forgotten(kind));
        }
        for &kind in kinds.difference(&watched) {
            self.watch(Subject { kind, name: None });
        }
    }

    /// Watches exactly these Secrets. Those that are no longer wanted are gone, as far as anybody is told.
    pub fn want_secrets(&mut self, names: &BTreeSet<String>) {
        let wanted = |subject: &Subject| match &subject.name {
            Some(name) => names.contains(name),
            None => true,
        };
        let stale: Vec<Subject> = self
            .watches
            .keys()
            .filter(|subject| !wanted(subject))
            .cloned()
            .collect();
        for subject in stale {
            self.watches.remove(&subject);
            if let Some(name) = subject.name {
                let kind = subject.kind;
                self.push(Change::Deleted(ObjectRef { kind, name }));
            }
        }
        for name in names {
            let subject = Subject {
                kind: Kind::Secret,
                name: Some(name.clone()),
            };
            if !self.watches.contains_key(&subject) {
                self.watch(subject);
            }
        }
    }

    /// What doesn't work, in words: once where the API server can't be reached, else by kind.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = BTreeSet::new();
        let mut unreachable = None;
        for (subject, state) in &self.watches {
            match &state.fault {
                Some(Fault::Unreachable(message)) => unreachable = Some(message),
                Some(fault @ Fault::Refused { .. }) => {
                    faults.insert(refused(subject, fault, &self.namespace));
                }
                None => {}
            }
        }
        let unreachable = unreachable.map(|message| {
            format!(
                "the API server can't be reached ({message}): what was read before stays in force"
            )
        });
        unreachable.into_iter().chain(faults).collect()
    }

    fn take(&mut self, (subject, number): &Origin, news: News) {
        // One that is no longer wanted may have had something to say, and another one look at the same by now.
        let state = self.watches.get_mut(subject);
        let Some(state) = state.filter(|state| state.number == *number) else {
            return;
        };
        match news {
            News::Applied(received) => return self.push(Change::Applied(received)),
            News::Deleted(reference) => return self.push(Change::Deleted(reference)),
            News::Listed => (state.listed, state.fault) = (true, None),
            News::Works => state.fault = None,
            News::Fails(fault) => state.fault = Some(fault),
        }
        self.wake();
    }

    fn push(&mut self, change: Change) {
        self.pending.push(change);
        self.wake();
    }

    fn wake(&mut self) {
        self.settled_at
            .get_or_insert_with(|| Instant::now() + SETTLE);
    }

    fn watch(&mut self, subject: Subject) {
        self.begun += 1;
        let client = self.client.clone();
        let task = if subject.kind == Kind::Node {
            let api = Api::<SlimNode>::all(client);
            let own = self.own.clone();
            let node = self.node.clone();
            tokio::spawn(self.task(&subject, api, move |_, object: SlimNode| {
                if object.name() == node {
                    own.send_replace(Some(OwnNode::new(&object)));
                }
                Received::from(object)
            }))
        } else {
            let resource = kinds::resource(subject.kind);
            let api = if subject.kind == Kind::Secret {
                Api::<DynamicObject>::namespaced_with(client, &self.namespace, &resource)
            } else {
                Api::all_with(client, &resource)
            };
            tokio::spawn(self.task(&subject, api, kinds::raw))
        };
        let state = State {
            task,
            number: self.begun,
            listed: false,
            fault: None,
        };
        self.watches.insert(subject, state);
    }

    fn task<K, F>(
        &self,
        subject: &Subject,
        api: Api<K>,
        convert: F,
    ) -> impl Future<Output = ()> + Send + use<K, F>
    where
        F: Fn(Kind, K) -> Received + Send + Sync + 'static,
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let watch = Watch {
            api,
            subject: subject.clone(),
            convert: Box::new(convert),
            news: self.news.clone(),
            number: self.begun,
            known: BTreeSet::new(),
            failing: false,
            refused: false,
        };
        watch.run()
    }
}

fn refused(subject: &Subject, fault: &Fault, namespace: &str) -> String {
    let what = match &subject.name {
        Some(name) => format!("{} {namespace}/{name}", subject.kind),
        None => subject.kind.to_string(),
    };
    let advice = fault.advice().unwrap_or_default();
    format!("{what}: {}: {advice}", fault.message())
}
