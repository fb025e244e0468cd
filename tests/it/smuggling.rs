use crate::gateway::{Gateway, served};
use crate::http::{Http, Response};

/// The request that an attacker would like to have answered.
const SMUGGLED: &str = "GET /up?smuggled HTTP/1.1\r\nHost: it\r\n\r\n";

/// Sends the bytes and nothing more, and returns all responses until the end.
fn answers(gateway: &Gateway, bytes: &[u8]) -> Vec<Response> {
    let mut http = Http::over(gateway.tcp());
    http.send(bytes);
    // This tells a gateway that waits for more input that there is none.
    let _ended = http.stream.shutdown(std::net::Shutdown::Write);
    http.responses()
}

fn statuses(gateway: &Gateway, bytes: &str) -> Vec<u16> {
    answers(gateway, bytes.as_bytes()).iter().map(|response| response.status).collect()
}

/// Checks that each of these heads gets one 400, and that the bytes behind it get no answer.
#[track_caller]
fn refused(gateway: &Gateway, heads: &[&str]) {
    for head in heads {
        let found = statuses(gateway, &format!("{head}{SMUGGLED}"));
        assert_eq!(found, [400], "{head:?}");
    }
}

#[test]
fn a_length_that_is_not_plain_digits_is_refused() {
    served(|gateway| {
        for length in [
            "+5",
            "-5",
            "0x5",
            "5 5",
            "5,5",
            "5, 6",
            "5;",
            "5.0",
            "\"5\"",
            "",
            "٥",
            "1e1",
            "5\t5",
            "99999999999999999999",
            "18446744073709551616",
            "-0",
            "a",
            "5\u{b}",
        ] {
            let head = format!(
                "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\r\n"
            );
            refused(gateway, &[&head]);
        }
    });
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    served(|gateway| {
        refused(
            gateway,
            &[
                "GET /up HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\nContent-Length: 38\r\n\r\n",
                "GET /up HTTP/1.1\r\nHost: it\r\nContent-Length: 38\r\ncontent-length: 0\r\n\r\n",
                "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\nContent-Length: 5\r\n\
                 X: y\r\nContent-Length: 6\r\n\r\n",
            ],
        );
    });
}

#[test]
fn a_length_given_twice_alike_counts_once() {
    served(|gateway| {
        let length = SMUGGLED.len();
        let head = format!(
            "GET /up HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let found = statuses(gateway, &format!("{head}{SMUGGLED}"));
        assert!(matches!(found[..], [200 | 400]), "{found:?}");
    });
}

#[test]
fn a_request_with_both_a_length_and_chunks_is_refused() {
    served(|gateway| {
        for (first, second) in [
            ("Content-Length: 5", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "Content-Length: 5"),
            ("Transfer-Encoding: chunked", "Content-Length: 0"),
            ("Content-Length: 0", "Transfer-Encoding: chunked"),
            ("Content-Length: 1000", "transfer-encoding: Chunked"),
            ("Transfer-Encoding: chunked", "Content-Length: bad"),
        ] {
            for target in ["GET /up", "POST /apps/4711/events"] {
                let head = format!("{target} HTTP/1.1\r\nHost: it\r\n{first}\r\n{second}\r\n\r\n");
                refused(gateway, &[&format!("{head}0\r\n\r\n")]);
                // The same holds behind other requests in the same packet, whatever their bodies
                // are.
                let chunked = "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\n\
                               Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
                let sized = chunked.replace("Transfer-Encoding: chunked", "Content-Length: 11");
                for (before, status) in [(SMUGGLED, 200), (chunked, 401), (&sized, 401)] {
                    let found = statuses(gateway, &format!("{before}{head}0\r\n\r\n{SMUGGLED}"));
                    assert_eq!(found, [status, 400], "{before:?}{head:?}");
                }
            }
        }
    });
}

#[test]
fn an_encoding_that_does_not_end_in_chunked_is_refused() {
    served(|gateway| {
        for encoding in [
            "identity",
            "gzip",
            "chunked, identity",
            "chunked, gzip",
            "xchunked",
            "chunked;q=1",
            "",
            "\"chunked\"",
            "chunked-x",
            "chunked\u{b}",
            "cow",
        ] {
            let head =
                format!("GET /up HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: {encoding}\r\n\r\n");
            refused(gateway, &[&head]);
        }
        refused(
            gateway,
            &[
                "GET /up HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\
                 Transfer-Encoding: identity\r\n\r\n",
                "GET /up HTTP/1.0\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "GET /up HTTP/1.0\r\nHost: it\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ],
        );
    });
}

#[test]
fn chunks_that_are_malformed_are_refused() {
    served(|gateway| {
        for chunks in [
            "0x1\r\na\r\n0\r\n\r\n",
            "+1\r\na\r\n0\r\n\r\n",
            "-1\r\na\r\n0\r\n\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "\r\na\r\n0\r\n\r\n",
            ";ext\r\na\r\n0\r\n\r\n",
            "g\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\na0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1 1\r\na\r\n0\r\n\r\n",
            "1;a\nb\r\na\r\n0\r\n\r\n",
            "1\r\ra\r\n0\r\n\r\n",
            "fffffffffffffffff\r\na\r\n0\r\n\r\n",
            "10000000000000000\r\na\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\nTrailer : x\r\n\r\n",
        ] {
            let head = "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\n\
                 Transfer-Encoding: chunked\r\n\r\n";
            let found = statuses(gateway, &format!("{head}{chunks}{SMUGGLED}"));
            assert!(matches!(found[..], [] | [400]), "{chunks:?}: {found:?}");
        }
    });
}

#[test]
fn a_chunk_extension_without_end_is_cut() {
    served(|gateway| {
        let head =
            "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n";
        let extension = format!("{head}1;{}\r\na\r\n0\r\n\r\n{SMUGGLED}", "x".repeat(200_000));
        let found = statuses(gateway, &extension);
        assert!(matches!(found[..], [] | [400 | 413]), "{found:?}");
        let trailers: String = (0..5000).map(|at| format!("T{at}: x\r\n")).collect();
        let found = statuses(gateway, &format!("{head}1\r\na\r\n0\r\n{trailers}\r\n{SMUGGLED}"));
        assert!(matches!(found[..], [] | [400 | 413]), "{found:?}");
    });
}

#[test]
fn header_lines_that_readers_disagree_on_are_refused() {
    served(|gateway| {
        for line in [
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Content-Length : 38",
            " Content-Length: 38",
            "\tContent-Length: 38",
            "X: y\r\n Content-Length: 38",
            "X: y\r\n\tfolded",
            "X: y\r\n ",
            "Content-Length: 3\r\n 8",
            "X: a\rContent-Length: 38",
            "X: a\r\rb",
            "X: a\u{0}b",
            "X: a\u{7f}b",
            "no colon",
            ": no name",
            "X Y: z",
            "X\u{0}: z",
            "X(: z",
            "X[]: z",
            "\"X\": z",
            "Ü: z",
        ] {
            refused(gateway, &[&format!("GET /up HTTP/1.1\r\nHost: it\r\n{line}\r\n\r\n")]);
        }
    });
}

#[test]
fn request_lines_that_readers_disagree_on_are_refused() {
    served(|gateway| {
        refused(
            gateway,
            &[
                "GET /up\r\n\r\n",
                "GET /up HTTP/1.2\r\nHost: it\r\n\r\n",
                "GET /up HTTP/2.0\r\nHost: it\r\n\r\n",
                "GET /up HTTP/0.9\r\nHost: it\r\n\r\n",
                "GET /up http/1.1\r\nHost: it\r\n\r\n",
                "GET /up HTTP/1.1x\r\nHost: it\r\n\r\n",
                "GET /up HTTP/11\r\nHost: it\r\n\r\n",
                "GET /up  HTTP/1.1\r\nHost: it\r\n\r\n",
                "GET  /up HTTP/1.1\r\nHost: it\r\n\r\n",
                "GET\t/up HTTP/1.1\r\nHost: it\r\n\r\n",
                " GET /up HTTP/1.1\r\nHost: it\r\n\r\n",
                "GET /up HTTP/1.1\rHost: it\r\n\r\n",
                "GET /u\u{0}p HTTP/1.1\r\nHost: it\r\n\r\n",
                "G@T /up HTTP/1.1\r\nHost: it\r\n\r\n",
                "/up HTTP/1.1\r\nHost: it\r\n\r\n",
                "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n",
            ],
        );
    });
}

#[test]
fn a_request_without_exactly_one_host_is_refused() {
    served(|gateway| {
        refused(
            gateway,
            &[
                "GET /up HTTP/1.1\r\n\r\n",
                "GET /up HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                "GET /up HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            ],
        );
        assert_eq!(statuses(gateway, "GET /up HTTP/1.0\r\n\r\n"), [200]);
    });
}

#[test]
fn lines_that_end_in_a_bare_line_feed_hide_no_request() {
    served(|gateway| {
        let length = SMUGGLED.len();
        for head in [
            format!("GET /up HTTP/1.1\nHost: it\nContent-Length: {length}\n\n"),
            format!("GET /up HTTP/1.1\r\nHost: it\nContent-Length: {length}\r\n\r\n"),
            format!("GET /up HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\n"),
        ] {
            let found = statuses(gateway, &format!("{head}{SMUGGLED}"));
            assert!(matches!(found[..], [200 | 400]), "{head:?}: {found:?}");
        }
    });
}

#[test]
fn the_body_of_a_refused_request_is_no_request() {
    served(|gateway| {
        let length = SMUGGLED.len();
        for (target, status) in [
            ("GET /nothing", 404),
            ("PUT /up", 405),
            ("POST /apps/9/events", 404),
            ("POST /apps/4711/events", 401),
            ("GET /app/it-key", 426),
        ] {
            let head = format!("{target} HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(statuses(gateway, &format!("{head}{SMUGGLED}")), [status], "{target}");
            // The request is cut where it hurts most: the body comes when the answer is already
            // out.
            let mut http = Http::over(gateway.tcp());
            http.send(head.as_bytes());
            if status != 401 {
                assert_eq!(http.response().status, status);
            }
            http.send(SMUGGLED.as_bytes());
            let _ended = http.stream.shutdown(std::net::Shutdown::Write);
            let rest: Vec<_> = http.responses().iter().map(|of| of.status).collect();
            assert!(rest.is_empty() || rest == [401], "{target}: {rest:?}");
        }
        let large = format!(
            "POST /apps/4711/events HTTP/1.1\r\nHost: it\r\nContent-Length: 200000\r\n\r\n{}",
            SMUGGLED.repeat(200_000 / length)
        );
        assert_eq!(statuses(gateway, &large), [413]);
    });
}

#[test]
fn bytes_behind_a_refused_upgrade_are_no_request() {
    served(|gateway| {
        let bad = crate::raw::handshake().replace("Version: 13", "Version: 12");
        let found = statuses(gateway, &format!("{bad}{SMUGGLED}"));
        // A refused handshake is a plain answer: the next request is one, as with any other.
        assert!(matches!(found[..], [426] | [426, 200]), "{found:?}");
        let unknown = crate::raw::handshake().replace("it-key", "nobody");
        let mut http = Http::over(gateway.tcp());
        http.send(format!("{unknown}{SMUGGLED}").as_bytes());
        assert_eq!(http.response().status, 101);
        let (mut stream, mut rest) = http.into_parts();
        // A reset is an end as well.
        let _end = std::io::Read::read_to_end(&mut stream, &mut rest);
        assert!(!rest.windows(4).any(|bytes| bytes == b"HTTP"), "{rest:?}");
    });
}
