//! A type's JSON Schema to a structural schema, which is what the API server takes
//! (Kubernetes: "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema").

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The longest text where nothing else is said: a Kubernetes name's. Rules in CEL have a price, which a bound keeps low.
const TEXT: u32 = 253;
/// The longest list where nothing else is said.
const LIST: u32 = 128;

/// The structural schema of a type.
#[must_use]
pub fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema = settings.into_generator().into_root_schema_for::<T>();
    structural(schema.to_value())
}

/// Known by their names to JSON Schema and to Rust, not to the API server.
const FOREIGN: [&str; 6] = [
    "$schema",
    "title",
    "default",
    "format",
    "additionalProperties",
    "definitions",
];

fn structural(value: Value) -> Value {
    let Value::Object(mut schema) = value else {
        return value;
    };
    let open = schema.get("additionalProperties").cloned();
    schema.retain(|key, _| !FOREIGN.contains(&key.as_str()));
    if let Some(kind @ Value::Object(_)) = open {
        schema.insert("additionalProperties".to_owned(), structural(kind));
        schema.insert("maxProperties".to_owned(), json!(LIST));
    }
    for alternatives in ["anyOf", "oneOf"] {
        if !schema.contains_key("x-kubernetes-int-or-string") {
            fold(&mut schema, alternatives);
        }
    }
    if let Some(Value::Array(types)) = schema.get("type") {
        let named = types.iter().find(|name| *name != "null").cloned();
        schema.insert("type".to_owned(), named.unwrap_or_default());
    }
    // Of an enum that may be absent.
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = plain(text);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = structural(property.take());
        }
    }
    if let Some(items) = schema.get_mut("items") {
        *items = structural(items.take());
        schema.entry("maxItems").or_insert(json!(LIST));
    }
    if schema.get("type") == Some(&json!("string")) && !schema.contains_key("enum") {
        schema.entry("maxLength").or_insert(json!(TEXT));
    }
    Value::Object(schema)
}

/// An `Option` is its content, and an enum the list of its values, each with what it means.
fn fold(schema: &mut Map<String, Value>, alternatives: &str) {
    let Some(Value::Array(variants)) = schema.remove(alternatives) else {
        return;
    };
    let null = |variant: &Value| {
        variant["type"] == "null"
            || variant["const"] == Value::Null && variant.get("const").is_some()
    };
    let mut variants: Vec<Value> = variants
        .into_iter()
        .filter(|variant| !null(variant))
        .collect();
    let own = schema.get("description").cloned();
    if variants.len() == 1
        && variants
            .first()
            .is_some_and(|one| one.get("const").is_none())
    {
        if let Some(Value::Object(inner)) = variants.pop() {
            schema.extend(inner);
        }
        for alternatives in ["anyOf", "oneOf"] {
            if !schema.contains_key("x-kubernetes-int-or-string") {
                fold(schema, alternatives);
            }
        }
        // What the field is for says more than what its type is.
        let inner = schema
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned);
        match (own, inner) {
            (Some(Value::String(own)), Some(inner)) => {
                let values = inner
                    .find("\n`")
                    .map(|at| inner[at..].to_owned())
                    .unwrap_or_default();
                schema.insert("description".to_owned(), json!(own + &values));
            }
            (Some(own), None) => {
                schema.insert("description".to_owned(), own);
            }
            _ => {}
        }
        return;
    }
    let mut values = Vec::new();
    let mut text = own
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    for variant in variants {
        let meaning = variant["description"]
            .as_str()
            .map(plain)
            .unwrap_or_default();
        let names = match (&variant["const"], &variant["enum"]) {
            (Value::String(name), _) => vec![json!(name)],
            (_, Value::Array(names)) => names.clone(),
            _ => Vec::new(),
        };
        for name in &names {
            text += &format!("\n`{}`: {meaning}", name.as_str().unwrap_or_default());
        }
        values.extend(names);
    }
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(values));
    schema.insert("description".to_owned(), json!(text));
}

/// Documentation for a terminal: no links to Rust, and lines as long as they like.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for line in text.lines() {
        let joint = match line {
            _ if plain.is_empty() => "",
            "" => "\n",
            _ if line.starts_with('`') => "\n",
            _ => " ",
        };
        plain += joint;
        plain += line.trim();
    }
    let mut out = String::new();
    let mut rest = plain.as_str();
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, behind)) = after.split_once("`]") else {
            break;
        };
        out += before;
        out += "`";
        out += name.rsplit("::").next().unwrap_or(name);
        out += "`";
        rest = behind;
        if let Some((_, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            rest = behind;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_has_no_links() {
        assert_eq!(plain("As\n[`Self::In`](x) says."), "As `In` says.");
        assert_eq!(plain("RFC [1]"), "RFC [1]");
    }
}
