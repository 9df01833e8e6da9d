use super::parse;

#[track_caller]
fn check(raw: &str, expected: Option<(u16, &str)>) {
    let got = parse(raw.as_bytes()).ok();
    assert_eq!(
        got,
        expected.map(|(status, body)| (status, body.as_bytes().to_vec())),
        "{raw}"
    );
}

#[test]
fn bodies_end_by_length_by_chunks_or_with_the_stream() {
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        Some((200, "{}")),
    );
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}tail",
        Some((200, "{}")),
    );
    check("HTTP/1.1 404 Not Found\r\n\r\nno", Some((404, "no")));
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n3;x=y\r\na\"}\r\n0\r\n\r\n",
        Some((200, "{\"a\"}")),
    );
    check(
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        Some((200, "")),
    );
}

#[test]
fn what_breaks_off_or_is_no_http_is_refused() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None);
    check("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", None);
    check("HTTP/1.1 200 OK\r\nContent-", None);
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n",
        None,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        None,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n",
        None,
    );
    check("SSH-2.0-OpenSSH\r\n", None);
}
