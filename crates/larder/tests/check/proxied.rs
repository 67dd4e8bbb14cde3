//! Through which proxy a started larder asks: the top-level key, the environment's variables, a repository's own word.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::case::{Case, PATIENCE};

/// A server that answers everything with `body`, and the request lines that have come.
fn server(body: &'static str) -> (String, Receiver<String>) {
    answering("200 OK", body)
}

/// The same with another status.
fn answering(status: &'static str, body: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let (send, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let head = head(&mut stream);
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).expect("sent");
            // Nobody listens once the test is over.
            if send
                .send(head.lines().next().unwrap_or_default().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (address, seen)
}

fn head(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read") == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

/// The body of a file of a repository.
fn get(larder: &str, repository: &str) -> String {
    get_at(larder, &format!("{repository}/file"))
}

/// The body of the answer for a path below `/api/v1/remote/`.
fn get_at(larder: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(larder).expect("larder");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!(
        "GET /api/v1/remote/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

#[test]
fn upstreams_are_reached_as_the_nearest_word_says() {
    let (proxy, proxied) = server("through the proxy");
    let (own, _own) = server("through its own");
    let (origin, _direct) = server("directly");
    let remotes = format!(
        "remotes:\n  \
         far: {{base_url: 'http://files.example.com/root'}}\n  \
         near: {{base_url: 'http://{origin}/'}}\n  \
         own: {{base_url: 'http://files.example.com/', proxy: 'http://{own}'}}\n  \
         near-own: {{base_url: 'http://{origin}/', proxy: 'http://{own}'}}\n"
    );
    let dead = "http://127.0.0.1:1";
    for case in [
        Case::new("HTTP_PROXY", &remotes, &[])
            .env("HTTP_PROXY", &proxy)
            .env("https_proxy", dead),
        Case::new("http_proxy", &remotes, &[])
            .env("http_proxy", &format!("http://{proxy}"))
            .env("NO_PROXY", "example.org"),
        Case::new("ALL_PROXY", &remotes, &[]).env("ALL_PROXY", &proxy),
        Case::new("proxy", &format!("proxy: http://{proxy}\n{remotes}"), &[])
            .env("HTTP_PROXY", dead),
    ] {
        let home = case.lay_out();
        let larder = case.start(home.path());
        assert!(larder.ended.is_none(), "{}: {}", case.name, larder.log());
        let address = larder.address();
        let expected = [
            ("far", "through the proxy"),
            ("near", "directly"),
            ("own", "through its own"),
            ("near-own", "through its own"),
        ];
        for (repository, body) in expected {
            assert_eq!(
                get(&address, repository),
                body,
                "{}: {repository}",
                case.name
            );
        }
        let line = proxied.recv_timeout(PATIENCE).expect("a request");
        assert_eq!(
            line, "GET http://files.example.com/root/file HTTP/1.1",
            "{}",
            case.name
        );
        assert!(
            larder
                .log()
                .contains("upstreams are reached through the proxy"),
            "{}",
            larder.log()
        );
    }
    // `proxy: none` at the top: the variables are not used.
    let case = Case::new("none", &format!("proxy: none\n{remotes}"), &[])
        .env("HTTP_PROXY", "gopher://x")
        .env("ALL_PROXY", dead);
    let home = case.lay_out();
    let larder = case.start(home.path());
    assert!(
        larder.ended.is_none() && !larder.log().contains("through the proxy"),
        "{}",
        larder.log()
    );
    assert_eq!(get(&larder.address(), "near"), "directly");
}

/// 407 is a proxy's word (RFC 9110 section 15.5.8), and no login of the repository helps; a path that is empty has a name in sentences.
#[test]
fn a_login_that_the_proxy_wants_is_told_as_the_proxys() {
    let (proxy, _proxied) = answering("407 Proxy Authentication Required", "");
    let case = Case::new(
        "a proxy's login",
        "remotes: {far: {base_url: 'http://files.example.com'}}\n",
        &[],
    )
    .env("HTTP_PROXY", &format!("http://user:canary@{proxy}"));
    let home = case.lay_out();
    let larder = case.start(home.path());
    assert!(larder.ended.is_none(), "{}", larder.log());
    for (path, asked) in [
        ("far/file", "asked for file"),
        ("far/", "asked for its root"),
    ] {
        let body = get_at(&larder.address(), path);
        assert!(
            body.contains("its URL (proxy)") && !body.contains("of the repository, or correct"),
            "{body}"
        );
        assert!(body.contains(asked), "{body}");
    }
    assert!(!larder.log().contains("canary"), "{}", larder.log());
}
