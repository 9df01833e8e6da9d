//! Label selectors: Kubernetes' syntax (`rack=a,zone in (x,y),!spot`) and Calico's (`rack == 'a' && has(zone)`), which
//! one grammar covers:
//!
//! ```text
//! any   := every { "||" every }
//! every := unit { ("&&" | ",") unit }
//! unit  := "!" unit | "(" any ")" | "all()" | "global()" | "has(" key ")" | key [ test ]
//! test  := ("=" | "==" | "!=") value | ["not"] "in" set | "notin" set
//!        | "contains" value | "starts with" value | "ends with" value
//! set   := ("(" | "{") [ value { "," value } ] (")" | "}")
//! ```
//!
//! As in both, `!=` and `not in` also match where the label is absent. An empty selector matches everything.

mod lexer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use lexer::{Spot, Token};

/// A label selector, as written and as parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    expression: Expression,
}

/// Why a selector can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {message} at column {column}")]
pub struct SelectorError {
    text: String,
    column: usize,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All,
    Has(String),
    Compare(String, Test),
    Not(Box<Self>),
    Every(Vec<Self>),
    Any(Vec<Self>),
}

/// What a label's value has to be. All of them fail where the label is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
}

impl Selector {
    /// Whether these labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Compare(key, test) => labels.get(key).is_some_and(|value| test.matches(value)),
            Self::Not(inner) => !inner.matches(labels),
            Self::Every(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

impl Test {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::In(values) => values.iter().any(|candidate| candidate == value),
            Self::Contains(part) => value.contains(part.as_str()),
            Self::StartsWith(start) => value.starts_with(start.as_str()),
            Self::EndsWith(end) => value.ends_with(end.as_str()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let fail = |offset: usize, message| {
            let column = text.get(..offset).unwrap_or(text).chars().count() + 1;
            SelectorError {
                text: text.to_owned(),
                column,
                message,
            }
        };
        let tokens = lexer::tokens(text).map_err(|offset| {
            fail(
                offset,
                "a character that no selector has, or a quote that isn't closed".to_owned(),
            )
        })?;
        let mut parser = Parser {
            tokens: &tokens,
            next: 0,
            end: text.len(),
            depth: 0,
        };
        let expression = match tokens.is_empty() {
            true => Expression::All,
            false => parser
                .any()
                .and_then(|expression| parser.finish(expression))
                .map_err(|e| fail(e.0, e.1))?,
        };
        Ok(Self {
            text: text.to_owned(),
            expression,
        })
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Deeper nesting than anybody writes, and less than a stack holds.
const MAX_DEPTH: usize = 64;

/// Byte offset and what is wrong there.
type Wrong = (usize, String);

struct Parser<'a> {
    tokens: &'a [Spot<'a>],
    next: usize,
    end: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, Wrong> {
        let mut parts = vec![self.every()?];
        while self.take(Token::Or) {
            parts.push(self.every()?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn every(&mut self) -> Result<Expression, Wrong> {
        let mut parts = vec![self.unit()?];
        while self.take(Token::And) || self.take(Token::Comma) {
            parts.push(self.unit()?);
        }
        Ok(one_or(parts, Expression::Every))
    }

    fn unit(&mut self) -> Result<Expression, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        let expression = if self.take(Token::Not) {
            Expression::Not(Box::new(self.unit()?))
        } else if self.take(Token::Open) {
            let inner = self.any()?;
            self.expect(Token::Close, "`)`")?;
            inner
        } else {
            self.key()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// `all()`, `has(key)`, `key`, or a key with a test.
    fn key(&mut self) -> Result<Expression, Wrong> {
        let key = self.word("a label's name")?;
        if matches!(key, "all" | "global" | "has") && self.take(Token::Open) {
            let expression = match key {
                "has" => Expression::Has(self.word("a label's name")?.to_owned()),
                _ => Expression::All,
            };
            self.expect(Token::Close, "`)`")?;
            return Ok(expression);
        }
        let key = key.to_owned();
        let (test, wanted) = match self.peek() {
            Some(Token::Equal) => (self.after(1).equals()?, true),
            Some(Token::NotEqual) => (self.after(1).equals()?, false),
            Some(Token::Word("in")) => (self.after(1).set()?, true),
            Some(Token::Word("notin")) => (self.after(1).set()?, false),
            Some(Token::Word("not")) if self.word_at(1) == Some("in") => {
                (self.after(2).set()?, false)
            }
            Some(Token::Word("contains")) => (Test::Contains(self.after(1).value()?), true),
            Some(Token::Word("starts")) if self.word_at(1) == Some("with") => {
                (Test::StartsWith(self.after(2).value()?), true)
            }
            Some(Token::Word("ends")) if self.word_at(1) == Some("with") => {
                (Test::EndsWith(self.after(2).value()?), true)
            }
            Some(Token::Word(_) | Token::Quoted(_) | Token::Open | Token::OpenBrace) => {
                return Err(
                    self.wrong("expected an operator: `=`, `!=`, `in`, `notin`, `&&`, `||` or `,`")
                );
            }
            _ => return Ok(Expression::Has(key)),
        };
        let compare = Expression::Compare(key, test);
        Ok(if wanted {
            compare
        } else {
            Expression::Not(Box::new(compare))
        })
    }

    /// The one value of `=` and `!=`. In Kubernetes' syntax it may be empty: `key=`.
    fn equals(&mut self) -> Result<Test, Wrong> {
        Ok(Test::In(vec![match self.peek() {
            None | Some(Token::Comma | Token::Close) => String::new(),
            _ => self.value()?,
        }]))
    }

    fn set(&mut self) -> Result<Test, Wrong> {
        let close = match self.peek() {
            Some(Token::Open) => Token::Close,
            Some(Token::OpenBrace) => Token::CloseBrace,
            _ => {
                return Err(
                    self.wrong("expected values in brackets, as in `(a, b)` or `{'a', 'b'}`")
                );
            }
        };
        self.next += 1;
        let mut values = Vec::new();
        if self.take(close) {
            return Ok(Test::In(values));
        }
        loop {
            values.push(self.value()?);
            if !self.take(Token::Comma) {
                break;
            }
        }
        self.expect(close, "`,` or the closing bracket")?;
        Ok(Test::In(values))
    }

    fn value(&mut self) -> Result<String, Wrong> {
        match self.peek() {
            Some(Token::Word(value) | Token::Quoted(value)) => {
                self.next += 1;
                Ok(value.to_owned())
            }
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn word(&mut self, what: &str) -> Result<&'a str, Wrong> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.wrong(&format!("expected {what}"))),
        }
    }

    fn expect(&mut self, token: Token<'_>, what: &str) -> Result<(), Wrong> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.wrong(&format!("expected {what}")))
        }
    }

    fn finish(&self, expression: Expression) -> Result<Expression, Wrong> {
        match self.peek() {
            None => Ok(expression),
            Some(_) => Err(self.wrong("expected `&&`, `||`, `,` or the end")),
        }
    }

    fn take(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn after(&mut self, count: usize) -> &mut Self {
        self.next += count;
        self
    }

    fn word_at(&self, ahead: usize) -> Option<&'a str> {
        let Token::Word(word) = self.tokens.get(self.next + ahead)?.token else {
            return None;
        };
        Some(word)
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).map(|spot| spot.token)
    }

    fn wrong(&self, message: &str) -> Wrong {
        (
            self.tokens
                .get(self.next)
                .map_or(self.end, |spot| spot.offset),
            message.to_owned(),
        )
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}
