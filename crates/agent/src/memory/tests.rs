use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

fn index(pod_cidr: &str) -> Index {
    let mut index = Index::for_node("n1");
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bgp"}, "stringData": {"key": "hush"},
    });
    index.receive(Kind::Node, &node);
    index.receive(Kind::Secret, &secret);
    assert_eq!(index.problems(), []);
    index
}

fn blocks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn read(path: &Path) -> Memory {
    Memory::read(path, "n1").unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("cluster.json");
    assert!(Memory::read(&path, "n1").unwrap().is_none());
    let before = index("10.244.1.0/24");
    let two = blocks(&["10.0.0.0/26", "10.0.0.64/26"]);
    let mut keeper = Keeper::new(path.clone(), "n1".to_owned());
    keeper.keep(&before, &two).await;
    assert_eq!(keeper.wait(), Duration::MAX);
    let memory = read(&path);
    assert_eq!(memory.index.state(), before.state());
    assert_eq!(memory.blocks, two);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Another one waits for its time.
    let after = index("10.244.2.0/24");
    keeper.changed();
    keeper.keep(&after, &two).await;
    assert_eq!(read(&path).index.state(), before.state());
    tokio::time::advance(keeper.wait()).await;
    keeper.keep(&after, &two).await;
    assert_eq!(read(&path).index.state(), after.state());

    // A block that goes does not.
    keeper.keep(&after, &two[..1]).await;
    assert_eq!(read(&path).blocks, two[..1]);
}

#[tokio::test]
async fn a_file_that_can_not_be_written_is_gone() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("cluster.json");
    let mut keeper = Keeper::new(path.clone(), "n1".to_owned());
    let two = blocks(&["10.0.0.0/26", "10.0.0.64/26"]);
    keeper.keep(&index("10.244.1.0/24"), &two).await;
    // In the way of the file beside it.
    fs::create_dir(temp.path().join("cluster.new")).unwrap();
    keeper.keep(&index("10.244.1.0/24"), &two[..1]).await;
    assert!(!path.exists());
    assert!(keeper.wait() <= PACE);
}

#[test]
fn what_is_broken_or_foreign_is_refused_with_words() {
    let path = Path::new("cluster.json");
    let text = document("n1", &index("10.244.1.0/24"), &[], Timestamp::UNIX_EPOCH).unwrap();
    let text = String::from_utf8(text).unwrap();
    let refused = |text: &str| Memory::parse(text.as_bytes(), path, "n1").unwrap_err();
    assert!(Memory::parse(text.as_bytes(), path, "n1").is_ok());
    for (from, to, words) in [
        ("\"format\":1", "\"format\":7", "its format is 7"),
        (
            "\"node\":\"n1\"",
            "\"node\":\"n2\"",
            "it is of Node n2, and this is n1",
        ),
        (
            "\"kind\":\"Node\"",
            "\"kind\":\"Pod\"",
            "an object of kind `Pod`",
        ),
        ("1970-", "hello", "is no time"),
        (
            "10.244.1.0/24",
            "10.244.1.0/99",
            "an object in it is wrong: ",
        ),
        (
            "\"blocks\":[]",
            "\"blocks\":7",
            "no copy of the cluster's objects",
        ),
    ] {
        let other = text.replace(from, to);
        assert_ne!(other, text, "{from}");
        let message = refused(&other);
        assert!(message.contains(words), "{message}");
    }
    // Cut off anywhere; and no message has what is in it.
    for length in 0..text.len() {
        let message = refused(text.get(..length).unwrap());
        assert!(
            message.contains("broken") && !message.contains("hush"),
            "{message}"
        );
    }
}
