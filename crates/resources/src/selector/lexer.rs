//! A selector's text to tokens.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while1};
use nom::character::complete::{char, multispace0};
use nom::combinator::value;
use nom::sequence::delimited;
use nom::{IResult, Parser};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Equal,
    NotEqual,
    Not,
    And,
    Or,
    Comma,
    Open,
    Close,
    OpenBrace,
    CloseBrace,
}

/// A token and the byte that it starts at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) token: Token<'a>,
    pub(super) offset: usize,
}

/// All tokens, or the offset of what is none.
pub(super) fn tokens(text: &str) -> Result<Vec<Spot<'_>>, usize> {
    let mut spots = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let offset = text.len() - rest.len();
        let (after, token) = token(rest).map_err(|_| offset)?;
        spots.push(Spot { token, offset });
        rest = after;
    }
    Ok(spots)
}

fn token(input: &str) -> IResult<&str, Token<'_>> {
    let quoted = alt((
        delimited(char('\''), take_till(|c| c == '\''), char('\'')),
        delimited(char('"'), take_till(|c| c == '"'), char('"')),
    ));
    let symbol = alt((
        value(Token::Equal, tag("==")),
        value(Token::Equal, tag("=")),
        value(Token::NotEqual, tag("!=")),
        value(Token::Not, tag("!")),
        value(Token::And, tag("&&")),
        value(Token::Or, tag("||")),
        value(Token::Comma, tag(",")),
        value(Token::Open, tag("(")),
        value(Token::Close, tag(")")),
        value(Token::OpenBrace, tag("{")),
        value(Token::CloseBrace, tag("}")),
    ));
    let word = take_while1(|c: char| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let (rest, token) =
        alt((symbol, quoted.map(Token::Quoted), word.map(Token::Word))).parse(input)?;
    let (rest, _) = multispace0(rest)?;
    Ok((rest, token))
}
