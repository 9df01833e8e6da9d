//! The expressions that our rules are made of (`linux/netfilter/nf_tables.h`): each loads, compares or decides.

use super::encode::Attributes;

/// `NFT_REG_1`: sixteen octets, enough for an IPv6 address or a name.
const REGISTER: u32 = 1;
/// `NFTA_LIST_ELEM`.
const ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`.
const VALUE: u16 = 1;

/// Keys of the meta expression.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    /// `NFT_META_IIFNAME`.
    InputName = 6,
    /// `NFT_META_OIFNAME`.
    OutputName = 7,
    /// `NFT_META_NFPROTO`: one octet, `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    Family = 15,
    /// `NFT_META_L4PROTO`: one octet.
    Transport = 16,
}

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    /// `NFT_CMP_EQ`.
    Equal = 0,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict<'a> {
    /// `NF_DROP`.
    Drop,
    /// `NF_ACCEPT`.
    Accept,
    /// `NFT_JUMP`.
    Jump(&'a str),
}

/// The expressions of one rule.
#[derive(Debug)]
pub(super) struct Rule<'a, 'b>(pub(super) &'a mut Attributes<'b>);

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nested(ELEMENT, |expression| {
            expression.text(1, name);
            expression.nested(2, data);
        });
        self
    }

    /// Loads what the kernel knows of the packet.
    pub(super) fn meta(&mut self, key: Meta) -> &mut Self {
        self.expression("meta", |data| {
            data.number(1, REGISTER);
            data.number(2, key as u32);
        })
    }

    /// Goes on if what was loaded is (or starts with) these octets.
    pub(super) fn compare(&mut self, how: Compare, value: &[u8]) -> &mut Self {
        self.expression("cmp", |data| {
            data.number(1, REGISTER);
            data.number(2, how as u32);
            data.nested(3, |inner| inner.octets(VALUE, value));
        })
    }

    /// Loads octets of the network header (`NFT_PAYLOAD_NETWORK_HEADER`).
    pub(super) fn network_header(&mut self, offset: u32, length: u32) -> &mut Self {
        self.payload(1, offset, length)
    }

    /// Loads octets of the transport header (`NFT_PAYLOAD_TRANSPORT_HEADER`).
    pub(super) fn transport_header(&mut self, offset: u32, length: u32) -> &mut Self {
        self.payload(2, offset, length)
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |data| {
            data.number(1, REGISTER);
            data.number(2, base);
            data.number(3, offset);
            data.number(4, length);
        })
    }

    /// Goes on if what was loaded is in the set, or is not.
    pub(super) fn lookup(&mut self, set: &str, inside: bool) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, set);
            data.number(2, REGISTER);
            if !inside {
                // NFT_LOOKUP_F_INV.
                data.number(5, 1);
            }
        })
    }

    /// Loads the interface that the kernel would send to the packet's source by, if that is where it came in; else zero
    /// (`NFT_FIB_RESULT_OIF`; `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF`).
    pub(super) fn reverse_path(&mut self) -> &mut Self {
        self.expression("fib", |data| {
            data.number(1, REGISTER);
            data.number(2, 1);
            data.number(3, 1 | 8);
        })
    }

    /// Counts packets and octets.
    pub(super) fn count(&mut self) -> &mut Self {
        self.expression("counter", |data| {
            data.octets(1, &[0; 8]);
            data.octets(2, &[0; 8]);
        })
    }

    /// Replaces the source by the address of the interface that the packet leaves by, and its port by a random one
    /// (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`): else two flows can race for one.
    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |data| data.number(1, 1 << 4))
    }

    /// Drops the packet and tells its sender so: ICMP(v6) destination unreachable, administratively prohibited
    /// (`NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`).
    pub(super) fn reject(&mut self) -> &mut Self {
        self.expression("reject", |data| {
            data.number(1, 2);
            data.octets(2, &[3]);
        })
    }

    /// Decides.
    pub(super) fn verdict(&mut self, verdict: Verdict<'_>) -> &mut Self {
        self.expression("immediate", |data| {
            // NFT_REG_VERDICT.
            data.number(1, 0);
            data.nested(2, |inner| {
                inner.nested(2, |inner| match verdict {
                    Verdict::Drop => inner.number(1, 0),
                    Verdict::Accept => inner.number(1, 1),
                    Verdict::Jump(chain) => {
                        // -3, as the kernel writes it.
                        inner.number(1, u32::MAX - 2);
                        inner.text(2, chain);
                    }
                });
            });
        })
    }
}
