//! Patterns over AS paths.

use std::fmt;
use std::str::FromStr;

use super::{PatternError, Span};
use crate::{AsPath, Asn};

/// More terms than that do not fit the matcher's word.
const MAX_TERMS: usize = 63;

/// A pattern over a whole AS path, most recent AS first, in terms with spaces between:
///
/// | term | stands for |
/// | --- | --- |
/// | `64512` or `1.10` | that AS |
/// | `64512-65534` | one AS of the range |
/// | `.` | one AS, any |
/// | `[64512 65001-65009]` | one AS of the list |
/// | `[^64512]` | one AS that is not of the list |
///
/// and behind a term `?` (at most once), `*` (any number of times, none included) or `+` (at least once). So `.* 65001`
/// is every path that ends in AS 65001, and `65001+` one of nothing but that AS. The empty pattern is the empty path.
/// An AS_SET counts as its numbers in the order in which they stand.
///
/// There is no alternative and no group, and all of the path has to match: no pattern takes more than one step for
/// each AS of the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsPathPattern {
    terms: Vec<Term>,
    /// The terms, by bit, that may be passed over, and those that may match again.
    skip: u64,
    again: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Term {
    spans: Vec<Span<Asn>>,
    inverted: bool,
}

impl Term {
    fn holds(&self, asn: Asn) -> bool {
        self.spans.iter().any(|span| span.holds(asn)) != self.inverted
    }
}

impl AsPathPattern {
    /// Whether the whole path matches.
    #[must_use]
    pub fn matches(&self, path: &AsPath) -> bool {
        // Bit n: the terms before n have matched what was read.
        let mut states = self.close(1);
        for asn in path.asns() {
            let mut next = 0;
            for (at, term) in self.terms.iter().enumerate() {
                let bit = 1_u64 << at;
                if states & bit != 0 && term.holds(asn) {
                    next |= if self.again & bit != 0 { bit } else { bit << 1 };
                }
            }
            states = self.close(next);
            if states == 0 {
                return false;
            }
        }
        states >> self.terms.len() & 1 == 1
    }

    /// These states, and those that are reached by passing terms over.
    fn close(&self, mut states: u64) -> u64 {
        for at in 0..self.terms.len() {
            let bit = 1 << at;
            if states & bit != 0 && self.skip & bit != 0 {
                states |= bit << 1;
            }
        }
        states
    }

    fn push(&mut self, term: Term, skip: bool, again: bool) {
        let bit = 1 << self.terms.len();
        self.skip |= if skip { bit } else { 0 };
        self.again |= if again { bit } else { 0 };
        self.terms.push(term);
    }
}

impl FromStr for AsPathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut pattern = Self {
            terms: Vec::new(),
            skip: 0,
            again: 0,
        };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            // A list has spaces inside.
            let inside = match rest.starts_with('[') {
                true => rest
                    .find(']')
                    .ok_or_else(|| PatternError(format!("`{rest}` lacks its `]`")))?,
                false => 0,
            };
            let end = rest[inside..]
                .find(char::is_whitespace)
                .map_or(rest.len(), |end| inside + end);
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            let (atom, quantifier) = match word.strip_suffix(['?', '*', '+']) {
                Some(atom) => (atom, &word[atom.len()..]),
                None => (word, ""),
            };
            let term = term(atom)?;
            match quantifier {
                "?" => pattern.push(term, true, false),
                "*" => pattern.push(term, true, true),
                "+" => {
                    pattern.push(term.clone(), false, false);
                    pattern.push(term, true, true);
                }
                _ => pattern.push(term, false, false),
            }
            if pattern.terms.len() > MAX_TERMS {
                return Err(PatternError(format!(
                    "longer than {MAX_TERMS} terms, where one with `+` counts twice"
                )));
            }
        }
        Ok(pattern)
    }
}

fn term(atom: &str) -> Result<Term, PatternError> {
    let (list, inverted) = if atom == "." {
        return Ok(Term {
            spans: Vec::new(),
            inverted: true,
        });
    } else if let Some(list) = atom.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        match list.strip_prefix('^') {
            Some(list) => (list, true),
            None => (list, false),
        }
    } else {
        (atom, false)
    };
    let spans: Vec<_> = list
        .split_whitespace()
        .map(|item| span(item).ok_or_else(|| wrong(item)))
        .collect::<Result<_, _>>()?;
    if spans.is_empty() {
        return Err(wrong(atom));
    }
    Ok(Term { spans, inverted })
}

fn span(item: &str) -> Option<Span<Asn>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (asn(first)?, asn(last)?);
    (first <= last).then_some(Span { first, last })
}

/// A number, or dotted (RFC 5396).
fn asn(text: &str) -> Option<Asn> {
    match text.split_once('.') {
        None => super::number(text),
        Some((high, low)) => {
            let (high, low): (u16, u16) = (super::number(high)?, super::number(low)?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
    }
}

fn wrong(part: &str) -> PatternError {
    PatternError(format!(
        "`{part}` is not a term: write AS numbers with spaces between, as in `64512 64513-64520 .* [65001 65002]+`; \
         the pattern is over the whole path"
    ))
}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " " })?;
            match (term.spans.as_slice(), term.inverted) {
                ([], _) => f.write_str(".")?,
                ([span], false) => span.fmt(f)?,
                (spans, inverted) => {
                    f.write_str(if inverted { "[^" } else { "[" })?;
                    for (index, span) in spans.iter().enumerate() {
                        write!(f, "{}{span}", if index == 0 { "" } else { " " })?;
                    }
                    f.write_str("]")?;
                }
            }
            f.write_str(match (self.skip >> at & 1, self.again >> at & 1) {
                (1, 1) => "*",
                (1, _) => "?",
                _ => "",
            })?;
        }
        Ok(())
    }
}
