//! The configuration in force: what a source's files say, what is wrong with them, and the plan that follows for this node.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Change;
use cluster::kinds::Received;
use ipnet::IpNet;
use node::{NodePlan, PlanError};
use resources::yaml::{self, Parsed};
use resources::{Index, Kind, Problem, Severity, index};
use tracing::{error, info, warn};

use crate::memory::Memory;
use crate::source::Snapshot;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// Not all is known. What an earlier agent left in the kernel stays, and nothing is begun.
    #[error("waiting for the API server to tell all of: {0}")]
    Outstanding(String),
    /// Too little is known of the node.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What is to be asked the API server for beside what always is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All objects of these kinds.
    pub kinds: BTreeSet<Kind>,
    /// The Secrets of these names, which passwords are in.
    pub secrets: BTreeSet<String>,
}

/// The configuration in force.
#[derive(Debug)]
pub struct Configuration {
    node: String,
    index: Index,
    /// How many objects each file holds.
    files: BTreeMap<String, u64>,
    /// Why there's nothing new from the source.
    unreadable: Option<Problem>,
    /// What the API server has not told yet, and what is wrong with asking it.
    outstanding: Vec<String>,
    faults: Vec<String>,
    /// What the API server said to an agent before this one; in force until it has told this one all.
    recalled: Option<Memory>,
    /// It has.
    told: bool,
    /// Objects are others than they were.
    changed: bool,
    /// Problems that were logged already: each is logged once, for as long as it lasts.
    logged: Vec<Problem>,
}

impl Configuration {
    /// Nothing yet, for this node.
    #[must_use]
    pub fn new(node: String) -> Self {
        Self {
            index: Index::for_node(&node),
            node,
            files: BTreeMap::new(),
            unreadable: None,
            outstanding: Vec::new(),
            faults: Vec::new(),
            recalled: None,
            told: false,
            changed: false,
            logged: Vec::new(),
        }
    }

    /// The source now holds this.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        self.unreadable = None;
        self.files.clear();
        for (file, text) in snapshot {
            let parsed = match text {
                Ok(text) => yaml::parse(file, text),
                Err(error) => Parsed {
                    objects: Vec::new(),
                    problems: vec![whole_source(file, error.clone())],
                },
            };
            self.files.insert(file.clone(), parsed.objects.len() as u64);
            self.index.replace(file, parsed);
        }
        self.index
            .retain_sources(|source| snapshot.contains_key(source));
    }

    /// The source can't be read at all: what it said last stays.
    pub fn unreadable(&mut self, source: &str, error: &std::io::Error) {
        let message = format!("{error}: what was read before stays in force");
        self.unreadable = Some(whole_source(source, message));
    }

    /// The API server's objects have changed so.
    pub fn receive(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.changed |= match change {
                Change::Applied(Received::Read(object)) => self.index.apply(*object),
                Change::Applied(Received::Raw(kind, json)) => self.index.receive(kind, &json),
                Change::Deleted(object) => self.index.delete(object.kind, &object.name),
                Change::Forgotten(kind) => self.index.forget(kind),
            };
        }
        self.count();
    }

    /// Brings into force what the API server said to an earlier agent, unless it has told this one all.
    pub fn recall(&mut self, memory: Memory) {
        if !self.told {
            self.recalled = Some(memory);
            self.count();
        }
    }

    /// The API server has told all once.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// The API server's objects, and whether they are others than when this was last called.
    pub fn objects(&mut self) -> (&Index, bool) {
        let changed = std::mem::take(&mut self.changed);
        (&self.index, changed)
    }

    /// The objects in force.
    fn in_force(&self) -> &Index {
        let recalled = self.recalled.as_ref();
        recalled.map_or(&self.index, |memory| &memory.index)
    }

    fn count(&mut self) {
        let state = self.in_force().state();
        let counts = [
            (Kind::BgpConfiguration, state.configurations.len()),
            (Kind::BgpFilter, state.filters.len()),
            (Kind::BgpPeer, state.peers.len()),
            (Kind::IpPool, state.pools.len()),
            (Kind::Node, state.nodes.len()),
            (Kind::Secret, state.secrets.len()),
        ];
        let named = |(kind, count): (Kind, usize)| (kind.to_string(), count as u64);
        self.files = counts.into_iter().map(named).collect();
    }

    /// What the API server has not told yet, and what is wrong with asking it.
    pub fn set_reading(&mut self, outstanding: Vec<String>, faults: Vec<String>) {
        (self.outstanding, self.faults) = (outstanding, faults);
        if self.outstanding.is_empty() && !std::mem::replace(&mut self.told, true) {
            if let Some(memory) = self.recalled.take() {
                info!(written = %memory.written, "the API server has told all: its words replace those that were kept");
            }
            self.count();
        }
    }

    /// What is to be asked the API server for beside what always is.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let state = self.index.state();
        Wanted {
            kinds: state.further_kinds(),
            secrets: state.secret_names(),
        }
    }

    /// What this node is to do that has these blocks of pools, as far as that is known.
    ///
    /// # Errors
    /// Too little is known of it.
    pub fn plan(&self, blocks: &Result<Vec<IpNet>, String>) -> Result<NodePlan, NoPlan> {
        if self.recalled.is_none() && !self.outstanding.is_empty() {
            return Err(NoPlan::Outstanding(self.outstanding.join(", ")));
        }
        let kept = self.recalled.as_ref().map(|memory| &memory.blocks);
        let blocks = match (blocks, kept) {
            (Err(_), Some(kept)) => Ok(kept),
            (blocks, _) => blocks.as_ref(),
        };
        let known = blocks.map_or(&[][..], Vec::as_slice);
        let state = self.in_force().state();
        let mut plan = node::plan_with_blocks(state, &self.node, known)?;
        if let Err(reason) = blocks {
            return Err(PlanError::BlocksUnknown(reason.clone()).into());
        }
        plan.speaker.complete = self.is_complete();
        Ok(plan)
    }

    /// Nothing that the source means to say is known to be missing.
    fn is_complete(&self) -> bool {
        let problems = self.in_force().problems();
        let broken = |problem: &Problem| problem.severity == Severity::Error;
        self.unreadable.is_none() && !problems.iter().any(broken)
    }

    /// Each file with the number of its objects.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, u64> {
        &self.files
    }

    /// Everything that is wrong: with the files, and with what they ask of this node.
    #[must_use]
    pub fn problems(&self, plan: &Result<NodePlan, NoPlan>) -> Vec<Problem> {
        let mut problems = self.in_force().problems();
        problems.extend(self.unreadable.clone());
        problems.extend(self.recalled.as_ref().map(|memory| self.kept(memory)));
        let fault = |fault: &String| Problem {
            // What is in force stays in force while nobody can be asked for more.
            severity: match self.outstanding.is_empty() || self.recalled.is_some() {
                true => Severity::Warning,
                false => Severity::Error,
            },
            ..whole_source(index::KUBERNETES, fault.clone())
        };
        problems.extend(self.faults.iter().map(fault));
        match plan {
            Ok(plan) => {
                problems.extend(
                    plan.problems
                        .iter()
                        .cloned()
                        .map(|problem| self.locate(problem)),
                );
            }
            Err(error) => problems.push(whole_source("", error.to_string())),
        }
        problems.sort();
        problems
    }

    /// What is in force though nobody has said it to this agent.
    fn kept(&self, memory: &Memory) -> Problem {
        let outstanding = match self.outstanding.is_empty() {
            true => "everything".to_owned(),
            false => format!("all of: {}", self.outstanding.join(", ")),
        };
        let message = format!(
            "the configuration of {:.0} is in force, which {} has kept: waiting for the API server to tell {outstanding}",
            memory.written,
            memory.path.display(),
        );
        Problem {
            severity: Severity::Warning,
            ..whole_source(index::KUBERNETES, message)
        }
    }

    /// Logs what has become wrong since the last call, and what no longer is.
    pub fn log(&mut self, problems: &[Problem]) {
        for problem in problems
            .iter()
            .filter(|problem| !self.logged.contains(problem))
        {
            let (source, line) = (file(problem), problem.line);
            match problem.severity {
                Severity::Error => error!(source, line, "configuration: {problem}"),
                Severity::Warning => warn!(source, line, "configuration: {problem}"),
            }
        }
        for problem in self
            .logged
            .iter()
            .filter(|problem| !problems.contains(problem))
        {
            info!(
                source = file(problem),
                "configuration: no longer the case: {problem}"
            );
        }
        self.logged = problems.to_vec();
    }

    /// Fills in where the object that a problem is about came from.
    fn locate(&self, mut problem: Problem) -> Problem {
        if let Some(object) = &problem.object
            && let Some((source, line)) = self.in_force().origin(object.kind, &object.name)
        {
            problem.source = source.to_owned();
            problem.line = line;
        }
        problem
    }
}

/// The file to mend; `None` where no single one is to blame, and a log line then has no such field.
fn file(problem: &Problem) -> Option<&str> {
    Some(problem.source.as_str()).filter(|source| !source.is_empty())
}

fn whole_source(source: &str, message: String) -> Problem {
    Problem {
        source: source.to_owned(),
        line: None,
        object: None,
        field: String::new(),
        severity: Severity::Error,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_is_to_blame_for_names_none() {
        assert_eq!(file(&whole_source("", String::new())), None);
        let problem = whole_source("a.yaml", String::new());
        assert_eq!(file(&problem), Some("a.yaml"));
    }
}
