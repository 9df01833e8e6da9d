//! What the API server is told of the values that fields hold: OpenAPI types, and rules in CEL (Kubernetes 1.31 and later,
//! whose libraries know addresses) for what parses, with the words that a wrong value is refused with.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{AsNumber, PeerAddress, Selector, Written};

/// A field that holds a prefix.
#[derive(Debug)]
pub struct Cidr;

/// A field that holds a duration.
#[derive(Debug)]
pub struct Duration;

/// Describes a value under its type's name.
macro_rules! schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(Cidr, "Cidr", {
    "type": "string",
    "maxLength": 43,
    "x-kubernetes-validations": [
        {
            "rule": "isCIDR(self)",
            "messageExpression": "'`' + self + '` is not a CIDR: write one as in `10.244.0.0/16`'",
        },
        {
            "rule": "!isCIDR(self) || cidr(self) == cidr(self).masked()",
            "messageExpression": "'`' + self + '` has bits set beyond its prefix length: write the first address of the range'",
        },
    ],
});

schema!(Duration, "Duration", {
    "type": "string",
    "maxLength": 32,
    "x-kubernetes-validations": [{
        "rule": "self.matches('^([0-9]{1,9}[hms])+$')",
        "messageExpression": "'`' + self + '` is not a duration of whole seconds: write it as in `90s`, `1m30s` or `2h`'",
    }],
});

schema!(AsNumber, "AsNumber", {
    "x-kubernetes-int-or-string": true,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 11,
    "x-kubernetes-validations": [
        {
            "rule": "type(self) == int || self.matches('^[0-9]{1,10}$') || self.matches('^[0-9]{1,5}[.][0-9]{1,5}$')",
            "message": "not an AS number: write 1 to 4294967294, or dotted as in \"1.10\"",
        },
        {
            "rule": "type(self) != int || (self > 0 && self < 4294967295)",
            "message": "an AS number is 1 to 4294967294: 0 (RFC 7607) and 4294967295 (RFC 7300) are reserved",
        },
        {
            "rule": "type(self) != int || (self != 23456 && self != 65535)",
            "message": "AS 23456 (AS_TRANS, RFC 6793) and AS 65535 (RFC 7300) are reserved: write another number",
        },
    ],
});

schema!(PeerAddress, "PeerAddress", {
    "type": "string",
    "maxLength": 64,
    "x-kubernetes-validations": [
        {
            "rule": "isIP(self) || (self.matches('^[0-9.]+:[1-9][0-9]{0,4}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) < 65536) || (self.matches('^[\\\\[][^\\\\]]+[\\\\]]:[1-9][0-9]{0,4}$') && isIP(self.substring(1, self.indexOf(']'))) && int(self.substring(self.indexOf(']') + 2)) < 65536)",
            "messageExpression": "'`' + self + '` is not an address: write `192.0.2.1`, `192.0.2.1:1179` or `[2001:db8::1]:1179`'",
        },
        {
            "rule": "!isIP(self) || !(ip(self).isLoopback() || ip(self).isUnspecified() || ip(self).isLinkLocalMulticast())",
            "messageExpression": "'`' + self + \"` can't be a peer's address\"",
        },
    ],
});

schema!(Selector, "Selector", {"type": "string", "maxLength": 4096});

/// What parses is for the agent to say: patterns have no counterpart in CEL.
impl<T> JsonSchema for Written<T> {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Written")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": 1024})
    }
}
