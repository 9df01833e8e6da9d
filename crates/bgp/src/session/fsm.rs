//! The finite state machine of one connection (RFC 4271 §8) as a total function: any event in any state gives the next
//! state and what to do on the way.
//!
//! It departs from the RFC's letter in three places, each of which every deployed speaker shares:
//!
//! - A connection that fails or ends without a NOTIFICATION leads to Active, never to Idle: in Idle the peer's own
//!   connection would be refused just when it comes back.
//! - A NOTIFICATION is never answered, not even in the states where §8.2.2 lists it under "any other event".
//! - A timer that a state doesn't run is ignored where §8.2.2 calls it an FSM error.

use std::fmt;

/// The states of RFC 4271 §8.2.2, in the order of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Down, and connections are refused: stopped, or held off after an error.
    Idle,
    /// Waiting: for the peer to connect, or until it's time to dial again.
    Active,
    /// Dialling.
    Connect,
    /// Connected, our OPEN is sent.
    OpenSent,
    /// Both OPENs are fine, waiting for the peer's KEEPALIVE.
    OpenConfirm,
    /// Up.
    Established,
}

impl State {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] = [
        Self::Idle,
        Self::Active,
        Self::Connect,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];

    /// Whether there is a TCP connection.
    pub(crate) fn connected(self) -> bool {
        self >= Self::OpenSent
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Active => "Active",
            Self::Connect => "Connect",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// What happens to a connection; in parentheses the RFC's event numbers (RFC 4271 §8.1, RFC 9687 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// May dial (1, 3, 6).
    Start,
    /// May only be dialled (4, 5, 7).
    StartPassive,
    /// Is to end (2, 8).
    Stop,
    /// The peer has announced more prefixes than it may (8).
    TooManyPrefixes,
    /// ConnectRetryTimer (9).
    RetryExpired,
    /// HoldTimer (10).
    HoldExpired,
    /// KeepaliveTimer (11).
    KeepaliveExpired,
    /// SendHoldTimer (29).
    SendHoldExpired,
    /// TCP is up (16, 17).
    Connected,
    /// TCP is down, or could not come up (18).
    Lost,
    /// An OPEN that is fine (19).
    Open,
    /// Bytes that must be answered with a NOTIFICATION (21, 22, 28).
    Malformed,
    /// This connection gives way to the other one with the same peer (23).
    Collision,
    /// The peer opened another connection after a restart: this one is dead (RFC 4724 §4.2).
    PeerRestarted,
    /// NOTIFICATION (24, 25).
    Notification,
    /// KEEPALIVE (26).
    Keepalive,
    /// UPDATE (27).
    Update,
    /// ROUTE-REFRESH (RFC 2918).
    Refresh,
}

impl Event {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 18] = [
        Self::Start,
        Self::StartPassive,
        Self::Stop,
        Self::TooManyPrefixes,
        Self::RetryExpired,
        Self::HoldExpired,
        Self::KeepaliveExpired,
        Self::SendHoldExpired,
        Self::Connected,
        Self::Lost,
        Self::Open,
        Self::Malformed,
        Self::Collision,
        Self::PeerRestarted,
        Self::Notification,
        Self::Keepalive,
        Self::Update,
        Self::Refresh,
    ];
}

/// What to do on a transition, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Ask for a TCP connection, and limit how long it may take.
    Dial,
    /// Give up the connection that is being made.
    Abort,
    /// Dial again after a while.
    Retry,
    /// Stay down for a while and refuse connections (IdleHoldTimer, DampPeerOscillations).
    HoldOff,
    /// Send our OPEN; the peer's must come within four minutes.
    SendOpen,
    /// Adopt what the two OPENs agreed on: hold and keepalive timers.
    Agree,
    /// Send a KEEPALIVE and arm the next.
    SendKeepalive,
    /// The session is up.
    Up,
    /// The session is down.
    Down,
    /// Give the UPDATE to the RIB.
    TakeUpdate,
    /// Tell the RIB to send everything again.
    TakeRefresh,
    /// Send the NOTIFICATION that belongs to the event: the one that answers malformed bytes, or a Cease.
    Answer,
    /// Send NOTIFICATION 4/0, hold timer expired.
    NotifyHold,
    /// Send NOTIFICATION 8/0, send hold timer expired (RFC 9687).
    NotifySendHold,
    /// Send NOTIFICATION 5/1 to 5/3, by the state (RFC 6608).
    NotifyUnexpected,
    /// Close the TCP connection.
    Close,
}

/// The next state, and what to do on the way there.
pub(crate) fn step(state: State, event: Event) -> (State, &'static [Action]) {
    use Action as A;
    use Event as E;
    use State as S;

    match (state, event) {
        (S::Idle, E::Start) => (S::Connect, &[A::Dial]),
        (S::Idle, E::StartPassive) => (S::Active, &[]),
        (S::Idle, _) => (S::Idle, &[]),

        // Whoever waits or dials has no connection yet on which a message could have come.
        (S::Active, E::RetryExpired) => (S::Connect, &[A::Dial]),
        (S::Connect, E::RetryExpired) => (S::Connect, &[A::Abort, A::Dial]),
        (S::Active | S::Connect, E::Connected) => (S::OpenSent, &[A::SendOpen]),
        (S::Connect, E::Lost) => (S::Active, &[A::Retry]),
        (S::Active, E::Stop | E::Collision) => (S::Idle, &[]),
        (S::Connect, E::Stop | E::Collision) => (S::Idle, &[A::Abort]),
        (S::Active | S::Connect, _) => (state, &[]),

        (S::OpenSent, E::Open) => (S::OpenConfirm, &[A::Agree, A::SendKeepalive]),
        (S::OpenSent, E::Keepalive | E::Update | E::Refresh)
        | (S::OpenConfirm, E::Open | E::Update | E::Refresh) => {
            (S::Idle, &[A::NotifyUnexpected, A::Close, A::HoldOff])
        }

        (S::OpenConfirm, E::Keepalive) => (S::Established, &[A::Up]),
        (S::OpenConfirm | S::Established, E::KeepaliveExpired) => (state, &[A::SendKeepalive]),

        (S::OpenSent | S::OpenConfirm, E::Stop | E::Collision) => (S::Idle, &[A::Answer, A::Close]),
        (S::OpenSent | S::OpenConfirm, E::Malformed) => {
            (S::Idle, &[A::Answer, A::Close, A::HoldOff])
        }
        (S::OpenSent | S::OpenConfirm, E::HoldExpired) => {
            (S::Idle, &[A::NotifyHold, A::Close, A::HoldOff])
        }
        (S::OpenSent | S::OpenConfirm, E::SendHoldExpired) => {
            (S::Idle, &[A::NotifySendHold, A::Close, A::HoldOff])
        }
        (S::OpenSent | S::OpenConfirm, E::Notification) => (S::Idle, &[A::Close, A::HoldOff]),
        (S::OpenSent | S::OpenConfirm, E::Lost) => (S::Active, &[A::Retry]),
        (S::OpenSent | S::OpenConfirm, E::PeerRestarted) => (S::Idle, &[A::Close]),

        (S::Established, E::Keepalive) => (S::Established, &[]),
        (S::Established, E::Update) => (S::Established, &[A::TakeUpdate]),
        (S::Established, E::Refresh) => (S::Established, &[A::TakeRefresh]),
        (S::Established, E::Open) => (
            S::Idle,
            &[A::Down, A::NotifyUnexpected, A::Close, A::HoldOff],
        ),
        (S::Established, E::Stop | E::Collision) => (S::Idle, &[A::Down, A::Answer, A::Close]),
        (S::Established, E::Malformed | E::TooManyPrefixes) => {
            (S::Idle, &[A::Down, A::Answer, A::Close, A::HoldOff])
        }
        (S::Established, E::HoldExpired) => {
            (S::Idle, &[A::Down, A::NotifyHold, A::Close, A::HoldOff])
        }
        (S::Established, E::SendHoldExpired) => {
            (S::Idle, &[A::Down, A::NotifySendHold, A::Close, A::HoldOff])
        }
        (S::Established, E::Notification) => (S::Idle, &[A::Down, A::Close, A::HoldOff]),
        (S::Established, E::Lost) => (S::Active, &[A::Down, A::Retry]),
        (S::Established, E::PeerRestarted) => (S::Idle, &[A::Down, A::Close]),

        (
            S::OpenSent | S::OpenConfirm | S::Established,
            E::Start | E::StartPassive | E::RetryExpired | E::Connected,
        )
        | (S::OpenSent, E::KeepaliveExpired)
        | (S::OpenSent | S::OpenConfirm, E::TooManyPrefixes) => (state, &[]),
    }
}
