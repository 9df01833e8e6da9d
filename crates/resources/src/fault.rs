//! One thing wrong with one field, and words that help to mend it.

use std::fmt;

use serde::de;

/// Fields of Calico's kinds that have no counterpart here: whoever ports a file should read more than "unknown".
const CALICO_FIELDS: &[&str] = &[
    "ignoredInterfaces",
    "interface",
    "localWorkloadPeeringIPV4",
    "localWorkloadPeeringIPV6",
    "localWorkloadSelector",
    "logSeverityScreen",
    "programClusterRoutes",
];

/// What is wrong with one field. Also serde's error while a tree becomes a typed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Path of the field, outermost first: `spec`, `[0]`, `cidr`.
    pub(crate) path: Vec<String>,
    /// Line in the document, from 1; 0 while unknown.
    pub(crate) line: u32,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

impl Fault {
    /// A fault of the field at `path`, written as `spec.importV4[0].cidr`.
    pub(crate) fn at(path: &str, message: impl Into<String>) -> Self {
        let spaced = path.replace('[', ".[");
        let path = spaced
            .split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        Self {
            path,
            line: 0,
            message: message.into(),
        }
    }

    /// The same fault, seen from one level further out.
    pub(crate) fn inside(mut self, segment: &str, line: u32) -> Self {
        self.path.insert(0, segment.to_owned());
        self.on_line(line)
    }

    /// The same fault, one level further in.
    pub(crate) fn below(mut self, segment: &str) -> Self {
        self.path.push(segment.to_owned());
        self
    }

    /// The same fault, on this line unless a better one is known.
    pub(crate) fn on_line(mut self, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    /// The path in one piece.
    pub(crate) fn field(&self) -> String {
        let mut field = String::new();
        for segment in &self.path {
            if !field.is_empty() && !segment.starts_with('[') {
                field.push('.');
            }
            field.push_str(segment);
        }
        field
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            line: 0,
            message: message.to_string(),
        }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let wanted = match expected.as_str() {
            "a boolean" => "`true` or `false`",
            "a sequence" => "a list",
            "a string" => "text",
            "u8" => "a number from 0 to 255",
            "u16" => "a number from 0 to 65535",
            other if other.starts_with("struct") => "a mapping of fields",
            other => other,
        };
        let mut message = format!("{} is not {wanted}", describe(found));
        if let (
            de::Unexpected::Signed(_) | de::Unexpected::Unsigned(_) | de::Unexpected::Bool(_),
            "a string",
        ) = (found, expected.as_str())
        {
            message = format!("{} must be text here: put it in quotes", describe(found));
        }
        Self::custom(message)
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = match (variant, expected) {
            ("Always" | "CrossSubnet", ["Never"]) => {
                "; there is no VXLAN here: write `Never`, and `ipipMode` for tunnels, or remove the field"
            }
            ("LoadBalancer", ["Workload", "Tunnel"]) => {
                "; Services have their addresses from elsewhere: write `Workload`"
            }
            _ => "",
        };
        if !hint.is_empty() {
            return Self::custom(format!("`{variant}` can't be had{hint}"));
        }
        Self::custom(format!(
            "`{variant}` is unknown{}",
            instead(variant, expected)
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        if field == "interface" {
            return Self::custom(
                "Calico's `interface` has no effect in Margay, which reads no routes from interfaces: write `source`, `cidr` or `nextHop`",
            );
        }
        if CALICO_FIELDS.contains(&field) {
            return Self::custom(format!(
                "Calico's `{field}` has no effect in Margay: remove it"
            ));
        }
        Self::custom(format!("no such field{}", instead(field, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is missing"))
    }
}

/// What to write instead of `wrong`: the nearest candidate, or all of them.
pub(crate) fn instead(wrong: &str, candidates: &[&str]) -> String {
    match nearest(wrong, candidates) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None if candidates.is_empty() => String::new(),
        None => {
            let list: Vec<String> = candidates
                .iter()
                .map(|candidate| format!("`{candidate}`"))
                .collect();
            format!("; it may be {}", list.join(", "))
        }
    }
}

/// The candidate that a typing slip would turn into `wrong`.
fn nearest<'a>(wrong: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}

fn describe(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Bool(value) => format!("`{value}`"),
        de::Unexpected::Unsigned(value) => format!("`{value}`"),
        de::Unexpected::Signed(value) => format!("`{value}`"),
        de::Unexpected::Float(value) => format!("`{value}`"),
        de::Unexpected::Str(value) => format!("`{value}`"),
        de::Unexpected::Unit => "an empty value".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a mapping".to_owned(),
        de::Unexpected::Char(_)
        | de::Unexpected::Bytes(_)
        | de::Unexpected::Option
        | de::Unexpected::NewtypeStruct
        | de::Unexpected::Enum
        | de::Unexpected::UnitVariant
        | de::Unexpected::NewtypeVariant
        | de::Unexpected::TupleVariant
        | de::Unexpected::StructVariant
        | de::Unexpected::Other(_) => found.to_string(),
    }
}
