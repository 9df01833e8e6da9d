//! Tables: medians with their spread, ratios, and the goals beside them.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::scenario::Scenario;
use crate::subject::Subject;

/// One figure of a scenario.
#[derive(Debug)]
pub(crate) struct Column {
    /// What it is, and in which unit.
    pub(crate) name: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    /// What must hold for Margay.
    pub(crate) goals: &'static [Goal],
}

/// What must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At most this.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// At most this many times what another has in the same run.
    Of(f64, Subject),
}

impl Goal {
    /// Whether it holds; `None` if there is nothing to compare with.
    fn holds(self, ours: f64, median: impl Fn(Subject) -> Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(ours <= most),
            Self::Below(limit) => Some(ours < limit),
            Self::Of(times, other) => median(other).map(|theirs| ours <= times * theirs),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Below(limit) => write!(f, "< {limit}"),
            Self::Of(times, other) => write!(f, "<= {times} of {other}"),
        }
    }
}

/// What came of a scenario.
#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    runs: BTreeMap<Subject, Vec<Vec<f64>>>,
    failures: Vec<(Subject, String)>,
}

impl Table {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            columns: scenario.columns,
            runs: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Takes in one measurement: a figure for each column.
    pub(crate) fn add(&mut self, subject: Subject, result: Result<Vec<f64>>) {
        match result {
            Ok(figures) => self.runs.entry(subject).or_default().push(figures),
            Err(error) => self.failures.push((subject, format!("{error:#}"))),
        }
    }

    /// Whether Margay has been measured without a failure and reaches every goal.
    pub(crate) fn holds(&self) -> bool {
        let failed = self
            .failures
            .iter()
            .any(|(subject, _)| *subject == Subject::Margay);
        let mut goals = self.goals();
        !failed && goals.all(|(_, _, holds)| holds != Some(false))
    }

    /// Every goal, with the number of its column.
    fn goals(&self) -> impl Iterator<Item = (usize, Goal, Option<bool>)> + '_ {
        (0..).zip(self.columns).flat_map(move |(at, column)| {
            let ours = self.median(Subject::Margay, at);
            column.goals.iter().map(move |goal| {
                let median = |other| self.median(other, at);
                (at, *goal, ours.and_then(|ours| goal.holds(ours, median)))
            })
        })
    }

    fn figures(&self, subject: Subject, column: usize) -> Vec<f64> {
        let runs = self.runs.get(&subject).into_iter().flatten();
        let figures = runs.filter_map(|run| run.get(column).copied());
        // Not every figure is one for everybody.
        let mut figures: Vec<f64> = figures.filter(|figure| !figure.is_nan()).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    fn median(&self, subject: Subject, column: usize) -> Option<f64> {
        let figures = self.figures(subject, column);
        figures.get(figures.len() / 2).copied()
    }

    /// The median, and between which figures it lies.
    fn cell(&self, subject: Subject, at: usize) -> String {
        let figures = self.figures(subject, at);
        let digits = self.columns[at].digits;
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            return String::new();
        };
        let median = figures[figures.len() / 2];
        match figures.len() {
            1 => format!("{median:.digits$} (one run)"),
            _ => format!("{median:.digits$} ({least:.digits$}-{most:.digits$})"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let names = self.columns.iter().map(|column| column.name.to_owned());
        rows.push(std::iter::once(String::new()).chain(names).collect());
        for subject in self.runs.keys() {
            let cells = (0..self.columns.len()).map(|at| self.cell(*subject, at));
            rows.push(std::iter::once(subject.to_string()).chain(cells).collect());
        }
        for other in self.runs.keys().filter(|it| **it != Subject::Margay) {
            let ratio = |at| {
                let ours = self.median(Subject::Margay, at)?;
                let theirs = self.median(*other, at)?;
                (theirs > 0.0).then(|| format!("{:.2}", ours / theirs))
            };
            let cells = (0..self.columns.len()).map(|at| ratio(at).unwrap_or_default());
            if self.runs.contains_key(&Subject::Margay) {
                let name = format!("margay / {other}");
                rows.push(std::iter::once(name).chain(cells).collect());
            }
        }
        let columns = self.columns.len() + 1;
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in &rows {
            let mut line = String::from(" ");
            for (at, cell) in (0..columns).zip(row) {
                let width = width(at);
                line += &match at {
                    0 => format!(" {cell:<width$}"),
                    _ => format!("   {cell:>width$}"),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for (at, goal, holds) in self.goals() {
            let verdict = match holds {
                Some(true) => "holds",
                Some(false) => "MISSED",
                None => "nothing to compare with",
            };
            writeln!(f, "  goal: {} {goal}: {verdict}", self.columns[at].name)?;
        }
        for (subject, failure) in &self.failures {
            writeln!(f, "  {subject}: {failure}")?;
        }
        Ok(())
    }
}
