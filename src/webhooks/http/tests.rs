use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::apps::test_app;
use crate::apps::webhook::{Header, Webhook, test_webhook};
use crate::text::WithCauses;

use super::*;

/// The reaction of a receiver to one request.
#[derive(Clone, Copy)]
enum Then {
    /// Answers, and reads on.
    Answer(&'static str),
    /// Answers and closes.
    Last(&'static str),
    /// Closes without an answer.
    Close,
    /// Never answers.
    Silence,
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A receiver that does this with one request after another, over as many connections as it
/// takes. It reports each request: the number of its connection, and its text.
fn receiver(plan: &'static [Then]) -> (SocketAddr, Receiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    thread::spawn(move || {
        let mut plan = plan.iter();
        let mut silent = Vec::new();
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            while let Some(request) = read_request(&mut stream) {
                let _test_over = sender.send((number, request));
                match plan.next() {
                    Some(Then::Answer(text)) => stream.write_all(text.as_bytes()).unwrap(),
                    Some(Then::Last(text)) => {
                        stream.write_all(text.as_bytes()).unwrap();
                        break;
                    }
                    Some(Then::Silence) => {
                        silent.push(stream);
                        break;
                    }
                    Some(Then::Close) | None => break,
                }
            }
        }
    });
    (address, requests)
}

fn read_request(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"]}") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap())
}

fn delivery(webhook: Webhook) -> Delivery {
    let (app, body) = (Arc::new(test_app()), Bytes::from_static(br#"{"time_ms":1,"events":[]}"#));
    Delivery { queue: 0, app, webhook: Arc::new(webhook), body }
}

fn at(address: SocketAddr) -> Delivery {
    delivery(test_webhook(&format!("http://{address}/hook?t=1")))
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Sends as many times over one connection; returns the result of each.
fn post(delivery: &Delivery, times: usize) -> Vec<Result<(), String>> {
    on_a_runtime(async {
        let mut connection = HttpConnection::new(TlsSetup::default(), Resolver::default());
        let mut all = Vec::new();
        for _ in 0..times {
            all.push(
                connection.post(delivery).await.map_err(|failure| WithCauses(&failure).to_string()),
            );
        }
        all
    })
}

#[test]
fn a_request_is_signed_and_has_the_headers_of_pusher_and_of_the_operator() {
    let (address, requests) = receiver(&[Then::Answer(OK)]);
    let headers = ["Authorization: Bearer x", "user-agent: mine"];
    let headers = headers.iter().map(|line| Header::parse(line).unwrap()).collect();
    let webhook = Webhook { headers, ..test_webhook(&format!("http://{address}/hook?t=1")) };
    assert_eq!(post(&delivery(webhook), 1), [Ok(())]);
    let (_, request) = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().map(str::to_lowercase).collect();
    assert_eq!(lines.remove(0), "post /hook?t=1 http/1.1");
    lines.sort();
    let signature = test_app().rules.secret.sign(&[body.as_bytes()]);
    let expected = [
        "authorization: bearer x".to_owned(),
        format!("content-length: {}", body.len()),
        "content-type: application/json".to_owned(),
        format!("host: {address}"),
        "user-agent: mine".to_owned(),
        "x-pusher-key: app-key".to_owned(),
        format!("x-pusher-signature: {signature}"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn one_connection_serves_for_many_requests_and_failures_do_not_end_it() {
    let (address, requests) = receiver(&[
        Then::Answer("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"),
        Then::Answer("HTTP/1.1 204 Fine\r\n\r\n"),
        Then::Answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        Then::Answer("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let failed = |text: &str| Err(text.to_owned());
    let expected = [
        failed("it answered 500 Internal Server Error"),
        Ok(()),
        Ok(()),
        failed("it answered 404 Not Found"),
    ];
    assert_eq!(post(&at(address), 4), expected);
    assert!((0..4).all(|_| requests.recv().unwrap().0 == 0), "all over the first connection");
}

#[test]
fn a_connection_that_ended_meanwhile_is_replaced() {
    let (address, requests) =
        receiver(&[Then::Last(OK), Then::Answer(OK), Then::Close, Then::Answer(OK)]);
    assert_eq!(post(&at(address), 3), [Ok(()), Ok(()), Ok(())]);
    let connections: Vec<_> = requests.iter().take(4).map(|(number, _)| number).collect();
    assert_eq!(connections, [0, 1, 1, 2]);
}

#[test]
fn a_receiver_that_closes_is_a_failure() {
    let (address, _told) = receiver(&[Then::Close]);
    let answered = post(&at(address), 1).remove(0).unwrap_err();
    assert!(answered.starts_with("no answer: "), "{answered}");
}

#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, requests) = receiver(&[Then::Answer(OK)]);
    let location: &'static str =
        format!("HTTP/1.1 307 T\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n")
            .leak();
    let plan = vec![Then::Answer(location)].leak();
    let (address, _told) = receiver(plan);
    let answered = post(&at(address), 1).remove(0).unwrap_err();
    assert!(answered.contains("307") && answered.contains("not followed"), "{answered}");
    assert!(requests.try_recv().is_err());
}

#[test]
fn a_receiver_that_does_not_answer_in_time_has_failed() {
    let (address, _told) = receiver(&[Then::Silence, Then::Answer(OK)]);
    let timeout = Duration::from_millis(50);
    let mut delivery = at(address);
    delivery.webhook = Arc::new(Webhook { timeout, ..(*delivery.webhook).clone() });
    assert_eq!(post(&delivery, 1), [Err("no answer in time".to_owned())]);
}

#[test]
fn an_endless_answer_is_cut_off() {
    let endless =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(100_000));
    let plan = vec![Then::Answer(endless.leak()), Then::Answer(OK)].leak();
    let (address, requests) = receiver(plan);
    assert_eq!(post(&at(address), 1), [Ok(())], "its status counts");
    assert_eq!(requests.recv().unwrap().0, 0);
}

#[test]
fn a_receiver_that_cannot_be_reached_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = post(&at(address), 1).remove(0).unwrap_err();
    assert!(refused.starts_with("none of its addresses accepted a connection: "), "{refused}");
    let nowhere = delivery(test_webhook("http://nowhere.invalid/"));
    let unknown = post(&nowhere, 1).remove(0).unwrap_err();
    assert!(unknown.contains("not found") || unknown.contains("in time"), "{unknown}");
}

#[test]
fn a_receiver_that_accepts_and_says_nothing_has_failed_in_time() {
    // The kernel takes the connection, and no process accepts it: the time for TLS runs out.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(50);
    let silent = Webhook { connect_timeout, ..test_webhook(&url) };
    assert_eq!(post(&delivery(silent), 1), [Err("no connection in time".to_owned())]);
}

#[test]
fn a_receiver_without_tls_has_failed() {
    let (address, _told) = receiver(&[Then::Close]);
    let url = format!("https://{address}/");
    let timeouts = Webhook { connect_timeout: Duration::from_secs(1), ..test_webhook(&url) };
    assert!(post(&delivery(timeouts), 1)[0].is_err());
}
