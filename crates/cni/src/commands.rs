//! The verbs (CNI specification 1.1, section 2, "CNI operations").

use std::path::Path;
use std::time::Duration;

use api::cni::{Add, AttachmentId, Check, Del, Gc, Request, Response, Verb, code};
use serde_json::{Value, json};

use crate::agent::{Deadline, NoAnswer, ask};
use crate::config::Config;
use crate::environment::{Command, Container};
use crate::error::CniError;
use crate::netns::{PodNetns, ignore_routers};
use crate::version::{LATEST, SUPPORTED, SpecVersion};
use crate::{config, link, result};

/// How long an agent that is there may take for an ADD: it needs a millisecond, and a loaded kernel maybe a second.
const ADD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a DEL lets the agent take; what it has not done by then is done without it. The agent itself needs some 20 ms.
const DEL_TIMEOUT: Duration = Duration::from_secs(5);
/// A runtime holds locks while it waits for STATUS, so the answer must come within two seconds whatever happens.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long CHECK and GC let the agent take.
const OTHER_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two questions to an agent that is starting.
const PAUSE: Duration = Duration::from_millis(50);

/// Does what is asked; what it returns goes to stdout.
pub(crate) fn run(command: &Command, stdin: &str) -> Result<Option<Value>, CniError> {
    if *command == Command::Version {
        let version = config::claimed_version(stdin);
        let version = version.as_deref().unwrap_or(LATEST);
        return Ok(Some(
            json!({ "cniVersion": version, "supportedVersions": SUPPORTED }),
        ));
    }
    if let Command::Del(id) = command {
        return del(&config::socket_for_del(stdin)?, id).map(|()| None);
    }
    let config = Config::parse(stdin)?;
    match command {
        Command::Add(container) => return add(&config, container).map(Some),
        Command::Check(container) => {
            config.version.require("CHECK", SpecVersion::V0_4_0)?;
            check(&config, container)?;
        }
        Command::Gc => {
            config.version.require("GC", SpecVersion::V1_1_0)?;
            gc(&config)?;
        }
        Command::Status => {
            config.version.require("STATUS", SpecVersion::V1_1_0)?;
            status(&config)?;
        }
        Command::Del(_) | Command::Version => {}
    }
    Ok(None)
}

fn add(config: &Config, container: &Container) -> Result<Value, CniError> {
    let mut netns = PodNetns::enter(container)?;
    let mut add = Add {
        id: container.id.clone(),
        netns: container.netns.clone(),
        network: config.name.clone(),
        pod: container.pod.clone(),
        mtu: config.mtu,
        mac: config.mac,
        addresses: config.addresses.clone(),
        default_route: config.default_route,
        spoofing: config.spoofing,
        again: false,
    };
    let deadline = Deadline::after(config.agent_timeout);
    loop {
        let request = Request::new(Verb::Add(add.clone()));
        // The configured timeout is for an agent that isn't there yet; what it has begun it may finish.
        let answer = Deadline::after(deadline.remaining().max(ADD_TIMEOUT));
        let reason = match ask(&config.socket, &request, &netns.descriptors(), answer) {
            Ok(Response::Attached(attached)) => {
                ignore_routers(&container.id.ifname);
                return Ok(result::render(config, container, &attached));
            }
            Ok(Response::Failed(failure)) => return Err(failure.into()),
            Ok(Response::Done) => return Err(not_an_answer()),
            Ok(Response::Later(reason)) => reason,
            Err(no_answer) => {
                if let NoAnswer::Broken(_) = no_answer {
                    add.again = true;
                    netns.renew()?;
                }
                no_answer.to_string()
            }
        };
        if deadline.is_over() {
            return Err(no_agent(code::TRY_AGAIN_LATER, &config.socket, &reason));
        }
        deadline.pause(PAUSE);
    }
}

/// Never fails for want of an agent: an attachment is gone when its host veth is.
fn del(socket: &Path, id: &AttachmentId) -> Result<(), CniError> {
    let request = Request::new(Verb::Del(Del { id: id.clone() }));
    match ask(socket, &request, &[], Deadline::after(DEL_TIMEOUT)) {
        Ok(Response::Done) => Ok(()),
        Ok(Response::Attached(_) | Response::Later(_) | Response::Failed(_)) | Err(_) => {
            link::delete(id)
        }
    }
}

fn check(config: &Config, container: &Container) -> Result<(), CniError> {
    let Some(previous) = &config.prev_result else {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            "CHECK needs prevResult",
        ));
    };
    let addresses = result::addresses(previous, container);
    if addresses.is_empty() {
        let ifname = &container.id.ifname;
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format_args!("prevResult has no address for {ifname}"),
        ));
    }
    let netns = PodNetns::enter(container)?;
    let request = Request::new(Verb::Check(Check {
        id: container.id.clone(),
        addresses,
        gateways: result::gateways(previous),
    }));
    expect_done(
        config,
        &request,
        &netns.descriptors(),
        OTHER_TIMEOUT,
        code::TRY_AGAIN_LATER,
    )
}

fn gc(config: &Config) -> Result<(), CniError> {
    // Without the key nothing is said about what is valid, and nothing goes.
    let Some(valid) = config.valid_attachments.clone() else {
        return Ok(());
    };
    let request = Request::new(Verb::Gc(Gc {
        network: config.name.clone(),
        valid,
    }));
    expect_done(config, &request, &[], OTHER_TIMEOUT, code::TRY_AGAIN_LATER)
}

fn status(config: &Config) -> Result<(), CniError> {
    expect_done(
        config,
        &Request::new(Verb::Status),
        &[],
        STATUS_TIMEOUT,
        code::UNAVAILABLE,
    )
}

/// Asks once for something that has no result of its own.
fn expect_done(
    config: &Config,
    request: &Request,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
    timeout: Duration,
    not_now: u32,
) -> Result<(), CniError> {
    match ask(
        &config.socket,
        request,
        descriptors,
        Deadline::after(timeout),
    ) {
        Ok(Response::Done) => Ok(()),
        Ok(Response::Failed(failure)) => Err(failure.into()),
        Ok(Response::Later(reason)) => Err(no_agent(not_now, &config.socket, &reason)),
        Ok(Response::Attached(_)) => Err(not_an_answer()),
        Err(no_answer) => Err(no_agent(not_now, &config.socket, &no_answer.to_string())),
    }
}

fn not_an_answer() -> CniError {
    CniError::new(
        code::PROTOCOL,
        "the agent answered something else than it was asked",
    )
}

fn no_agent(code: u32, socket: &Path, reason: &str) -> CniError {
    CniError::new(code, format_args!("margayd is not ready at {}: {reason}", socket.display()))
        .details("see that margayd runs on this node, and why it is not ready: `margayctl status`, or its log")
}
