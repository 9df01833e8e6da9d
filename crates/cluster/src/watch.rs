//! One watch: list, follow, begin again.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt as _};
use resources::{Kind, Metadata, ObjectRef};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::error::Fault;
use crate::kinds::Received;

/// Objects in one answer. A Node can have some ten kilobytes, of which little is kept.
const PAGE: u32 = 250;
/// How long the API server lets a watch live, in seconds; then it is taken up where it was. Less by a random share, so
/// that not all nodes come at once.
const LIFE: u32 = 290;
/// How much later than that an end is that never came: the connection is dead.
const GRACE: Duration = Duration::from_secs(10);
/// The first wait after a failure; each is twice the one before, give or take half.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// What a watch looks at: all objects of a kind, or one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
}

/// Which watch has something to tell: what it looks at, and its number.
pub(crate) type Origin = (Subject, u64);

/// What a watch has to tell.
#[derive(Debug)]
pub(crate) enum News {
    /// There is an object, new or changed.
    Applied(Received),
    /// There is an object no longer.
    Deleted(ObjectRef),
    /// All objects that there are have been told.
    Listed,
    /// It works, after it didn't.
    Works,
    /// It doesn't work.
    Fails(Fault),
}

/// Nobody listens any more.
struct Closed;

/// Why a round ended.
enum End {
    Closed,
    Fault(Fault),
    /// The API server ended the watch: take it up again.
    Expired,
}

impl From<Closed> for End {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        Self::Fault(Fault::new(&error))
    }
}

/// Takes of an object what is read.
pub(crate) type Convert<K> = Box<dyn Fn(Kind, K) -> Received + Send + Sync>;

/// A watch's task.
pub(crate) struct Watch<K> {
    pub(crate) api: Api<K>,
    pub(crate) subject: Subject,
    pub(crate) convert: Convert<K>,
    pub(crate) news: mpsc::Sender<(Origin, News)>,
    /// Tells this watch from one before it that looked at the same.
    pub(crate) number: u64,
    /// Names of the objects that were told.
    pub(crate) known: BTreeSet<String>,
    /// The last thing told was a failure.
    pub(crate) failing: bool,
    /// The last answer was a refusal. An API server that has just started refuses everything for a moment: only the second
    /// one counts.
    pub(crate) refused: bool,
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    /// Runs until nobody listens.
    pub(crate) async fn run(mut self) {
        let mut version: Option<String> = None;
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let end = match version.take() {
                None => match self.list().await {
                    Ok(listed) => {
                        version = Some(listed);
                        wait = FIRST_WAIT;
                        continue;
                    }
                    Err(end) => end,
                },
                Some(mut at) => {
                    let Err(end) = self.follow(&mut at).await;
                    let forgotten = matches!(&end, End::Fault(fault) if fault.is_gone());
                    version = Some(at).filter(|_| !forgotten);
                    end
                }
            };
            match end {
                End::Closed => return,
                // A server that ends each watch at once would otherwise be asked without a pause.
                End::Expired if began.elapsed() > LONGEST_WAIT => {
                    wait = FIRST_WAIT;
                    continue;
                }
                End::Expired => {}
                End::Fault(fault) => {
                    debug!(subject = ?self.subject, ?fault, "the watch ended");
                    let refused = matches!(fault, Fault::Refused { .. });
                    let first = refused && !std::mem::replace(&mut self.refused, refused);
                    // A history that is forgotten is no failure: the list is made again.
                    if !fault.is_gone() && !first {
                        self.failing = true;
                        if self.tell(News::Fails(fault)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            sleep(jittered(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Tells of every object that there is, and of those that are there no longer. Gives the version to follow from.
    async fn list(&mut self) -> Result<String, End> {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.field_selector = self.fields();
        let mut seen = BTreeSet::new();
        let version = loop {
            let page = self.api.list(&parameters).await?;
            for object in page.items {
                seen.insert(full_name(self.subject.kind, &object));
                self.applied(object).await?;
            }
            parameters.continue_token = page.metadata.continue_.filter(|it| !it.is_empty());
            if parameters.continue_token.is_none() {
                break page.metadata.resource_version.unwrap_or_default();
            }
        };
        let gone: Vec<String> = self.known.difference(&seen).cloned().collect();
        for name in gone {
            self.deleted(name).await?;
        }
        self.tell(News::Listed).await?;
        (self.failing, self.refused) = (false, false);
        Ok(version)
    }

    /// Tells of every change from `version` on, which follows along.
    async fn follow(&mut self, version: &mut String) -> Result<std::convert::Infallible, End> {
        let life = LIFE - fastrand::u32(0..LIFE / 4);
        let mut parameters = WatchParams::default().timeout(life);
        parameters.field_selector = self.fields();
        let patience = Duration::from_secs(u64::from(life)) + GRACE;
        let stream = self.api.watch(&parameters, version).await?;
        pin_mut!(stream);
        self.refused = false;
        if std::mem::take(&mut self.failing) {
            self.tell(News::Works).await?;
        }
        while let Ok(Some(event)) = timeout(patience, stream.next()).await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    self.applied(object).await?;
                }
                WatchEvent::Deleted(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    self.deleted(full_name(self.subject.kind, &object)).await?;
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status.boxed()).into()),
            }
        }
        Err(End::Expired)
    }

    fn fields(&self) -> Option<String> {
        let name = self.subject.name.as_ref()?;
        Some(format!("metadata.name={name}"))
    }

    async fn applied(&mut self, object: K) -> Result<(), Closed> {
        self.known.insert(full_name(self.subject.kind, &object));
        let received = (self.convert)(self.subject.kind, object);
        self.tell(News::Applied(received)).await
    }

    async fn deleted(&mut self, name: String) -> Result<(), Closed> {
        self.known.remove(&name);
        let kind = self.subject.kind;
        self.tell(News::Deleted(ObjectRef { kind, name })).await
    }

    async fn tell(&self, news: News) -> Result<(), Closed> {
        let message = ((self.subject.clone(), self.number), news);
        self.news.send(message).await.map_err(|_| Closed)
    }
}

/// Give or take half.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}

/// What an object is called among those of its kind.
fn full_name(kind: Kind, object: &impl Resource) -> String {
    kind.full_name(&Metadata {
        name: object.meta().name.clone().unwrap_or_default(),
        namespace: object.meta().namespace.clone(),
        ..Metadata::default()
    })
}
