use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::Selector;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[track_caller]
fn check(selector: &str, matching: &[&str], others: &[&str]) {
    let parsed: Selector = selector.parse().unwrap();
    for text in matching {
        assert!(
            parsed.matches(&labels(text)),
            "`{selector}` must match `{text}`"
        );
    }
    for text in others {
        assert!(
            !parsed.matches(&labels(text)),
            "`{selector}` must not match `{text}`"
        );
    }
    assert_eq!(parsed.to_string(), selector);
}

#[track_caller]
fn check_wrong(selector: &str, expected: &Expect) {
    expected.assert_eq(&selector.parse::<Selector>().unwrap_err().to_string());
}

#[test]
fn kubernetes_syntax() {
    check(
        "rack=a",
        &["rack=a", "rack=a zone=x"],
        &["", "rack=b", "Rack=a"],
    );
    check("rack==a", &["rack=a"], &["rack=b"]);
    check("rack!=a", &["rack=b", ""], &["rack=a"]);
    check("rack", &["rack=a", "rack="], &["", "zone=x"]);
    check("!spot", &["", "rack=a"], &["spot=true"]);
    check("rack ==", &["rack="], &["", "rack=a"]);
    check("rack=", &["rack="], &["", "rack=a"]);
    check("zone in (x,y)", &["zone=x", "zone=y"], &["", "zone=z"]);
    check("zone notin (x, y)", &["", "zone=z"], &["zone=x"]);
    check(
        "rack=a,zone in (x,y),!spot",
        &["rack=a zone=y"],
        &["rack=a", "rack=a zone=y spot=1", "rack=b zone=x"],
    );
    check(
        "topology.kubernetes.io/rack = r-1.a_b",
        &["topology.kubernetes.io/rack=r-1.a_b"],
        &[""],
    );
    check("", &["", "rack=a"], &[]);
    check("in in (in)", &["in=in"], &["in=x", ""]);
}

#[test]
fn calico_syntax() {
    check("all()", &["", "rack=a"], &[]);
    check("global()", &[""], &[]);
    check("!all()", &[], &["", "rack=a"]);
    check("has(rack)", &["rack=a"], &[""]);
    check("!has(rack)", &[""], &["rack=a"]);
    check(
        "rack == 'a' && has(zone)",
        &["rack=a zone=x"],
        &["rack=a", "zone=x"],
    );
    check("rack == \"a b\" || zone == 'x'", &["zone=x"], &["rack=a"]);
    check("rack in {'a', 'b'}", &["rack=a", "rack=b"], &["", "rack=c"]);
    check("rack not in { 'a' }", &["", "rack=b"], &["rack=a"]);
    check("rack in {}", &[], &["", "rack=a"]);
    check("host contains 'dge'", &["host=edge-1"], &["host=core", ""]);
    check(
        "host starts with 'ed' && host ends with '1'",
        &["host=edge-1"],
        &["host=edge-2"],
    );
    check(
        "(a == 'x' || b == 'y') && !(c == 'z')",
        &["a=x", "b=y c=w"],
        &["a=x c=z", "c=w"],
    );
    check("a || b && c", &["a=1", "b=1 c=1"], &["b=1", "c=1"]);
    check("has (in) && has == 'y'", &["in=1 has=y"], &["in=1"]);
}

#[test]
fn faults_say_where_and_what() {
    check_wrong(
        "rack == && x",
        &expect!["`rack == && x`: expected a value at column 9"],
    );
    check_wrong(
        "rack = a b",
        &expect!["`rack = a b`: expected `&&`, `||`, `,` or the end at column 10"],
    );
    check_wrong(
        "rack a",
        &expect![
            "`rack a`: expected an operator: `=`, `!=`, `in`, `notin`, `&&`, `||` or `,` at column 6"
        ],
    );
    check_wrong(
        "zone in x",
        &expect![
            "`zone in x`: expected values in brackets, as in `(a, b)` or `{'a', 'b'}` at column 9"
        ],
    );
    check_wrong(
        "zone in (x",
        &expect!["`zone in (x`: expected `,` or the closing bracket at column 11"],
    );
    check_wrong(
        "rack == 'a",
        &expect![
            "`rack == 'a`: a character that no selector has, or a quote that isn't closed at column 9"
        ],
    );
    check_wrong(
        "rack & zone",
        &expect![
            "`rack & zone`: a character that no selector has, or a quote that isn't closed at column 6"
        ],
    );
    check_wrong(
        "&& rack",
        &expect!["`&& rack`: expected a label's name at column 1"],
    );
    check_wrong(
        "rack &&",
        &expect!["`rack &&`: expected a label's name at column 8"],
    );
    check_wrong("has(rack", &expect!["`has(rack`: expected `)` at column 9"]);
    check_wrong(
        "has('rack')",
        &expect!["`has('rack')`: expected a label's name at column 5"],
    );
    check_wrong(
        "all(rack)",
        &expect!["`all(rack)`: expected `)` at column 5"],
    );
    check_wrong("(rack", &expect!["`(rack`: expected `)` at column 6"]);
    check_wrong(
        "räck = a",
        &expect![
            "`räck = a`: a character that no selector has, or a quote that isn't closed at column 2"
        ],
    );
    assert!("(".repeat(10_000).parse::<Selector>().is_err());
    assert!("!".repeat(10_000).parse::<Selector>().is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z!=&|,(){}' ]{0,40}|.{0,20}") {
        if let Ok(selector) = text.parse::<Selector>() {
            let again: Selector = selector.to_string().parse().unwrap();
            prop_assert_eq!(selector.matches(&labels("a=b c=d")), again.matches(&labels("a=b c=d")));
        }
    }
}
