//! Versions of the CNI specification.

use api::cni::code;

use crate::error::CniError;

/// What we speak, oldest first.
pub(crate) const SUPPORTED: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// The last of [`SUPPORTED`].
pub(crate) const LATEST: &str = SUPPORTED[SUPPORTED.len() - 1];

/// One of [`SUPPORTED`]; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpecVersion(usize);

impl SpecVersion {
    pub(crate) const V0_3_0: Self = Self(2);
    pub(crate) const V0_4_0: Self = Self(4);
    pub(crate) const V1_0_0: Self = Self(5);
    pub(crate) const V1_1_0: Self = Self(6);

    /// A configuration's `cniVersion`; the reference library takes its absence for 0.1.0.
    pub(crate) fn of_config(text: Option<&str>) -> Result<Self, CniError> {
        let text = text.unwrap_or(SUPPORTED[0]);
        SUPPORTED
            .iter()
            .position(|version| *version == text)
            .map(Self)
            .ok_or_else(|| {
                CniError::new(
                    code::INCOMPATIBLE_VERSION,
                    format_args!("cniVersion {text:?} is not supported"),
                )
                .details(format_args!("supported are {}", SUPPORTED.join(", ")))
            })
    }

    pub(crate) fn text(self) -> &'static str {
        SUPPORTED[self.0]
    }

    /// Refuses a verb that the configuration's version does not have yet.
    pub(crate) fn require(self, verb: &str, since: Self) -> Result<(), CniError> {
        if self >= since {
            return Ok(());
        }
        let (ours, since) = (self.text(), since.text());
        Err(CniError::new(
            code::INCOMPATIBLE_VERSION,
            format_args!("{verb} needs cniVersion {since}, the configuration has {ours}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_what_they_say() {
        let named = [
            SpecVersion::V0_3_0,
            SpecVersion::V0_4_0,
            SpecVersion::V1_0_0,
            SpecVersion::V1_1_0,
        ];
        assert_eq!(
            named.map(SpecVersion::text),
            ["0.3.0", "0.4.0", "1.0.0", "1.1.0"]
        );
    }
}
