//! The codec from outside: what an owner of a socket would see.
#![expect(
    clippy::unwrap_used,
    reason = "tests fail by panicking, helpers of tests too"
)]

mod builder;
mod captured;
mod framing;
mod matrix;
mod notification;
mod pattern;
mod roundtrip;
mod update;

use bgp_wire::{Context, Message, MessageError, Update, header};

/// An external peer with four-octet numbers.
const EXTERNAL: Context = Context {
    four_octet_as: true,
    extended_message: false,
    ibgp: false,
};
/// An internal peer with four-octet numbers.
const INTERNAL: Context = Context {
    four_octet_as: true,
    extended_message: false,
    ibgp: true,
};
/// An external peer with two-octet numbers.
const OLD: Context = Context {
    four_octet_as: false,
    extended_message: false,
    ibgp: false,
};

/// A message of this type.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 16];
    frame.extend_from_slice(
        &u16::try_from(body.len() + header::LEN)
            .unwrap()
            .to_be_bytes(),
    );
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

/// An UPDATE of these three fields.
fn update_frame(withdrawn: &[u8], section: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&u16::try_from(section.len()).unwrap().to_be_bytes());
    body.extend_from_slice(section);
    body.extend_from_slice(nlri);
    frame(header::kind::UPDATE, &body)
}

/// An attribute with its length in one octet.
fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut attribute = vec![flags, code, u8::try_from(value.len()).unwrap()];
    attribute.extend_from_slice(value);
    attribute
}

fn decode_update<'a>(frame: &'a [u8], context: &Context) -> Result<Update<'a>, MessageError> {
    let Message::Update(update) = header::decode(frame, context)? else {
        panic!("not an UPDATE");
    };
    Ok(update)
}

/// Prefixes announced, as text.
fn announced(update: &Update<'_>) -> Vec<String> {
    update
        .reachable
        .iter()
        .flat_map(|(_, run)| run.iter())
        .map(|prefix| prefix.to_string())
        .collect()
}

/// Prefixes withdrawn, as text.
fn withdrawn(update: &Update<'_>) -> Vec<String> {
    update
        .unreachable
        .iter()
        .flat_map(|run| run.iter())
        .map(|prefix| prefix.to_string())
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
