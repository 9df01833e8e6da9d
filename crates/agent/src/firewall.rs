//! The thread that keeps our nftables table, and nothing else's.
//!
//! | task | owner | ends |
//! | --- | --- | --- |
//! | thread `margay-nft` with a current-thread runtime | [`netlink::Nft`] | when its [`Firewall`] handle is gone |
//!
//! It writes the table when the plan changes it, when somebody else has, and looks after it once a minute. What the kernel
//! refuses is shown in the status and tried again, ever more seldom; nothing else waits for it. When the agent stops the table
//! stays: packets go on, and they go on being looked at.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netlink::Nft;
use netlink::nft::TABLE;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::{info, warn};

/// How often we look whether the table is whole, beside listening.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after the first refusal; it doubles.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// The pause between two changes of others that are mended: who fights us shall not have all of a core.
const PAUSE: Duration = Duration::from_secs(1);

/// How the table is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Its rules, as a person reads them.
    pub rules: Vec<String>,
    /// How often somebody had changed it.
    pub healed: u64,
    /// What the kernel refused last, while it does.
    pub error: Option<String>,
}

/// What the table is to be: what the plan says, and what pods may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    plan: Option<dataplane::Firewall>,
    spoofers: BTreeSet<String>,
}

/// Speaks to the thread.
#[derive(Debug, Clone)]
pub struct Firewall {
    wanted: watch::Sender<Wanted>,
    status: watch::Receiver<Status>,
}

impl Firewall {
    /// Starts the thread in the caller's network namespace. A kernel without nftables is an error in its status.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn spawn() -> anyhow::Result<Self> {
        let (wanted, wanted_in) = watch::channel(Wanted::default());
        let (publish, status) = watch::channel(Status::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("margay-nft".to_owned())
            .spawn(move || runtime.block_on(serve(wanted_in, publish)))
            .context("can't start the thread for nftables")?;
        Ok(Self { wanted, status })
    }

    /// What the table is to be from now on, but for pods that may spoof.
    pub fn set(&self, firewall: dataplane::Firewall) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.plan.as_ref() != Some(&firewall);
            wanted.plan = Some(firewall);
            changed
        });
    }

    /// Lets the pod behind a host interface send from addresses that are not its own, or no longer.
    pub fn set_spoofing(&self, host_ifname: &str, may: bool) {
        self.wanted.send_if_modified(|wanted| match may {
            true => wanted.spoofers.insert(host_ifname.to_owned()),
            false => wanted.spoofers.remove(host_ifname),
        });
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: this thread's clock")]
fn now() -> Instant {
    Instant::now()
}

async fn serve(mut wanted: watch::Receiver<Wanted>, publish: watch::Sender<Status>) {
    loop {
        let failed = match Keeper::open() {
            Ok(mut keeper) => match keeper.serve(&mut wanted, &publish).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        warn!("nftables: {failed:#}");
        publish.send_modify(|status| status.error = Some(format!("{failed:#}")));
        // A broken socket, or no nftables at all: perhaps somebody loads the module.
        tokio::time::sleep(MAX_RETRY).await;
    }
}

struct Keeper {
    nft: Nft,
    /// Its descriptor once more, for the runtime to wait on.
    events: AsyncFd<OwnedFd>,
    /// When to write next, if not before.
    due: Option<Instant>,
    /// The pause after the next refusal.
    retry: Duration,
    /// Not before this is a change of others mended.
    rested: Instant,
}

impl Keeper {
    fn open() -> anyhow::Result<Self> {
        let nft = Nft::open().context("can't speak to nftables")?;
        let events = nft.as_fd().try_clone_to_owned().and_then(crate::sys::watch);
        Ok(Self {
            nft,
            events: events.context("can't wait for nftables' events")?,
            due: None,
            retry: RETRY,
            rested: now(),
        })
    }

    /// Until nobody is left to want anything.
    async fn serve(
        &mut self,
        wanted: &mut watch::Receiver<Wanted>,
        publish: &watch::Sender<Status>,
    ) -> anyhow::Result<()> {
        self.due = Some(now());
        loop {
            let look = now() + LOOK;
            let at = self.due.map_or(look, |due| due.min(look));
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => self.due = Some(now()),
                    Err(_) => return Ok(()),
                },
                ready = self.events.readable() => {
                    ready?.clear_ready();
                    let disturbed = self.nft.disturbed()?;
                    if disturbed.ours || disturbed.forward {
                        self.disturbed(disturbed.ours, publish);
                    }
                }
                () = tokio::time::sleep_until(at.into()) => {
                    if self.due.is_none() && !self.nft.is_whole()? {
                        self.disturbed(true, publish);
                    }
                }
            }
            if self.due.is_some_and(|due| due <= now()) {
                // A change that is told after this is of after this.
                let Wanted { plan, spoofers } = wanted.borrow_and_update().clone();
                match plan {
                    Some(plan) => self.write(&dataplane::Firewall { spoofers, ..plan }, publish),
                    // Until the first plan an earlier agent's table stays.
                    None => self.due = None,
                }
            }
        }
    }

    fn disturbed(&mut self, ours: bool, publish: &watch::Sender<Status>) {
        if ours {
            info!("somebody changed table inet {TABLE}: written anew");
            publish.send_modify(|status| status.healed += 1);
        }
        let at = self.rested.max(now());
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.rested = at + PAUSE;
    }

    fn write(&mut self, firewall: &dataplane::Firewall, publish: &watch::Sender<Status>) {
        let written = self
            .nft
            .apply(firewall)
            .and_then(|()| self.nft.forward(&firewall.pod_interfaces));
        let (rules, error) = match written {
            Ok(forwards) => {
                (self.due, self.retry) = (None, RETRY);
                let mut rules = firewall.describe();
                rules.extend(forwards.iter().map(ToString::to_string));
                (Some(rules), None)
            }
            Err(error) => {
                self.due = Some(now() + self.retry);
                self.retry = (self.retry * 2).min(MAX_RETRY);
                let message = format!("nftables table inet {TABLE}: {error}");
                warn!("{message}");
                (None, Some(message))
            }
        };
        publish.send_modify(|status| {
            status.error = error;
            if let Some(rules) = rules {
                status.rules = rules;
            }
        });
    }
}
