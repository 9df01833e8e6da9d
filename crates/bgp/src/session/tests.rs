//! The FSM as a whole, and the machine under any sequence of events.

use std::fmt::Write as _;

use expect_test::expect;

use super::fsm::{Action, Event, State, step};

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
