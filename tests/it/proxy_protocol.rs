use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{DEADLINE, Gateway, SHARD_COUNTS, Setup, eventually};
use crate::http::{Call, Http};
use crate::left_out::{left_out, runs};
use crate::raw::{self, Raw};

const TOO_MANY: &str = "Too many connections from your address. Please reconnect later.";

/// A gateway that listens for HTTP as usual, and for the PROXY protocol on another port.
fn start(shards: usize, settings: impl Fn(Setup) -> Setup) -> Gateway {
    let setup = settings(Setup::new(shards));
    let http = setup.address();
    let proxied = proxied_port(http);
    let unix = setup.path("proxied.sock");
    let setup = setup.flag(&format!("--listen=tcp://{http}"));
    let setup = setup.flag(&format!("--listen=tcp+proxy://{proxied}"));
    setup.flag(&format!("--listen=unix+proxy://{}", unix.display())).start()
}

fn proxied_port(address: SocketAddr) -> SocketAddr {
    (address.ip(), address.port() + 1).into()
}

fn served(settings: impl Fn(Setup) -> Setup, test: impl Fn(&Gateway)) {
    SHARD_COUNTS.iter().for_each(|&shards| test(&start(shards, &settings)));
}

/// Opens a connection that begins with these bytes.
fn opened(gateway: &Gateway, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxied_port(gateway.address())).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(header).unwrap();
    stream
}

fn version_1(source: &str) -> Vec<u8> {
    let (family, destination) =
        if source.contains(':') { ("TCP6", "::1") } else { ("TCP4", "192.0.2.1") };
    format!("PROXY {family} {source} {destination} 47011 443\r\n").into_bytes()
}

/// A header of version 2 with an extension, as the load balancers of clouds add them.
fn version_2(source: Ipv4Addr) -> Vec<u8> {
    let mut rest = source.octets().to_vec();
    rest.extend([192, 0, 2, 1, 0xb7, 0xa3, 0x01, 0xbb]);
    rest.extend([0xea, 0, 4, 1, 2, 3, 4]);
    framed(0x21, 0x11, &rest)
}

fn version_2_ipv6(source: Ipv6Addr) -> Vec<u8> {
    framed(0x21, 0x21, &[&source.octets()[..], &[0; 16], &[0xb7, 0xa3, 0x01, 0xbb]].concat())
}

fn framed(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

fn client(gateway: &Gateway, header: &[u8], headers: &[(&str, &str)]) -> Client {
    Client::over(opened(gateway, header), gateway, &target(), headers)
}

#[test]
fn the_address_in_the_header_is_the_clients_whatever_http_says() {
    let one = |setup: Setup| setup.env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1");
    served(one, |gateway| {
        let first = Ipv4Addr::new(203, 0, 113, 7);
        let mut held = client(gateway, &version_2(first), &[]);
        held.established();
        let forged = [("X-Forwarded-For", "203.0.113.99")];
        client(gateway, &version_2(first), &forged).expect_refusal(4100, TOO_MANY);
        client(gateway, &version_1("203.0.113.7"), &[]).expect_refusal(4100, TOO_MANY);
        client(gateway, &version_1("203.0.113.8"), &[]).established();
        let ipv6 = "2001:db8::1".parse().unwrap();
        let mut held_too = client(gateway, &version_2_ipv6(ipv6), &[]);
        held_too.established();
        client(gateway, &version_1("2001:db8::2"), &[]).expect_refusal(4100, TOO_MANY);
    });
}

#[test]
fn behind_a_balancer_a_trusted_proxy_is_believed_about_its_clients() {
    let two_proxies = |setup: Setup| {
        let setup = setup.env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1");
        setup.env("RINGWAVE_TRUSTED_PROXIES", "10.1.0.0/16")
    };
    served(two_proxies, |gateway| {
        let inner = version_1("10.1.2.3");
        let mut held = client(gateway, &inner, &[("X-Forwarded-For", "203.0.113.1")]);
        held.established();
        client(gateway, &inner, &[("X-Forwarded-For", "203.0.113.2")]).established();
        client(gateway, &inner, &[("X-Forwarded-For", "203.0.113.1")])
            .expect_refusal(4100, TOO_MANY);
    });
}

#[test]
fn a_proxy_that_speaks_for_itself_has_the_address_that_it_connects_from() {
    let debug = |setup: Setup| setup.flag("--debug");
    served(debug, |gateway| {
        let own = "client=127.0.0.1";
        for (header, at_least) in [
            (b"PROXY UNKNOWN\r\n".to_vec(), 1),
            (framed(0x20, 0, b""), 2),
            (framed(0x21, 0, b""), 3),
        ] {
            client(gateway, &header, &[]).established();
            eventually("the log names it", || {
                (gateway.log().matches(own).count() >= at_least).then_some(())
            });
        }
        client(gateway, &version_1("203.0.113.50"), &[]).established();
        gateway.logged(&["connection established", "client=203.0.113.50"]);
    });
}

#[test]
fn no_byte_behind_the_header_is_lost_wherever_the_stream_is_cut() {
    served(
        |setup| setup,
        |gateway| {
            let ping = raw::text(r#"{"event":"pusher:ping","data":{}}"#);
            for header in [version_1("203.0.113.1"), version_2(Ipv4Addr::new(203, 0, 113, 1))] {
                let bytes = [&header[..], raw::handshake().as_bytes(), &ping].concat();
                // The cuts are at every place in the header, and at every seventh behind it.
                let cuts = (0..header.len() + 4).chain((header.len() + 4..bytes.len()).step_by(7));
                for cut in cuts {
                    let mut stream = opened(gateway, &bytes[..cut]);
                    stream.write_all(&bytes[cut..]).unwrap();
                    let mut raw = Raw::over(stream, b"");
                    raw.established();
                    assert_eq!(raw.message(), r#"{"event":"pusher:pong"}"#, "cut at {cut}");
                }
                let mut stream = opened(gateway, b"");
                bytes.chunks(1).for_each(|byte| stream.write_all(byte).unwrap());
                Raw::over(stream, b"").established();
            }
        },
    );
}

#[test]
fn requests_of_the_api_come_behind_the_header_as_well_and_keep_the_connection() {
    served(
        |setup| setup,
        |gateway| {
            let header = version_1("203.0.113.1");
            let bytes = [&header[..], &Call::get("channels").bytes()].concat();
            let mut http = Http::over(opened(gateway, &bytes));
            assert_eq!(http.response().status, 200);
            http.send(&Call::get("channels").bytes());
            assert_eq!(http.response().status, 200);
        },
    );
}

#[test]
fn without_its_header_a_connection_is_closed_without_an_answer() {
    served(
        |setup| setup.env("RINGWAVE_HEADER_TIMEOUT", "1"),
        |gateway| {
            let too_long = format!("PROXY UNKNOWN {}", "x".repeat(200));
            let up = "GET /up HTTP/1.1\r\nHost: it\r\n\r\n";
            let twice = format!("PROXY TCP4 1.2.3.4 a 1 2\r\n{up}");
            for wrong in [up, "PROXY TCP4 1.2.3.4\r\n", &twice, &too_long, "\r\n\r\n\0\r\nQUIT\r"] {
                assert_eq!(unanswered(opened(gateway, wrong.as_bytes())), b"", "{wrong:?}");
            }
            for partial in ["", "PROXY ", "\r\n\r\n\0"] {
                let started = Instant::now();
                assert_eq!(unanswered(opened(gateway, partial.as_bytes())), b"", "{partial:?}");
                assert!(started.elapsed() >= Duration::from_millis(900), "it could still come");
            }
            // The other listener takes no header, or a client could choose its address with one.
            let status = eventually("an answer", || {
                let mut http = Http::over(gateway.tcp());
                http.send(&[&version_1("203.0.113.1")[..], up.as_bytes()].concat());
                // There is no answer at all if the head came a second late.
                Some(http.response().status).filter(|&status| status != 0)
            });
            assert_eq!(status, 400);
        },
    );
}

/// The bytes that are received until the stream ends, by a close or a reset.
fn unanswered(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        received.extend(&buffer[..count]);
    }
    received
}

#[test]
fn a_stop_does_not_wait_for_headers_that_may_never_come() {
    for shards in SHARD_COUNTS {
        let mut gateway = start(shards, |setup| setup.env("RINGWAVE_SHUTDOWN_WINDOW", "0"));
        let waiting: Vec<_> = (0..8).map(|_| opened(&gateway, b"PROXY ")).collect();
        Call::get("channels").ok(&gateway);
        let started = Instant::now();
        gateway.signal(rustix::process::Signal::TERM);
        assert!(gateway.ended().success());
        assert!(started.elapsed() < Duration::from_secs(8), "heads have ten seconds");
        drop(waiting);
    }
}

#[test]
fn a_unix_socket_speaks_it_too() {
    served(
        |setup| setup.env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1").flag("--debug"),
        |gateway| {
            let connect = || {
                let stream = UnixStream::connect(gateway.path("proxied.sock")).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut http = Http::over(stream);
                let header = version_1("203.0.113.1");
                http.send(&[&header[..], &Call::get("channels").bytes()].concat());
                (http.response().status, http)
            };
            let (status, held) = connect();
            assert_eq!(status, 200);
            assert_eq!(connect().0, 429);
            drop(held);
            eventually("its place is free", || (connect().0 == 200).then_some(()));
        },
    );
}

// ---- nginx --------------------------------------------------------------------------------------

/// The path of the module on Debian. An nginx with `stream` built in does not need it.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

struct Nginx(Child);

impl Nginx {
    /// Starts an nginx that passes bytes on, with the header. Returns `None` if there is no nginx
    /// with `stream`; the test is left out then.
    fn passing_bytes(gateway: &Gateway, listen: SocketAddr) -> Option<Self> {
        if !runs("nginx", &["-v"]) {
            return None;
        }
        let built = Command::new("nginx").arg("-V").output().ok()?;
        let built = String::from_utf8_lossy(&built.stderr).into_owned();
        let module = std::env::var("RINGWAVE_TEST_NGINX_STREAM_MODULE");
        let module = module.unwrap_or_else(|_| STREAM_MODULE.to_owned());
        let load = match Path::new(&module).exists() {
            true => format!("load_module {module};"),
            false if built.contains("--with-stream ") => String::new(),
            false => {
                left_out("nginx has no module stream (libnginx-mod-stream)");
                return None;
            }
        };
        let upstream = proxied_port(gateway.address());
        let stream = format!(
            "stream {{ server {{ listen {listen}; proxy_pass {upstream}; proxy_protocol on; }} }}"
        );
        Some(Self::start(gateway, listen, &load, &stream))
    }

    /// Starts an nginx that passes requests on over a unix socket, with `X-Forwarded-For`. Returns
    /// `None` if there is no nginx; the test is left out then.
    fn passing_requests(gateway: &Gateway, listen: SocketAddr, socket: &Path) -> Option<Self> {
        if !runs("nginx", &["-v"]) {
            return None;
        }
        let here = gateway.path("");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|of| format!("{of}_temp_path {}{of}; ", here.display()));
        let http = format!(
            "http {{ access_log off; {} server {{ listen {listen}; location / {{\n\
             proxy_pass http://unix:{}:;\nproxy_http_version 1.1;\n\
             proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;\n\
             }} }} }}",
            temporary.concat(),
            socket.display(),
        );
        Some(Self::start(gateway, listen, "", &http))
    }

    fn start(gateway: &Gateway, listen: SocketAddr, load: &str, block: &str) -> Self {
        let here = gateway.path("");
        let configuration = format!(
            "{load}\ndaemon off;\nmaster_process off;\npid {}pid;\nerror_log stderr;\n\
             events {{}}\n{block}\n",
            here.display()
        );
        let file = gateway.path("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-p").arg(here).stderr(Stdio::null());
        let nginx = Self(command.spawn().unwrap());
        eventually("nginx listens", || TcpStream::connect(listen).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Publishes to `room` once the harness's own connections have ended, because its address may have
/// only one.
fn published(gateway: &Gateway) {
    let event = Call::post("events", &json!({ "name": "e", "channel": "room", "data": "1" }));
    eventually("the event is taken", || (event.send(gateway).status == 200).then_some(()));
}

#[test]
fn nginx_tells_its_clients_by_the_proxy_protocol() {
    let one = |setup: Setup| setup.env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1");
    served(one, |gateway| {
        let address = gateway.address();
        let listen = SocketAddr::from((address.ip(), address.port() + 2));
        let Some(_nginx) = Nginx::passing_bytes(gateway, listen) else { return };
        let from = |number| {
            let stream = gateway.tcp_between(Ipv4Addr::new(127, 9, 1, number), listen);
            Client::over(stream, gateway, &target(), &[])
        };
        let mut held = from(1);
        held.established();
        from(1).expect_refusal(4100, TOO_MANY);
        from(2).established();
        held.subscribe("room");
        published(gateway);
        held.expect_event("room", "e", "1");
    });
}

#[test]
fn nginx_tells_its_clients_by_a_header_that_they_cannot_forge() {
    for shards in SHARD_COUNTS {
        let setup = Setup::new(shards).env("RINGWAVE_MAX_CONNECTIONS_PER_ADDRESS", "1");
        let socket = setup.path("gateway.sock");
        let (unix, tcp) = (format!("unix://{}", socket.display()), setup.address());
        let setup = setup.flag(&format!("--listen={unix}")).flag(&format!("--listen=tcp://{tcp}"));
        let gateway = &setup.start();
        let listen = SocketAddr::from((tcp.ip(), tcp.port() + 2));
        let Some(_nginx) = Nginx::passing_requests(gateway, listen, &socket) else { return };
        let from = |number, forged: &str| {
            let stream = gateway.tcp_between(Ipv4Addr::new(127, 9, 2, number), listen);
            let forged = [("X-Forwarded-For", forged), ("Forwarded", "for=203.0.113.9")];
            Client::over(stream, gateway, &target(), &forged)
        };
        let mut held = from(1, "203.0.113.1");
        held.established();
        from(1, "203.0.113.2").expect_refusal(4100, TOO_MANY);
        from(2, "203.0.113.1").established();
        held.subscribe("room");
        published(gateway);
        held.expect_event("room", "e", "1");
    }
}
