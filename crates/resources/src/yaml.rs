//! Files to objects: YAML with many documents, or JSON, which is YAML. A document with a fault is left out and
//! reported with its line; the others of the file count.

#[cfg(test)]
mod tests;

use serde_saphyr::Options;

use crate::fault::{Fault, instead};
use crate::tree::{Tree, Value};
use crate::{Kind, Metadata, Object, ObjectRef, Problem, Severity};

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Objects without fault, in the file's order, each with the line it starts on.
    pub objects: Vec<(u32, Object)>,
    /// What is wrong with the others.
    pub problems: Vec<Problem>,
}

/// Reads a file. `file` is what problems call it.
#[must_use]
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut reader = Reader {
        file,
        parsed: Parsed::default(),
        base: 0,
    };
    for (first_line, document) in documents(text) {
        reader.base = first_line;
        reader.document(document);
    }
    reader.parsed
}

struct Reader<'a> {
    file: &'a str,
    parsed: Parsed,
    /// How many lines stand before the document.
    base: u32,
}

impl Reader<'_> {
    fn document(&mut self, text: &str) {
        match serde_saphyr::from_str_with_options::<Tree>(text, options()) {
            Ok(tree) => self.tree(&tree),
            Err(error) => {
                let line = error.location().map_or(1, |location| {
                    u32::try_from(location.line()).unwrap_or(u32::MAX)
                });
                let message = syntax_message(&error.to_string());
                self.problem(
                    guess(text),
                    &Fault {
                        path: Vec::new(),
                        line,
                        message,
                    },
                );
            }
        }
    }

    fn tree(&mut self, tree: &Tree) {
        match &tree.value {
            // Nothing but comments.
            Value::Null => {}
            Value::Map(_) if matches!(tree.text("kind"), Some("List")) => {
                match tree.child("items").map(|t| &t.value) {
                    Some(Value::List(items)) => items.iter().for_each(|item| self.object(item)),
                    _ => self.problem(
                        None,
                        &Fault::at("items", "a List needs `items`").on_line(tree.line),
                    ),
                }
            }
            Value::Map(_) => self.object(tree),
            Value::Bool(_)
            | Value::Signed(_)
            | Value::Unsigned(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => self.problem(
                None,
                &Fault::at(
                    "",
                    "an object is expected: `apiVersion`, `kind`, `metadata`, `spec`",
                )
                .on_line(tree.line),
            ),
        }
    }

    fn object(&mut self, tree: &Tree) {
        let kind = match kind(tree) {
            Ok(kind) => kind,
            Err(fault) => return self.problem(named(tree), &fault.on_line(tree.line)),
        };
        let reference = Some(reference(kind, tree));
        let object = match Object::from_tree(kind, tree) {
            Ok(object) => object,
            Err(fault) => {
                let fault = discreet(kind, fault).on_line(tree.line);
                return self.problem(reference, &fault);
            }
        };
        let faults = object.validate();
        for fault in &faults {
            self.problem(
                reference.clone(),
                &fault.clone().on_line(tree.line_of(&fault.path)),
            );
        }
        if faults.is_empty() {
            self.parsed.objects.push((self.base + tree.line, object));
        }
    }

    fn problem(&mut self, object: Option<ObjectRef>, fault: &Fault) {
        self.parsed.problems.push(Problem {
            source: self.file.to_owned(),
            line: (fault.line != 0).then(|| self.base.saturating_add(fault.line)),
            object,
            field: fault.field(),
            severity: Severity::Error,
            message: fault.message.clone(),
        });
    }
}

fn options() -> Options {
    let mut options = Options::default();
    // Kubernetes' own tools read `yes` as true, a trap which we don't copy: it stays text and is refused with a hint.
    options.strict_booleans = true;
    // The place is said by file and line already.
    options.with_snippet = false;
    // Nobody writes more; what aliases could blow up to is limited by this alone.
    options.alias_limits.max_total_replayed_events = 100_000;
    // A List of all nodes of a large cluster is one document.
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = 20_000_000;
        budget.max_events = 40_000_000;
    }
    options
}

/// Kind and version of an object, with what would be right.
fn kind(tree: &Tree) -> Result<Kind, Fault> {
    let at = |field: &str, message: String| {
        Fault::at(field, message).on_line(tree.line_of(&[field.to_owned()]))
    };
    let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
    let written = tree
        .text("kind")
        .ok_or_else(|| at("kind", format!("missing{}", instead("", &names))))?;
    let kind = Kind::from_name(written).ok_or_else(|| {
        at(
            "kind",
            format!(
                "`{written}` is not a kind that Margay reads{}",
                instead(written, &names)
            ),
        )
    })?;
    let right = kind.api_version();
    match tree.text("apiVersion") {
        Some(version) if version == right => Ok(kind),
        Some(version) => Err(at(
            "apiVersion",
            format!("`{version}` is not a version of {kind}: write `{right}`"),
        )),
        None => Err(at("apiVersion", format!("missing: write `{right}`"))),
    }
}

pub(crate) fn reference(kind: Kind, tree: &Tree) -> ObjectRef {
    let field = |name| tree.child("metadata").and_then(|it| it.text(name));
    full_reference(kind, field("name"), field("namespace"))
}

/// Without a name, no namespace says which object it is either.
fn full_reference(kind: Kind, name: Option<&str>, namespace: Option<&str>) -> ObjectRef {
    let name = name.map(|name| {
        kind.full_name(&Metadata {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            ..Metadata::default()
        })
    });
    ObjectRef {
        kind,
        name: name.unwrap_or_default(),
    }
}

/// Which object this is, where its kind is one of ours although something else is wrong.
fn named(tree: &Tree) -> Option<ObjectRef> {
    let kind = Kind::from_name(tree.text("kind")?)?;
    Some(reference(kind, tree))
}

/// What the parser says, without the place (it counts from the document's start) and its own settings.
fn syntax_message(error: &str) -> String {
    let error = error.lines().next().unwrap_or_default();
    let error = error.split(" at line ").next().unwrap_or_default();
    let error = error
        .split(", set DuplicateKeyPolicy")
        .next()
        .unwrap_or_default();
    format!("not YAML: {error}")
}

/// Which object a document that isn't YAML was going to be, so that its last good version stays in force.
fn guess(text: &str) -> Option<ObjectRef> {
    let value = |line: &'_ str, key: &str| {
        let rest = line
            .strip_prefix(key)?
            .split(" #")
            .next()
            .unwrap_or_default();
        Some(rest.trim().trim_matches(['"', '\'']).to_owned())
    };
    let kind = text.lines().find_map(|line| value(line, "kind:"))?;
    let metadata = &text[text.find("\nmetadata:")? + "\nmetadata:".len()..];
    let field = |key: &str| {
        let mut parts = metadata.split(['\n', '{', '}', ',']);
        parts.find_map(|part| value(part.trim_start(), key))
    };
    let (name, namespace) = (field("name:")?, field("namespace:"));
    let kind = Kind::from_name(&kind)?;
    Some(full_reference(kind, Some(&name), namespace.as_deref()))
}

/// The documents of a file with the number of lines before each. By the YAML specification (§9.1.2) `---` at the start
/// of a line is never content, so that a document with a syntax fault doesn't take the rest of the file with it.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        if line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
            && offset > start
        {
            documents.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, number);
        }
        offset += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents
}

/// What stands in the place of a password, or in a Secret, is not for a log, however wrong it is.
pub(crate) fn discreet(kind: Kind, fault: Fault) -> Fault {
    let password = |part: &String| matches!(part.as_str(), "password" | "nodeMeshPassword");
    let unknown = fault.message.starts_with("no such field");
    if unknown || !(kind == Kind::Secret || fault.path.iter().any(password)) {
        return fault;
    }
    let message = if kind == Kind::Secret {
        "not what a Secret has here: `data` and `stringData` are maps of texts"
    } else {
        "not where a password is: write `secretKeyRef: {name: …, key: …}`"
    };
    Fault {
        message: message.to_owned(),
        ..fault
    }
}
