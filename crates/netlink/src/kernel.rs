//! The kernel's state as `dataplane` values: dumped, and changed by its operations.
//!
//! Ours are the routes and the neighbour entries that carry our protocol number ([`dataplane::ROUTE_PROTOCOL`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::link::UnderlayRoute;
use dataplane::{
    FibRoute, GroupKind, Links, Neighbour, NeighbourKey, NextHop, NexthopId, Object, Op, OpError,
    ROUTE_PROTOCOL, Rival, Route, RouteKey, RouteKind,
};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::socket::{Message, Reply};
use crate::{Error, Request, Socket, decode, encode, nexthop};

/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;
/// The families that we route.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// All links with their addresses. What others' routes lead to is [`lookup_underlay`]'s.
///
/// # Errors
/// As [`Socket::dump`].
pub fn dump_links(socket: &mut Socket) -> Result<Links, Error> {
    let mut links = Links::default();
    let mut query = LinkMessage::default();
    // Statistics are two thirds of a link's message.
    query
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let dumped = socket.dump(
        RouteNetlinkMessage::GetLink(query),
        |all: &mut Vec<_>, reply| {
            all.extend(decode::link(reply.payload));
        },
    )?;
    links.links = dumped.into_iter().map(|link| (link.index, link)).collect();
    let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses = socket.dump(query, |all: &mut Vec<_>, reply| {
        all.extend(decode::address(reply.payload))
    })?;
    for (index, address) in addresses {
        if let Some(link) = links.links.get_mut(&index) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

/// The routes of others in the main table that lead to `links.watched`.
///
/// The kernel is asked for each address; only where its answer is not such a route (it is ours, or there is none) are the
/// tables read, and of them only what holds one of the addresses is kept.
///
/// # Errors
/// As [`Socket::dump`].
pub fn lookup_underlay(socket: &mut Socket, links: &Links) -> Result<Vec<UnderlayRoute>, Error> {
    let mut ways = Vec::new();
    let mut rest = Links::default();
    for address in &links.watched {
        let theirs = lookup(socket, *address).filter(|it| it.protocol != ROUTE_PROTOCOL);
        match theirs.and_then(|route| underlay(&written_out(socket, route))) {
            Some(way) => ways.push(way),
            None => drop(rest.watched.insert(*address)),
        }
    }
    for family in FAMILIES {
        let ipv4 = family == AddressFamily::Inet;
        if !rest.watched.iter().any(|address| address.is_ipv4() == ipv4) {
            continue;
        }
        let query = encode::route_dump(family, MAIN, 0);
        let routes = dump_or_nothing(socket, query, |all: &mut Vec<_>, reply| {
            let theirs = decode::route_protocol(reply.payload) != Some(ROUTE_PROTOCOL);
            let concerns = |prefix| theirs && rest.watches(&prefix);
            if decode::destination(reply.payload).is_some_and(concerns) {
                all.extend(decode::route(reply.payload));
            }
        })?;
        ways.extend(
            routes
                .into_iter()
                .filter_map(|route| underlay(&written_out(socket, route))),
        );
    }
    ways.sort_by_key(|route| (route.prefix, route.priority));
    ways.dedup_by_key(|route| (route.prefix, route.priority));
    Ok(ways)
}

/// The main table's routes that are not ours, for prefixes that `wants` names.
///
/// # Errors
/// As [`Socket::dump`].
pub fn dump_rivals(
    socket: &mut Socket,
    wants: impl Fn(&IpNet) -> bool,
) -> Result<Vec<(IpNet, Rival)>, Error> {
    let mut rivals = Vec::new();
    for family in FAMILIES {
        let query = encode::route_dump(family, MAIN, 0);
        let routes = dump_or_nothing(socket, query, |all: &mut Vec<_>, reply| {
            let theirs = decode::route_protocol(reply.payload) != Some(ROUTE_PROTOCOL);
            if theirs && decode::destination(reply.payload).is_some_and(|it| wants(&it)) {
                all.extend(decode::route(reply.payload));
            }
        })?;
        for route in routes {
            let route = written_out(socket, route);
            let next_hops = route.route.map(|it| it.next_hops.to_vec());
            let rival = Rival {
                priority: route.key.priority,
                protocol: route.protocol,
                next_hops: next_hops.unwrap_or_default(),
            };
            rivals.push((route.key.prefix, rival));
        }
    }
    Ok(rivals)
}

/// A route of the main table; one that drops packets has no next hops.
fn underlay(route: &decode::KernelRoute) -> Option<UnderlayRoute> {
    let unicast = route
        .route
        .as_ref()
        .filter(|it| it.kind == RouteKind::Unicast);
    let hops = unicast
        .map(|route| &route.next_hops[..])
        .unwrap_or_default();
    let next_hops = hops.iter().map(|hop| (hop.via, hop.link)).collect();
    let RouteKey {
        prefix,
        priority,
        table,
    } = route.key;
    (table == u32::from(MAIN)).then_some(UnderlayRoute {
        prefix,
        next_hops,
        priority,
    })
}

/// The next hops of a route that points at a nexthop object, where the kernel does not write them out
/// (`net.ipv4.nexthop_compat_mode` is 0).
fn written_out(socket: &mut Socket, mut route: decode::KernelRoute) -> decode::KernelRoute {
    if let (Some(id), Some(it)) = (route.object, &mut route.route)
        && it.kind == RouteKind::Unicast
        && it.next_hops.is_empty()
    {
        it.next_hops = hops_of(socket, id).into_iter().collect();
        it.next_hops.sort_unstable();
    }
    route
}

/// The next hops of a nexthop object, whoever's it is; none where it discards.
fn hops_of(socket: &mut Socket, id: NexthopId) -> Vec<NextHop> {
    match get_object(socket, id).and_then(|told| told.object) {
        Some(Object::Hop(hop)) => vec![hop],
        Some(Object::Group(group)) => {
            let members = group.members.iter();
            members.flat_map(|id| hop_of(socket, *id)).collect()
        }
        None => Vec::new(),
    }
}

fn hop_of(socket: &mut Socket, id: NexthopId) -> Option<NextHop> {
    match get_object(socket, id)?.object? {
        Object::Hop(hop) => Some(hop),
        Object::Group(_) => None,
    }
}

fn get_object(socket: &mut Socket, id: NexthopId) -> Option<nexthop::KernelObject> {
    let told = socket.answers(Request::new(nexthop::get(id)), |reply| {
        nexthop::object(reply.payload)
    });
    told.ok()?.into_iter().flatten().next()
}

/// A nexthop object's identifier, its protocol, and what it is.
pub type ToldObject = (NexthopId, u8, Option<Object>);

/// The nexthop objects with identifiers of our ranges, with their protocol, whoever's they are, in no particular order; `None`
/// for a kind that we have no word for. `None` for all where the kernel has no nexthop objects (Linux before 5.3).
///
/// # Errors
/// As [`Socket::dump`].
pub fn dump_objects(socket: &mut Socket) -> Result<Option<Vec<ToldObject>>, Error> {
    let dumped = socket.dump(nexthop::dump(), |all: &mut Vec<_>, reply| {
        let told = nexthop::object(reply.payload);
        let ours = told.filter(|it| dataplane::nexthop::is_our_id(it.id));
        all.extend(ours.map(|it| (it.id, it.protocol, it.object)));
    });
    match dumped {
        Ok(objects) => Ok(Some(objects)),
        Err(error) if error.kernel_errno() == Some(Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a route of ours leads, given the objects of ours; `None` where it points at none of them.
pub fn target(route: &FibRoute, objects: &[ToldObject]) -> Option<Route> {
    let find = |id: NexthopId| {
        let found = objects.iter().find(|(other, ..)| *other == id);
        found.and_then(|(_, _, object)| object.as_ref())
    };
    let id = match route {
        FibRoute::Inline(route) => return Some(route.clone()),
        FibRoute::Object(id) => *id,
    };
    let Object::Group(group) = find(id)? else {
        return None;
    };
    let hop = |id: &NexthopId| match find(*id)? {
        Object::Hop(hop) => Some(*hop),
        Object::Group(_) => None,
    };
    let hops: Option<Vec<_>> = group.members.iter().map(hop).collect();
    Some(Route::unicast(hops?))
}

/// Whether the kernel has nexthop groups of this kind. Where nothing says so it tries one with a next hop that discards, and
/// takes both away.
///
/// # Errors
/// The socket's failure, or the kernel's refusal for another reason than that it does not know them: `EPERM`.
pub fn supports(socket: &mut Socket, kind: GroupKind) -> Result<bool, Error> {
    let Some(objects) = dump_objects(socket)? else {
        return Ok(false);
    };
    // The plain kind is as old as the objects; and what a predecessor made needs no trial.
    let is_of_kind = |object: &Object| matches!((object, kind), (Object::Group(group), GroupKind::Resilient { .. }) if group.kind == kind);
    let there = objects
        .iter()
        .any(|(_, _, object)| object.as_ref().is_some_and(is_of_kind));
    if kind == GroupKind::HashThreshold || there {
        return Ok(true);
    }
    let (hop, group) = (
        *dataplane::nexthop::HOP_IDS.end(),
        *dataplane::nexthop::GROUP_IDS.end(),
    );
    let object = Object::Group(dataplane::Group::new(kind, [hop]));
    let made = socket
        .request(Request::create(nexthop::blackhole(hop)))
        .and_then(|()| socket.request(Request::create(nexthop::set(group, &object))));
    // The group goes with its last member.
    socket.request(Request::new(nexthop::delete(hop))).ok();
    match made.as_ref().map_err(Error::kernel_errno) {
        Ok(()) => Ok(true),
        Err(Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::AFNOSUPPORT)) => Ok(false),
        Err(_) => made.map(|()| true),
    }
}

/// All routes of one protocol, in every table, filtered by the kernel. `None` for a kind that we have no word for.
///
/// # Errors
/// As [`Socket::dump`].
pub fn dump_routes(
    socket: &mut Socket,
    protocol: u8,
) -> Result<Vec<(RouteKey, Option<FibRoute>)>, Error> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        let query = encode::route_dump(family, 0, protocol);
        let dumped = dump_or_nothing(socket, query, |all: &mut Vec<_>, reply| {
            // A kernel before 4.20 does not filter.
            if decode::route_protocol(reply.payload) == Some(protocol) {
                all.extend(decode::route(reply.payload).map(|it| (it.key, it.fib())));
            }
        })?;
        // Most have one family only: then nothing is copied.
        if routes.is_empty() {
            routes = dumped
        } else {
            routes.extend(dumped)
        }
    }
    Ok(routes)
}

/// All permanent neighbour entries of ours.
///
/// # Errors
/// As [`Socket::dump`].
pub fn dump_neighbours(socket: &mut Socket) -> Result<Vec<(NeighbourKey, Neighbour)>, Error> {
    let query = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    dump_or_nothing(socket, query, |all: &mut Vec<_>, reply| {
        let ours = decode::neighbour(reply.payload).filter(|it| it.protocol == ROUTE_PROTOCOL);
        all.extend(ours.and_then(|it| Some((it.key, it.permanent?))));
    })
}

/// A dump where a missing table or family is an empty one.
fn dump_or_nothing<S: Default>(
    socket: &mut Socket,
    query: impl Into<Message>,
    each: impl FnMut(&mut S, Reply<'_>),
) -> Result<S, Error> {
    match socket.dump(query, each) {
        Err(error)
            if matches!(
                error.kernel_errno(),
                Some(Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT)
            ) =>
        {
            Ok(S::default())
        }
        result => result,
    }
}

/// Carries operations to the kernel in batches, in order, and says for each what came of it. What is already so counts as
/// done. Give it some thousands at a time, so that events are read in between.
pub fn apply(socket: &mut Socket, ops: &[Op]) -> Vec<Result<(), OpError>> {
    let mut results = Vec::new();
    for part in ops.chunk_by(|_, next| !matches!(next, Op::DeleteObject(_))) {
        // Deletions name an object and nothing else: whose it is must be looked at before.
        let foreign = match part {
            [Op::DeleteObject(id), ..] => {
                get_object(socket, *id).is_some_and(|it| it.protocol != ROUTE_PROTOCOL)
            }
            _ => false,
        };
        let part = if foreign {
            results.push(Ok(()));
            &part[1..]
        } else {
            part
        };
        results.extend(socket.request_batch(part.iter().map(request)));
    }
    let mut outcomes: Vec<_> = ops
        .iter()
        .zip(&results)
        .map(|(op, result)| outcome(op, result))
        .collect();
    settle(socket, ops, &results, &mut outcomes);
    outcomes
}

/// The request for an operation. An addition fails where the key is taken, and a replacement where there is nothing to
/// replace: that is how we find out that somebody else was there.
fn request(op: &Op) -> Request {
    match op {
        Op::SetNeighbour(key, neighbour) => Request::set(RouteNetlinkMessage::NewNeighbour(
            encode::neighbour(key, Some(neighbour)),
        )),
        Op::AddRoute(key, route) => Request::create(encode::fib_route(key, route, ROUTE_PROTOCOL)),
        Op::ReplaceRoute(key, route) => {
            Request::replace(encode::fib_route(key, route, ROUTE_PROTOCOL))
        }
        Op::DeleteRoute(key, kind) => {
            Request::new(encode::delete_route(key, *kind, ROUTE_PROTOCOL))
        }
        Op::DeleteNeighbour(key) => Request::new(RouteNetlinkMessage::DelNeighbour(
            encode::neighbour(key, None),
        )),
        Op::AddObject(id, object) => Request::create(nexthop::set(*id, object)),
        Op::ReplaceObject(id, object) => Request::replace(nexthop::set(*id, object)),
        Op::DeleteObject(id) => Request::new(nexthop::delete(*id)),
    }
}

/// What the kernel's answer means for an operation.
fn outcome(op: &Op, result: &Result<(), Error>) -> Result<(), OpError> {
    let Err(error) = result else { return Ok(()) };
    match (op, error.kernel_errno()) {
        // ESRCH: no such route. ENOENT, ENODEV: no such entry, or not even its link.
        (Op::DeleteRoute(..), Some(Errno::SRCH | Errno::NOENT)) => Ok(()),
        (Op::DeleteObject(_), Some(Errno::NOENT)) => Ok(()),
        (Op::DeleteNeighbour(_), Some(Errno::NOENT | Errno::NODEV | Errno::NXIO)) => Ok(()),
        (_, Some(errno)) => Err(OpError::Refused {
            errno: errno.raw_os_error(),
            reason: error.to_string().into(),
        }),
        (_, None) => Err(OpError::Unknown(error.to_string().into())),
    }
}

/// Where the kernel's table was not as the operation took it to be, does what the operation meant.
fn settle(
    socket: &mut Socket,
    ops: &[Op],
    results: &[Result<(), Error>],
    outcomes: &mut [Result<(), OpError>],
) {
    let mut taken = Vec::new();
    let mut retry = Vec::new();
    for (index, (op, result)) in ops.iter().zip(results).enumerate() {
        match (op, result.as_ref().err().and_then(Error::kernel_errno)) {
            (Op::AddRoute(key, _), Some(Errno::EXIST)) => taken.push((index, *key)),
            (Op::AddObject(id, _), Some(Errno::EXIST)) => {
                match get_object(socket, *id).map(|it| it.protocol) {
                    // Ours, or gone by now.
                    Some(ROUTE_PROTOCOL) => retry.push((index, netlink_packet_core::NLM_F_REPLACE)),
                    protocol => outcomes[index] = Err(OpError::Foreign { protocol }),
                }
            }
            (Op::ReplaceRoute(..) | Op::ReplaceObject(..), Some(Errno::NOENT | Errno::SRCH)) => {
                retry.push((index, NLM_F_CREATE | NLM_F_EXCL))
            }
            _ => {}
        }
    }
    let holders = if taken.is_empty() {
        BTreeMap::new()
    } else {
        holders(socket, taken.iter().map(|(_, key)| *key))
    };
    for (index, key) in taken {
        match holders.get(&key) {
            // Ours: the event that told of it was lost, or is still to be read.
            Some(&ROUTE_PROTOCOL) => retry.push((index, netlink_packet_core::NLM_F_REPLACE)),
            holder => {
                outcomes[index] = Err(OpError::Foreign {
                    protocol: holder.copied(),
                })
            }
        }
    }
    let requests = retry.iter().map(|(index, flags)| Request {
        flags: *flags,
        ..request(&ops[*index])
    });
    let again = socket.request_batch(requests);
    for ((index, _), result) in retry.into_iter().zip(again) {
        outcomes[index] = match result.as_ref().err().and_then(Error::kernel_errno) {
            // Somebody was faster.
            Some(Errno::EXIST) => Err(OpError::Foreign { protocol: None }),
            _ => outcome(&ops[index], &result),
        };
    }
}

/// The protocols of the routes that hold these keys, as far as the kernel says.
fn holders(
    socket: &mut Socket,
    keys: impl IntoIterator<Item = RouteKey>,
) -> BTreeMap<RouteKey, u8> {
    let mut found = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    for key in keys {
        match holder(socket, &key) {
            Some(protocol) => found.insert(key, protocol),
            None => unknown.insert(key, ()).map(|()| 0),
        };
    }
    if unknown.is_empty() {
        return found;
    }
    // Another route hid it from the lookup: read the tables.
    for family in FAMILIES {
        let dumped = dump_or_nothing(
            socket,
            encode::route_dump(family, 0, 0),
            |all: &mut Vec<_>, reply| {
                let route =
                    decode::route(reply.payload).filter(|route| unknown.contains_key(&route.key));
                all.extend(route.map(|route| (route.key, route.protocol)));
            },
        );
        for (key, protocol) in dumped.unwrap_or_default() {
            // Where ours stands beside another's, it is the other's that matters.
            let holder = found.entry(key).or_insert(protocol);
            if *holder == ROUTE_PROTOCOL {
                *holder = protocol;
            }
        }
    }
    found
}

/// The protocol of the route under a key, if a lookup of its address meets just that one.
fn holder(socket: &mut Socket, key: &RouteKey) -> Option<u8> {
    lookup(socket, key.prefix.addr())
        .filter(|route| route.key == *key)
        .map(|route| route.protocol)
}

/// The route that the kernel would choose for a packet to this address (`RTM_F_FIB_MATCH`); `None` where it has none, or one
/// that drops it.
fn lookup(socket: &mut Socket, address: IpAddr) -> Option<decode::KernelRoute> {
    let mut query = RouteMessage::default();
    query.header.address_family = encode::family(address);
    query.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    query.header.flags = RouteFlags::FibMatch;
    query
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    let answer = socket
        .query(Request::new(RouteNetlinkMessage::GetRoute(query)))
        .ok()?;
    let [RouteNetlinkMessage::NewRoute(route)] = &answer[..] else {
        return None;
    };
    // Through our own decoder, so that equal keys are equal.
    let mut octets = vec![0; netlink_packet_core::Emitable::buffer_len(route)];
    netlink_packet_core::Emitable::emit(route, &mut octets);
    decode::route(&octets)
}
