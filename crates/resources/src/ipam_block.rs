//! `IPAMBlock`: a part of a pool that one node gives its pods' addresses from.
//!
//! Agents write these objects themselves, and keep them apart from the configuration: they are the cluster's one record of
//! which node has which block. The name follows from the CIDR, so that of two agents who want the same block only one
//! can create the object.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{cidr, parse_cidr};
use crate::{API_VERSION, Metadata, schema};

/// `kind` of the objects.
pub const KIND: &str = "IPAMBlock";

/// An object with a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlock {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Its name: [`name`] of the block's CIDR.
    pub metadata: Metadata,
    /// Which block, and whose.
    pub spec: IpamBlockSpec,
}

/// A block of an IPPool, and the node that has it. Agents make these objects and delete them; an object is a claim, so that
/// nothing in it ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlockSpec {
    /// The block. The object's name follows from it: `10-244-1-64-26`, `fd00-10-0-0-0-0-0-40-122`.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
    /// The name of the node that has it.
    pub node: String,
}

impl IpamBlock {
    /// The object by which a node has a block.
    #[must_use]
    pub fn new(cidr: IpNet, node: &str) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: Metadata {
                name: name(cidr),
                ..Metadata::default()
            },
            spec: IpamBlockSpec {
                cidr: cidr.trunc(),
                node: node.to_owned(),
            },
        }
    }

    /// Reads one object, in YAML or JSON.
    ///
    /// # Errors
    /// In words, when it isn't one, or when its name doesn't follow from its CIDR: then it would not exclude others.
    pub fn parse(text: &str) -> Result<Self, String> {
        let block: Self = serde_saphyr::from_str(text).map_err(|error| {
            error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        })?;
        if block.kind != KIND || block.api_version != API_VERSION {
            return Err(format!(
                "`{}` of `{}` is not `{KIND}` of `{API_VERSION}`",
                block.kind, block.api_version
            ));
        }
        Self::named(&block.metadata.name, block.spec)
    }

    /// The object of this name with this content.
    ///
    /// # Errors
    /// In words, when its name doesn't follow from its CIDR, or no node has it.
    pub fn named(wrong: &str, spec: IpamBlockSpec) -> Result<Self, String> {
        let right = name(spec.cidr);
        if wrong != right {
            let cidr = spec.cidr;
            return Err(format!("the name of {cidr} is `{right}`, not `{wrong}`"));
        }
        if spec.node.is_empty() {
            return Err("spec.node is empty".to_owned());
        }
        Ok(Self::new(spec.cidr, &spec.node))
    }
}

/// The name of a block's object: `10-244-1-64-26`, `fd00-10-0-0-0-0-0-40-122`.
#[must_use]
pub fn name(cidr: IpNet) -> String {
    let groups: Vec<String> = match cidr.network() {
        IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(address) => address
            .segments()
            .iter()
            .map(|segment| format!("{segment:x}"))
            .collect(),
    };
    format!("{}-{}", groups.join("-"), cidr.prefix_len())
}

/// The block whose object has this name; `None` when no block's has.
#[must_use]
pub fn cidr_of_name(text: &str) -> Option<IpNet> {
    let groups: Vec<&str> = text.split('-').collect();
    let (len, groups) = groups.split_last()?;
    let address = match groups.len() {
        4 => groups.join(".").parse::<Ipv4Addr>().map(IpAddr::V4).ok()?,
        8 => groups.join(":").parse::<Ipv6Addr>().map(IpAddr::V6).ok()?,
        _ => return None,
    };
    let cidr = parse_cidr(&format!("{address}/{len}")).ok()?;
    // One block has one name: `010` would be another one's.
    (name(cidr) == text).then_some(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_the_cidr_and_the_other_way_round() {
        for (cidr, wanted) in [
            ("10.244.1.64/26", "10-244-1-64-26"),
            ("0.0.0.0/32", "0-0-0-0-32"),
            ("fd00:10::40/122", "fd00-10-0-0-0-0-0-40-122"),
        ] {
            let cidr: IpNet = cidr.parse().unwrap();
            assert_eq!(name(cidr), wanted);
            assert_eq!(cidr_of_name(wanted), Some(cidr));
        }
        for wrong in [
            "",
            "10-244-1-64",
            "10-244-1-65-26",
            "10-244-1-064-26",
            "fd00-10-0-0-0-0-0-40-129",
            "FD00-10-0-0-0-0-0-40-122",
        ] {
            assert_eq!(cidr_of_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let block = IpamBlock::new("10.244.1.64/26".parse().unwrap(), "worker-1");
        let text = serde_json::to_string(&block).unwrap();
        assert_eq!(IpamBlock::parse(&text), Ok(block));
        let yaml = "apiVersion: margay.dev/v1alpha1\nkind: IPAMBlock\nmetadata: {name: 10-244-1-64-26}\n\
                    spec: {cidr: 10.244.1.0/26, node: worker-1}\n";
        let error = IpamBlock::parse(yaml).unwrap_err();
        assert!(error.contains("10-244-1-0-26"), "{error}");
        for wrong in ["", "[]", "kind: IPAMBlock", "\0"] {
            assert!(IpamBlock::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
