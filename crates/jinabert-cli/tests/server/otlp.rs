//! Spans of requests reach a collector.

use crate::kit::Server;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::Duration,
};

/// Collector; receives path and body of every request.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut first = String::new();
            let mut length = 0;
            stream.read_line(&mut first).expect("a request");
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a header");
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("a body");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).expect("an answer");
            if sender.send((first, body)).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

#[cfg(unix)]
#[test]
fn a_request_is_a_span_of_its_clients_trace() {
    let (address, spans) = collector();
    let mut server = Server::start(&["--otlp-endpoint", &address]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("content-type", "application/json"), ("traceparent", &parent)];
    let body = json!({ "input": "a" }).to_string();
    assert_eq!(server.send("/v1/embeddings", &headers, body.as_bytes()).status, 200);
    server.signal("-TERM");
    assert_eq!(server.ended(), Some(0));
    let (first, body) = spans.recv_timeout(Duration::from_secs(20)).expect("spans");
    assert!(first.starts_with("POST /v1/traces"), "{first}");
    let holds = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
    assert!(holds(b"POST /v1/embeddings") && holds(b"jinabert"));
    let id: Vec<u8> =
        (0..16).map(|n| u8::from_str_radix(&trace[2 * n..2 * n + 2], 16).expect("hex")).collect();
    assert!(holds(&id), "the trace of the client");
}

#[cfg(unix)]
#[test]
fn an_unreachable_collector_does_not_affect_requests() {
    let mut server = Server::start(&["--otlp-endpoint", "http://127.0.0.1:1"]);
    server.post("/v1/embeddings", &json!({ "input": "a" })).ok();
    server.signal("-TERM");
    assert_eq!(server.ended(), Some(0));
}
