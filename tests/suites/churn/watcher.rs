//! Who has which address, written down by somebody who is not asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use lab::Namespace;
use serde_json::Value;
use tests::oracle;

/// As the runtime sees it: a pod lives from its ADD's success until its DEL begins.
#[derive(Debug, Default)]
pub(crate) struct Register(Mutex<BTreeMap<IpAddr, String>>);

impl Register {
    /// A pod lives. Fails when another one does that has an address of its.
    pub(crate) fn born(&self, addresses: &[IpAddr], name: &str) -> Result<()> {
        let mut living = self.lock();
        for address in addresses {
            if let Some(before) = living.insert(*address, name.to_owned()) {
                bail!("{address} is {before}'s, and was given to {name}");
            }
        }
        Ok(())
    }

    /// Its DEL begins.
    pub(crate) fn dies(&self, addresses: &[IpAddr]) {
        self.lock()
            .retain(|address, _| !addresses.contains(address));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, String>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// As the kernel sees it, by `ip`: until `done`, looks again and again for two host veths whose records name one address.
/// Returns how often it looked.
pub(crate) fn follow(host: &Namespace, done: &AtomicBool) -> Result<u32> {
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        looks += 1;
        // A list takes a moment to be told, in which one link may go and the next come: what counts is on two lists.
        let shared = shared(&snapshot(host)?);
        if shared.is_empty() {
            continue;
        }
        let still = self::shared(&snapshot(host)?);
        if let Some((address, links)) = still.iter().find(|entry| shared.contains(entry)) {
            bail!("{address} is on {links:?}");
        }
    }
    Ok(looks)
}

/// Index and addresses of every host veth.
fn snapshot(host: &Namespace) -> Result<Vec<(u64, String)>> {
    let text = oracle::ip(host, &["-j", "link", "show", "type", "veth"])?;
    let links: Value = serde_json::from_str(&text)?;
    let links = links.as_array().into_iter().flatten();
    Ok(links
        .filter_map(|link| {
            let mut words = link["ifalias"].as_str()?.split(' ');
            let addresses = words.find_map(|word| word.strip_prefix("a="))?;
            Some((link["ifindex"].as_u64()?, addresses.to_owned()))
        })
        .collect())
}

/// Addresses that more than one link has.
fn shared(links: &[(u64, String)]) -> Vec<(String, Vec<u64>)> {
    let mut owners: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (index, addresses) in links {
        for address in addresses.split(',') {
            owners.entry(address).or_default().push(*index);
        }
    }
    let shared = owners.into_iter().filter(|(_, links)| links.len() > 1);
    shared
        .map(|(address, links)| (address.to_owned(), links))
        .collect()
}
