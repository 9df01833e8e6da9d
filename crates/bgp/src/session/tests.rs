//! The FSM as a whole, and the machine under any sequence of events.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_wire::capability::GracefulRestart;
use bgp_wire::{
    Capability, Context, Family, Notification, Open, RouteRefresh, Update, UpdateBuilder, header,
};
use bytes::Bytes;
use expect_test::expect;
use ipnet::IpNet;
use proptest::prelude::*;

use super::fsm::{Action, Event, step};
use super::timer::Timer;
use super::{ConnId, LocalRestart, Output, Routes, Session, Settings, Side, State};
use crate::config::{AsnSet, LimitAction, PeerConfig, PrefixLimit, SpeakerConfig};
use crate::session::open::Negotiated;

/// Every state under every event: a change of any transition shows here.
#[test]
fn transition_table() {
    let mut table = String::new();
    for state in State::ALL {
        for event in Event::ALL {
            let (next, actions) = step(state, event);
            if next == state && actions.is_empty() {
                continue;
            }
            let actions = actions
                .iter()
                .map(|action| format!("{action:?}"))
                .collect::<Vec<_>>()
                .join(" ");
            writeln!(table, "{state} + {event:?} -> {next}: {actions}").unwrap();
        }
    }
    expect![[r#"
        Idle + Start -> Connect: Dial
        Idle + StartPassive -> Active: 
        Active + Stop -> Idle: 
        Active + RetryExpired -> Connect: Dial
        Active + Connected -> OpenSent: SendOpen
        Active + Collision -> Idle: 
        Connect + Stop -> Idle: Abort
        Connect + RetryExpired -> Connect: Abort Dial
        Connect + Connected -> OpenSent: SendOpen
        Connect + Lost -> Active: Retry
        Connect + Collision -> Idle: Abort
        OpenSent + Stop -> Idle: Answer Close
        OpenSent + HoldExpired -> Idle: NotifyHold Close HoldOff
        OpenSent + SendHoldExpired -> Idle: NotifySendHold Close HoldOff
        OpenSent + Lost -> Active: Retry
        OpenSent + Open -> OpenConfirm: Agree SendKeepalive
        OpenSent + Malformed -> Idle: Answer Close HoldOff
        OpenSent + Collision -> Idle: Answer Close
        OpenSent + PeerRestarted -> Idle: Close
        OpenSent + Notification -> Idle: Close HoldOff
        OpenSent + Keepalive -> Idle: NotifyUnexpected Close HoldOff
        OpenSent + Update -> Idle: NotifyUnexpected Close HoldOff
        OpenSent + Refresh -> Idle: NotifyUnexpected Close HoldOff
        OpenConfirm + Stop -> Idle: Answer Close
        OpenConfirm + HoldExpired -> Idle: NotifyHold Close HoldOff
        OpenConfirm + KeepaliveExpired -> OpenConfirm: SendKeepalive
        OpenConfirm + SendHoldExpired -> Idle: NotifySendHold Close HoldOff
        OpenConfirm + Lost -> Active: Retry
        OpenConfirm + Open -> Idle: NotifyUnexpected Close HoldOff
        OpenConfirm + Malformed -> Idle: Answer Close HoldOff
        OpenConfirm + Collision -> Idle: Answer Close
        OpenConfirm + PeerRestarted -> Idle: Close
        OpenConfirm + Notification -> Idle: Close HoldOff
        OpenConfirm + Keepalive -> Established: Up
        OpenConfirm + Update -> Idle: NotifyUnexpected Close HoldOff
        OpenConfirm + Refresh -> Idle: NotifyUnexpected Close HoldOff
        Established + Stop -> Idle: Down Answer Close
        Established + TooManyPrefixes -> Idle: Down Answer Close HoldOff
        Established + HoldExpired -> Idle: Down NotifyHold Close HoldOff
        Established + KeepaliveExpired -> Established: SendKeepalive
        Established + SendHoldExpired -> Idle: Down NotifySendHold Close HoldOff
        Established + Lost -> Active: Down Retry
        Established + Open -> Idle: Down NotifyUnexpected Close HoldOff
        Established + Malformed -> Idle: Down Answer Close HoldOff
        Established + Collision -> Idle: Down Answer Close
        Established + PeerRestarted -> Idle: Down Close
        Established + Notification -> Idle: Down Close HoldOff
        Established + Update -> Established: TakeUpdate
        Established + Refresh -> Established: TakeRefresh
    "#]]
    .assert_eq(&table);
}

#[test]
fn transitions_keep_their_promises() {
    for state in State::ALL {
        for event in Event::ALL {
            let (next, actions) = step(state, event);
            let does = |action| actions.contains(&action);
            let what = format!("{state} + {event:?} -> {next}");
            assert_eq!(
                does(Action::Up),
                next == State::Established && state != State::Established,
                "{what}"
            );
            assert_eq!(
                does(Action::Down),
                state == State::Established && next != State::Established,
                "{what}"
            );
            let notifies = [
                Action::Answer,
                Action::NotifyHold,
                Action::NotifySendHold,
                Action::NotifyUnexpected,
            ];
            let notifications = notifies.into_iter().filter(|action| does(*action)).count();
            assert!(notifications <= 1, "{what}");
            if matches!(
                event,
                Event::Notification | Event::Lost | Event::PeerRestarted
            ) {
                assert_eq!(notifications, 0, "{what}: nobody is there to read it");
            }
            if notifications == 1 {
                assert!(does(Action::Close) && next == State::Idle, "{what}");
            }
            if state.connected() && !next.connected() {
                assert!(does(Action::Close) || event == Event::Lost, "{what}");
            }
        }
    }
}

/// Stands for the RIB: checks that what it is told makes sense.
#[derive(Debug, Default)]
struct Recorder {
    up: bool,
    stale: bool,
    updates: usize,
    refreshing: Vec<Family>,
}

impl Routes for Recorder {
    fn up(&mut self, negotiated: &Negotiated, _: SocketAddr) {
        assert!(!self.up, "up twice");
        assert!(!negotiated.families.is_empty());
        self.up = true;
        self.updates = 0;
        self.refreshing.clear();
    }

    fn down(&mut self, keep: &[Family]) {
        assert!(self.up, "down twice");
        self.up = false;
        self.stale = !keep.is_empty();
    }

    fn update(&mut self, _: &Update<'_>) {
        assert!(self.up, "routes of a session that is not up");
        self.updates += 1;
    }

    fn end_of_rib(&mut self, _: Family) {
        assert!(self.up);
    }

    fn stale_expired(&mut self) {
        self.stale = false;
    }

    fn refresh(&mut self, _: Family) {
        assert!(self.up);
    }

    fn begin_refresh(&mut self, family: Family) {
        assert!(self.up);
        assert!(!self.refreshing.contains(&family), "begins twice");
        self.refreshing.push(family);
    }

    fn end_refresh(&mut self, family: Family) {
        assert!(self.up);
        assert!(
            self.refreshing.contains(&family),
            "ends without a beginning"
        );
        self.refreshing.retain(|other| *other != family);
    }

    fn received(&self, _: Family) -> u32 {
        u32::try_from(self.updates).unwrap()
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        assert!(self.up);
        None
    }
}

/// What may happen to a session; indices choose among the connections that there are, or were.
#[derive(Debug, Clone)]
enum Input {
    Incoming,
    Connected(usize),
    Closed(usize),
    Open {
        conn: usize,
        asn: u32,
        hold_time: u16,
        restart: bool,
    },
    Keepalive(usize),
    Notification(usize),
    EndOfRib(usize),
    Refresh(usize, u8),
    Routes(usize),
    Limit(Option<LimitAction>),
    ShutDown,
    Junk(usize, Vec<u8>),
    Read(usize),
    Pass(Duration),
    Stop,
    Start,
    Reset,
    Passive(bool),
}

fn input() -> impl Strategy<Value = Input> {
    let conn = 0..4_usize;
    prop_oneof![
        3 => Just(Input::Incoming),
        6 => conn.clone().prop_map(Input::Connected),
        2 => conn.clone().prop_map(Input::Closed),
        8 => (conn.clone(), prop_oneof![9 => Just(65002), 1 => Just(7)], prop_oneof![Just(0_u16), Just(3), Just(90)], any::<bool>())
            .prop_map(|(conn, asn, hold_time, restart)| Input::Open { conn, asn, hold_time, restart }),
        8 => conn.clone().prop_map(Input::Keepalive),
        1 => conn.clone().prop_map(Input::Notification),
        2 => conn.clone().prop_map(Input::EndOfRib),
        1 => (conn.clone(), 0..4_u8).prop_map(|(conn, subtype)| Input::Refresh(conn, subtype)),
        3 => conn.clone().prop_map(Input::Routes),
        1 => prop::option::of(prop_oneof![
            Just(LimitAction::Warn),
            Just(LimitAction::StayDown),
            Just(LimitAction::Restart(Duration::from_secs(300))),
        ])
        .prop_map(Input::Limit),
        1 => Just(Input::ShutDown),
        1 => (conn.clone(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(conn, junk)| Input::Junk(conn, junk)),
        4 => conn.prop_map(Input::Read),
        4 => (0..40_000_u64).prop_map(|ms| Input::Pass(Duration::from_millis(ms))),
        1 => (0..1000_u64).prop_map(|s| Input::Pass(Duration::from_secs(s))),
        1 => Just(Input::Stop),
        2 => Just(Input::Start),
        1 => Just(Input::Reset),
        1 => any::<bool>().prop_map(Input::Passive),
    ]
}

/// A session under test, with its surroundings.
struct Bench {
    session: Session,
    config: PeerConfig,
    routes: Recorder,
    now: Instant,
    connections: Vec<ConnId>,
}

impl Bench {
    fn new(graceful: bool) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant does as the start of virtual time"
        )]
        let now = Instant::now();
        let config = PeerConfig {
            graceful_restart: graceful.then_some(Duration::from_secs(120)),
            ..PeerConfig::new(65002)
        };
        let settings = Settings::new(
            &SpeakerConfig::new(65001, Ipv4Addr::new(10, 0, 0, 1)),
            &config,
            AsnSet::from(65002),
        );
        let mut session = Session::new(0, 0, settings, &config, 1, now);
        session.set_restart(LocalRestart {
            restarting: false,
            forwarding: true,
        });
        let mut bench = Self {
            session,
            config,
            routes: Recorder::default(),
            now,
            connections: Vec::new(),
        };
        bench.session.start(now, &mut bench.routes);
        bench.settle();
        bench
    }

    fn conn(&self, index: usize) -> Option<ConnId> {
        self.connections.iter().rev().nth(index).copied()
    }

    fn send(&mut self, conn: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.conn(conn) else { return };
        let mut bytes = Vec::new();
        encode(&mut bytes);
        // In two pieces: a boundary may be anywhere.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.session
            .handle_data(conn, first, self.now, &mut self.routes);
        self.session
            .handle_data(conn, second, self.now, &mut self.routes);
    }

    fn open(&mut self, conn: usize, asn: u32, hold_time: u16, restart: bool) {
        self.send(conn, |out| {
            let mut capabilities = vec![
                Capability::FourOctetAs(asn),
                Capability::RouteRefresh,
                Capability::EnhancedRouteRefresh,
            ];
            if restart {
                capabilities.push(Capability::GracefulRestart(GracefulRestart {
                    restart_time: 100,
                    families: vec![(Family::IPV4_UNICAST, true)],
                    ..GracefulRestart::default()
                }));
            }
            Open {
                asn,
                hold_time,
                router_id: [10, 0, 0, 2].into(),
                capabilities,
            }
            .encode(out);
        });
    }

    fn apply(&mut self, input: &Input) {
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 179));
        match *input {
            Input::Incoming => {
                let conn = self.session.handle_incoming(
                    address(1),
                    address(2),
                    self.now,
                    &mut self.routes,
                );
                self.connections.extend(conn);
            }
            Input::Connected(conn) => {
                if let Some(conn) = self.conn(conn) {
                    self.session.handle_connected(
                        conn,
                        address(1),
                        address(2),
                        self.now,
                        &mut self.routes,
                    );
                }
            }
            Input::Closed(conn) => {
                if let Some(conn) = self.conn(conn) {
                    self.session
                        .handle_closed(conn, "reset".into(), self.now, &mut self.routes);
                }
            }
            Input::Open {
                conn,
                asn,
                hold_time,
                restart,
            } => self.open(conn, asn, hold_time, restart),
            Input::Keepalive(_)
            | Input::Notification(_)
            | Input::EndOfRib(_)
            | Input::Refresh(..)
            | Input::Routes(_) => self.message(input),
            Input::Limit(action) => self.limit(action),
            Input::ShutDown => self
                .session
                .shut_down("for now", self.now, &mut self.routes),
            Input::Junk(conn, ref junk) => self.send(conn, |out| out.extend_from_slice(junk)),
            Input::Read(conn) => {
                if let Some(conn) = self.conn(conn) {
                    while self.session.poll_transmit(conn, &mut self.routes).is_some() {}
                }
            }
            Input::Pass(time) => self.pass(time),
            Input::Stop => {
                self.session
                    .stop(&Notification::shutdown("bye"), self.now, &mut self.routes)
            }
            Input::Start => self.session.start(self.now, &mut self.routes),
            Input::Reset => {
                let settings = self.session.settings().clone();
                self.session.reset(
                    settings,
                    &Notification::cease(6),
                    self.now,
                    &mut self.routes,
                );
            }
            Input::Passive(passive) => {
                self.config.passive = passive;
                self.adapt();
            }
        }
        self.settle();
    }

    fn limit(&mut self, action: Option<LimitAction>) {
        let limit = action.map(|action| PrefixLimit {
            family: Family::IPV4_UNICAST,
            limit: 2,
            warn_percent: 75,
            action,
        });
        self.config.prefix_limits = limit.into_iter().collect();
        self.adapt();
    }

    /// The peer says something.
    fn message(&mut self, input: &Input) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other inputs are no messages"
        )]
        match *input {
            Input::Keepalive(conn) => self.send(conn, header::encode_keepalive),
            Input::Notification(conn) => self.send(conn, |out| Notification::cease(2).encode(out)),
            Input::EndOfRib(conn) => {
                self.send(conn, |out| {
                    bgp_wire::update::encode_end_of_rib(Family::IPV4_UNICAST, out)
                });
            }
            Input::Refresh(conn, subtype) => self.send(conn, |out| {
                let family = Family::IPV4_UNICAST;
                RouteRefresh { family, subtype }.encode(out)
            }),
            Input::Routes(conn) => self.send(conn, |out| {
                let family = Family::IPV4_UNICAST;
                let mut builder = UpdateBuilder::withdraw(out, &Context::default(), family);
                builder.push("10.0.0.0/8".parse().unwrap()).unwrap();
                builder.finish();
            }),
            _ => unreachable!(),
        }
    }

    fn adapt(&mut self) {
        self.session.adapt(&self.config, self.now, &mut self.routes);
    }

    /// Lets time go by, and serves timers on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut served = 0;
        while let Some((at, _)) = self.session.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now, &mut self.routes);
            self.settle();
            assert!(
                self.session
                    .poll_timeout()
                    .is_none_or(|(at, _)| at > self.now),
                "a timer that is due stays"
            );
            served += 1;
            assert!(served < 10_000, "timers without end");
        }
        self.now = end;
    }

    /// Takes the outputs and checks what must always hold.
    fn settle(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect(conn) => self.connections.push(conn),
                Output::Close(conn, last) => {
                    let mut rest = &last[..];
                    while let Ok(Some(len)) = header::frame_len(rest, &Context::default()) {
                        rest = &rest[len..];
                    }
                    assert!(rest.is_empty(), "not whole messages");
                    self.connections.retain(|other| *other != conn);
                }
                Output::Ready(_)
                | Output::Up(..)
                | Output::Down(_)
                | Output::Failed(..)
                | Output::ManyPrefixes(..) => {}
            }
        }
        let session = &self.session;
        let established = session
            .slots
            .iter()
            .filter(|slot| slot.state == State::Established)
            .count();
        assert!(established <= 1);
        assert_eq!(established == 1, self.routes.up);
        assert_eq!(
            self.routes.stale,
            !session.stale.is_empty() || (self.routes.stale && self.routes.up)
        );
        assert!(
            session.stale.is_empty()
                || session.timers.is_set(Timer::Restart)
                || session.timers.is_set(Timer::Stale)
        );
        for side in Side::BOTH {
            let slot = session.slot(side);
            let set = |timer| {
                slot.connection
                    .as_ref()
                    .is_some_and(|connection| connection.timers.is_set(timer))
            };
            match slot.state {
                State::Idle => assert!(slot.connection.is_none()),
                State::Active => assert!(
                    side == Side::In
                        || session.passive
                        || session.timers.is_set(Timer::ConnectRetry),
                    "waits without a timer"
                ),
                State::Connect => assert!(
                    session.timers.is_set(Timer::ConnectRetry),
                    "dials without a limit"
                ),
                State::OpenSent => assert!(set(Timer::Hold)),
                State::OpenConfirm | State::Established => {
                    let negotiated = slot
                        .connection
                        .as_ref()
                        .and_then(|connection| connection.negotiated.as_ref());
                    let keeps =
                        negotiated.is_some_and(|negotiated| !negotiated.hold_time.is_zero());
                    assert_eq!((set(Timer::Hold), set(Timer::Keepalive)), (keeps, keeps));
                }
            }
        }
        assert!(
            session.refreshing.is_empty() || session.timers.is_set(Timer::Refresh),
            "a refresh without end"
        );
        assert!(session.halt.is_none() || !session.enabled);
        if session.enabled && session.state() == State::Idle {
            assert!(session.timers.is_set(Timer::IdleHold), "down for ever");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_leaves_a_sound_session(graceful: bool, inputs in prop::collection::vec(input(), 1..60)) {
        let mut bench = Bench::new(graceful);
        for input in &inputs {
            bench.apply(input);
        }
        // Whatever happened, the peer can come up again.
        if !bench.config.passive {
            bench.apply(&Input::Start);
        }
    }
}

#[test]
fn a_peer_that_reads_nothing_is_given_up() {
    let mut bench = Bench::new(false);
    bench.apply(&Input::Connected(0));
    bench.open(0, 65002, 90, false);
    bench.apply(&Input::Keepalive(0));
    assert!(bench.routes.up);
    bench.apply(&Input::Read(0));
    let start = bench.now;
    while bench.routes.up {
        bench.pass(Duration::from_secs(20));
        bench.apply(&Input::Keepalive(0));
        assert!(bench.now < start + Duration::from_secs(600));
    }
    assert!(
        bench.now >= start + Duration::from_secs(480),
        "RFC 9687: at least eight minutes"
    );
    let (_, ended) = bench.session.last_error().unwrap();
    assert_eq!(
        ended.to_string(),
        "sent Send Hold Timer Expired (the peer does not read)"
    );
    let waiting = bench
        .session
        .connection()
        .map_or(0, |connection| usize::from(connection.has_control()));
    assert_eq!(waiting, 0);
}

/// RFC 8654 §4: we said that we take them, the peer did not.
#[test]
fn extended_messages_are_taken_from_who_takes_none() {
    let mut bench = Bench::new(false);
    bench.apply(&Input::Connected(0));
    bench.open(0, 65002, 90, false);
    bench.apply(&Input::Keepalive(0));
    bench.send(0, |out| {
        let context = Context {
            extended_message: true,
            ..Context::default()
        };
        let mut builder = UpdateBuilder::withdraw(out, &context, Family::IPV4_UNICAST);
        for n in 0..2000u32 {
            let prefix = IpNet::new_assert(Ipv4Addr::from_bits(n << 8).into(), 24);
            builder.push(prefix).unwrap();
        }
        builder.finish();
    });
    assert!(bench.routes.up);
    assert_eq!(bench.session.counters.updates_in, 1);
}

#[test]
fn a_process_that_slept_hears_the_peer_before_it_judges() {
    let mut bench = Bench::new(false);
    bench.apply(&Input::Connected(0));
    bench.open(0, 65002, 90, false);
    bench.apply(&Input::Keepalive(0));
    // Stopped for five minutes; the peer's KEEPALIVEs wait in the socket.
    bench.now += Duration::from_secs(300);
    bench.session.handle_timeout(bench.now, &mut bench.routes);
    assert!(bench.routes.up);
    bench.apply(&Input::Keepalive(0));
    bench.pass(Duration::from_secs(89));
    assert!(bench.routes.up);
    bench.pass(Duration::from_secs(2));
    assert!(!bench.routes.up, "and once more means dead");
}
