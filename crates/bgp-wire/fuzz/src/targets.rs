//! What the fuzz targets do with their input. The ordinary tests do the same with the corpus: `tests/fuzz_corpus.rs`.

use bgp_wire::{
    Attributes, Context, Family, Message, MessageError, NextHop, Notification, Update,
    UpdateBuilder, header,
};
use ipnet::IpNet;

/// A target.
type Target = fn(&[u8]);

/// All targets by the name of their corpus.
pub(crate) const ALL: [(&str, Target); 4] = [
    ("decode", decode),
    ("roundtrip", roundtrip),
    ("open", open),
    ("frames", frames),
];

/// Takes the context from the first octet.
fn context(data: &[u8]) -> Option<(Context, &[u8])> {
    let (&flags, rest) = data.split_first()?;
    let context = Context {
        four_octet_as: flags & 1 != 0,
        extended_message: flags & 2 != 0,
        ibgp: flags & 4 != 0,
    };
    Some((context, rest))
}

/// A frame around the body, its header correct: what a fuzzer would take long to find out.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(header::MAX_EXTENDED_LEN - header::LEN)];
    let len = u16::try_from(header::LEN + body.len()).unwrap_or(u16::MAX);
    let mut frame = vec![0xff; 16];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

/// Context, message type, body: any message under any context, and nothing it gives may be out of proportion.
pub(crate) fn decode(data: &[u8]) {
    let Some((context, rest)) = context(data) else {
        return;
    };
    let Some((&kind, body)) = rest.split_first() else {
        return;
    };
    let frame = frame(kind, body);
    match header::decode(&frame, &context) {
        Ok(Message::Update(update)) => check_update(&update, frame.len()),
        Ok(Message::Open(open)) => assert!(open.capabilities.len() <= frame.len()),
        Ok(Message::Notification(notification)) => {
            assert!(notification.to_string().len() <= 1024 + 8 * frame.len());
        }
        Ok(Message::RouteRefresh(_) | Message::Keepalive) => {}
        Err(error) => check_error(&error, frame.len()),
    }
    // The section alone, read as one of ours.
    if let Some(attributes) = Attributes::decode_canonical(body) {
        check_canonical(&attributes);
    }
}

fn check_error(error: &MessageError, len: usize) {
    assert!(!error.to_string().is_empty());
    if let Some(notification) = &error.notification {
        assert!(notification.data.len() <= len);
        check_notification(notification);
    }
}

/// What we send in answer is a message that others can read, even without extended messages.
fn check_notification(notification: &Notification) {
    let mut out = Vec::new();
    notification.encode(&mut out);
    let read = header::decode(&out, &Context::default());
    assert!(
        matches!(read, Ok(Message::Notification(_))),
        "{notification:?}: {read:?}"
    );
}

/// Nothing takes up more than the bytes that it was read from let it: a peer does not choose what we allocate.
fn check_update(update: &Update<'_>, len: usize) {
    let mut octets = 0;
    for run in update
        .unreachable
        .iter()
        .chain(update.reachable.iter().map(|(_, run)| run))
    {
        assert_eq!(run.iter().count(), run.len());
        for prefix in run.iter() {
            assert_eq!(prefix, prefix.trunc(), "bits beyond the length");
            assert_eq!(Family::of(prefix), run.family());
            octets += 1 + usize::from(prefix.prefix_len()).div_ceil(8);
        }
    }
    assert!(octets <= len);
    assert!(update.faults.len() <= 4 + len / 3);
    assert!(
        update
            .faults
            .iter()
            .all(|fault| !fault.to_string().is_empty())
    );
    assert_eq!(update.attributes.is_some(), !update.reachable.is_empty());
    if update.end_of_rib().is_some() {
        assert!(update.reachable.is_empty() && update.unreachable.is_empty());
    }
    if let Some(attributes) = &update.attributes {
        // AS_PATH and AS4_PATH together.
        assert!(attributes.as_path.asns().count() <= len);
        let unknown: usize = attributes
            .unknown
            .iter()
            .map(|unknown| 3 + unknown.value.len())
            .sum();
        let lists = 4 * attributes.communities.len()
            + 4 * attributes.cluster_list.len()
            + 8 * attributes.extended_communities.len()
            + 20 * attributes.ipv6_extended_communities.len()
            + 12 * attributes.large_communities.len();
        assert!(unknown + lists <= len);
    }
}

/// What a RIB interns must come back as it went in.
fn check_canonical(attributes: &Attributes) {
    let mut bytes = Vec::new();
    attributes.encode_canonical(&mut bytes);
    let read = Attributes::decode_canonical(&bytes);
    assert_eq!(read.as_ref(), Some(attributes));
    let mut again = Vec::new();
    attributes.encode_canonical(&mut again);
    assert_eq!(again, bytes);
}

/// Context, UPDATE body: what was read is written, and read again as the same; as often as it takes, in the form that
/// suits the next hop.
pub(crate) fn roundtrip(data: &[u8]) {
    let Some((context, body)) = context(data) else {
        return;
    };
    let frame = frame(header::kind::UPDATE, body);
    let Ok(Message::Update(update)) = header::decode(&frame, &context) else {
        return;
    };
    for run in &update.unreachable {
        let prefixes: Vec<_> = run.iter().collect();
        let messages = withdraw(&context, run.family(), &prefixes);
        assert_eq!(read_all(&messages, &context).1, prefixes);
    }
    let Some(attributes) = &update.attributes else {
        return;
    };
    check_canonical(attributes);
    let mut section = Vec::new();
    attributes.encode(&context, &mut section);
    for (next_hop, run) in &update.reachable {
        let prefixes: Vec<_> = run.iter().collect();
        let Some(messages) = announce(&context, &section, *next_hop, run.family(), &prefixes)
        else {
            // Without four octets a number the attributes are longer than they came.
            continue;
        };
        let (read, _) = read_all(&messages, &context);
        let expected = Attributes {
            next_hop: Some(*next_hop),
            ..attributes.clone()
        };
        // AS4_PATH has no place for confederation segments: those between others are lost (RFC 6793 §4.2.3).
        let confederations = attributes
            .as_path
            .segments
            .iter()
            .any(|segment| segment.kind.is_confederation());
        for (mut read, _) in read.iter().cloned() {
            if confederations && !context.four_octet_as {
                read.as_path = expected.as_path.clone();
            }
            assert_eq!(read, expected);
        }
        let read: Vec<_> = read
            .into_iter()
            .flat_map(|(_, prefixes)| prefixes)
            .collect();
        assert_eq!(read, prefixes);
    }
}

fn announce(
    context: &Context,
    section: &[u8],
    next_hop: NextHop,
    family: Family,
    mut prefixes: &[IpNet],
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while !prefixes.is_empty() {
        let mut builder = UpdateBuilder::announce(&mut out, context, section, next_hop, family);
        let taken = prefixes
            .iter()
            .take_while(|prefix| builder.push(**prefix).is_ok())
            .count();
        let range = builder.finish();
        assert!(range.len() <= context.max_message_len());
        if taken == 0 {
            return None;
        }
        prefixes = &prefixes[taken..];
    }
    Some(out)
}

fn withdraw(context: &Context, family: Family, mut prefixes: &[IpNet]) -> Vec<u8> {
    let mut out = Vec::new();
    while !prefixes.is_empty() {
        let mut builder = UpdateBuilder::withdraw(&mut out, context, family);
        let taken = prefixes
            .iter()
            .take_while(|prefix| builder.push(**prefix).is_ok())
            .count();
        assert!(taken > 0 && builder.finish().len() <= context.max_message_len());
        prefixes = &prefixes[taken..];
    }
    out
}

type Announced = Vec<(Attributes, Vec<IpNet>)>;

/// Reads messages of ours: none of them has a fault.
fn read_all(mut bytes: &[u8], context: &Context) -> (Announced, Vec<IpNet>) {
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    while let Ok(Some(len)) = header::frame_len(bytes, context) {
        let (frame, rest) = bytes.split_at(len);
        bytes = rest;
        match header::decode(frame, context) {
            Ok(Message::Update(update)) => {
                assert_eq!(update.faults, []);
                withdrawn.extend(update.unreachable.iter().flat_map(|run| run.iter()));
                let prefixes = update
                    .reachable
                    .iter()
                    .flat_map(|(_, run)| run.iter())
                    .collect();
                announced.extend(update.attributes.map(|attributes| (attributes, prefixes)));
            }
            other => panic!("not an UPDATE of ours: {other:?}"),
        }
    }
    assert!(bytes.is_empty());
    (announced, withdrawn)
}

/// OPEN body: what was read is written, and read again as the same.
pub(crate) fn open(data: &[u8]) {
    let before = Context::default();
    let frame = frame(header::kind::OPEN, data);
    let open = match header::decode(&frame, &before) {
        Ok(Message::Open(open)) => open,
        Ok(other) => panic!("not an OPEN: {other:?}"),
        Err(error) => return check_error(&error, frame.len()),
    };
    assert_ne!(open.asn, 0);
    assert!(!open.families().is_empty());
    let mut out = Vec::new();
    open.encode(&mut out);
    assert_eq!(
        header::decode(&out, &before),
        Ok(Message::Open(open.clone()))
    );
    let context = Context::negotiated(&open, &open);
    assert!(context.ibgp);
}

/// A context and a stream: cut into frames as a session does, whatever they hold.
pub(crate) fn frames(data: &[u8]) {
    let Some((context, mut stream)) = context(data) else {
        return;
    };
    loop {
        match header::frame_len(stream, &context) {
            Ok(Some(len)) => {
                assert!((header::LEN..=context.max_message_len()).contains(&len));
                let Some((frame, rest)) = stream.split_at_checked(len) else {
                    return;
                };
                match header::decode(frame, &context) {
                    Ok(message) => assert_eq!(message.kind(), frame[header::LEN - 1]),
                    Err(error) => return check_error(&error, len),
                }
                stream = rest;
            }
            Ok(None) => return assert!(stream.len() < header::LEN),
            Err(error) => return check_error(&error, stream.len()),
        }
    }
}
