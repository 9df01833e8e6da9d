//! AS_PATH (RFC 4271 §4.3, §5.1.2; confederation segments RFC 5065).

use crate::Asn;

/// Which kind of segment: its code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// AS_SET, 1.
    Set,
    /// AS_SEQUENCE, 2.
    Sequence,
    /// AS_CONFED_SEQUENCE, 3.
    ConfedSequence,
    /// AS_CONFED_SET, 4.
    ConfedSet,
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Its kind.
    pub kind: SegmentKind,
    /// Its numbers, most recent first, at most 255.
    pub asns: Vec<Asn>,
}

/// The ASes a route came through, most recent first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    /// Its segments, in the order of the wire. Empty for a route of our own AS.
    pub segments: Vec<Segment>,
}

impl AsPath {
    /// A path of one AS_SEQUENCE.
    #[must_use]
    pub fn sequence(asns: impl Into<Vec<Asn>>) -> Self {
        let asns = asns.into();
        if asns.is_empty() {
            return Self::default();
        }
        Self { segments: vec![Segment { kind: SegmentKind::Sequence, asns }] }
    }

    /// How long the decision process takes it to be: a set counts one, confederation segments none
    /// (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3).
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// Whether the path has no segment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}
