//! AS_PATH (RFC 4271 §4.3, §5.1.2; confederation segments RFC 5065).

use std::fmt;

use crate::cursor::Cursor;
use crate::{AS_TRANS, Asn};

/// Most numbers that a segment holds: its length is one octet.
const MAX_SEGMENT: usize = 255;

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

impl SegmentKind {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfedSequence => 3,
            Self::ConfedSet => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Set,
            2 => Self::Sequence,
            3 => Self::ConfedSequence,
            4 => Self::ConfedSet,
            _ => return None,
        })
    }

    /// Whether it is one of RFC 5065, which never leave a confederation.
    #[must_use]
    pub fn is_confederation(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }

    /// Whether it is a set, which RFC 9774 forbids.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::Set | Self::ConfedSet)
    }
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
        Self {
            segments: vec![Segment {
                kind: SegmentKind::Sequence,
                asns,
            }],
        }
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

    /// All numbers, most recent first, whatever the segment.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments
            .iter()
            .flat_map(|segment| segment.asns.iter().copied())
    }

    /// Whether the number is anywhere in the path: the loop check (RFC 4271 §9.1.2).
    #[must_use]
    pub fn contains(&self, asn: Asn) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.asns.contains(&asn))
    }

    /// The neighbouring AS: the first number, if a sequence comes first (RFC 4271 §6.3, §9.1.2.2 c). Confederation
    /// segments are passed over.
    #[must_use]
    pub fn neighbor(&self) -> Option<Asn> {
        let first = self
            .segments
            .iter()
            .find(|segment| !segment.kind.is_confederation())?;
        if first.kind == SegmentKind::Sequence {
            first.asns.first().copied()
        } else {
            None
        }
    }

    /// The AS that the route started in: the last number, if a sequence comes last.
    #[must_use]
    pub fn origin(&self) -> Option<Asn> {
        let last = self.segments.last()?;
        if last.kind == SegmentKind::Sequence {
            last.asns.last().copied()
        } else {
            None
        }
    }

    /// Puts a number in front, `count` times: into the first segment where that is a sequence with room, else into a
    /// new one (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: Asn, count: usize) {
        if count == 0 {
            return;
        }
        match self.segments.first_mut() {
            Some(Segment {
                kind: SegmentKind::Sequence,
                asns,
            }) if asns.len() + count <= MAX_SEGMENT => {
                asns.splice(..0, std::iter::repeat_n(asn, count));
            }
            _ => {
                let first = count.min(MAX_SEGMENT);
                self.segments.insert(
                    0,
                    Segment {
                        kind: SegmentKind::Sequence,
                        asns: vec![asn; first],
                    },
                );
                self.prepend(asn, count - first);
            }
        }
    }

    /// Reads the value of an AS_PATH or AS4_PATH with numbers of `width` octets, 2 or 4. The error says what is
    /// wrong: RFC 7606 §7.2, and where `accept` does not have them, RFC 7607, RFC 9774 and RFC 5065 §5.
    pub(crate) fn decode(value: &[u8], width: usize, accept: Accept) -> Result<Self, &'static str> {
        let mut segments = Vec::with_capacity(count_segments(value, width));
        let mut cursor = Cursor::new(value);
        while let Some(code) = cursor.u8() {
            let kind = SegmentKind::from_code(code).ok_or("unknown segment type")?;
            let count = usize::from(cursor.u8().ok_or("truncated segment")?);
            if count == 0 {
                return Err("segment of length 0");
            }
            let asns = cursor
                .take(count * width)
                .ok_or("segment overruns the attribute")?;
            if kind.is_set() && !accept.sets {
                return Err("has an AS_SET or AS_CONFED_SET (RFC 9774)");
            }
            if kind.is_confederation() && !accept.confederations {
                return Err("has a confederation segment from outside (RFC 5065)");
            }
            let asns: Vec<Asn> = if width == 2 {
                asns.as_chunks()
                    .0
                    .iter()
                    .map(|asn| u16::from_be_bytes(*asn).into())
                    .collect()
            } else {
                asns.as_chunks()
                    .0
                    .iter()
                    .map(|asn| u32::from_be_bytes(*asn))
                    .collect()
            };
            if !accept.zero && asns.contains(&0) {
                return Err("has AS 0 (RFC 7607)");
            }
            segments.push(Segment { kind, asns });
        }
        Ok(Self { segments })
    }

    /// How long the value is with `width` octets a number.
    pub(crate) fn encoded_len(&self, width: usize) -> usize {
        self.segments
            .iter()
            .map(|segment| {
                2 * segment.asns.len().div_ceil(MAX_SEGMENT) + width * segment.asns.len()
            })
            .sum()
    }

    /// Writes the value with four octets a number.
    pub(crate) fn encode4(&self, out: &mut Vec<u8>) {
        self.encode(out, |asn| asn.to_be_bytes());
    }

    /// Writes the value with two octets a number: AS_TRANS stands for those that need four (RFC 6793 §4.2.2).
    pub(crate) fn encode2(&self, out: &mut Vec<u8>) {
        self.encode(out, |asn| {
            u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes()
        });
    }

    /// Writes segments as the wire allows them: none that is empty, none of more than 255 numbers.
    fn encode<const N: usize>(&self, out: &mut Vec<u8>, bytes: impl Fn(Asn) -> [u8; N]) {
        for segment in &self.segments {
            for asns in segment.asns.chunks(MAX_SEGMENT) {
                let len = u8::try_from(asns.len()).unwrap_or(u8::MAX);
                out.extend_from_slice(&[segment.kind.code(), len]);
                out.extend(asns.iter().flat_map(|asn| bytes(*asn)));
            }
        }
    }

    /// What an AS4_PATH has to say beside a two-octet AS_PATH: the path without confederation segments, if it has a
    /// number that two octets don't hold (RFC 6793 §4.2.2).
    pub(crate) fn as4_path(&self) -> Option<Self> {
        if self.asns().all(|asn| asn <= u32::from(u16::MAX)) {
            return None;
        }
        let path = self.without_confederations();
        if path.is_empty() { None } else { Some(path) }
    }

    pub(crate) fn without_confederations(&self) -> Self {
        let segments = self
            .segments
            .iter()
            .filter(|segment| !segment.kind.is_confederation())
            .cloned()
            .collect();
        Self { segments }
    }

    /// This two-octet path with the numbers that `as4_path` knows in full: the leading numbers that only we have, then
    /// `as4_path`. Where that is the longer path it is ignored (RFC 6793 §4.2.3).
    pub(crate) fn merge(self, as4_path: Self) -> Self {
        let Some(mut leading) = self.len().checked_sub(as4_path.len()) else {
            return self;
        };
        let mut segments = Vec::new();
        for mut segment in self.segments {
            // Confederation segments count nothing: they come along in front of, and right behind, what is kept.
            match segment.kind {
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => {}
                _ if leading == 0 => break,
                SegmentKind::Set => leading -= 1,
                SegmentKind::Sequence => {
                    segment.asns.truncate(leading);
                    leading -= segment.asns.len();
                }
            }
            segments.push(segment);
        }
        for segment in as4_path.segments {
            match (segments.last_mut(), segment.kind) {
                (
                    Some(Segment {
                        kind: SegmentKind::Sequence,
                        asns,
                    }),
                    SegmentKind::Sequence,
                ) if asns.len() + segment.asns.len() <= MAX_SEGMENT => {
                    asns.extend(segment.asns);
                }
                _ => segments.push(segment),
            }
        }
        Self { segments }
    }
}

/// As operators write it: `64512 64513 {1 2} (65001 65002) [65003]`, sets in braces, confederation sequences in
/// parentheses, confederation sets in brackets.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            write!(f, "{}{open}", if index == 0 { "" } else { " " })?;
            for (index, asn) in segment.asns.iter().enumerate() {
                write!(f, "{}{asn}", if index == 0 { "" } else { " " })?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

/// What a path may contain beyond plain sequences of non-zero numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accept {
    pub(crate) sets: bool,
    pub(crate) confederations: bool,
    pub(crate) zero: bool,
}

/// How many whole segments there are, so that their vector is allocated once and fits.
fn count_segments(value: &[u8], width: usize) -> usize {
    let mut count = 0;
    let mut cursor = Cursor::new(value);
    while cursor.u8().is_some() {
        let taken = cursor
            .u8()
            .and_then(|len| cursor.take(usize::from(len) * width));
        if taken.is_none() {
            break;
        }
        count += 1;
    }
    count
}
