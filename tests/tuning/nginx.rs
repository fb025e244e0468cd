//! The site, with a certificate of its own and both upstreams, in an nginx of its own.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use ringwave::testing::config::{Config, Environment, Flags, load};

use crate::gateway::{self, Process, carries, free_port, free_ports, tcp, unix, until};
use crate::left_out::runs;
use crate::{Directory, replaced, root, setting, tuning};

#[test]
fn nginx_carries_websockets_and_the_api_over_a_unix_socket() {
    if !(runs("nginx", &["-v"]) && runs("openssl", &["version"])) {
        return;
    }
    let directory = Directory::new();
    let socket = directory.at("ringwave.sock");
    let upstream = replaced(&tuning("nginx/upstream-unix.conf"), SOCKET, &socket);
    let mut gateway = Process::start(&mut gateway::ringwave(&directory, &[gateway::url(&socket)]));
    until("the gateway's socket", || unix(&socket).is_ok());
    let port = free_port();
    let mut nginx = start_nginx(&directory, port, &tuning("nginx/site.conf"), &upstream);
    carries(Tls::connect(port), Tls::connect(port));
    assert!(nginx.terminate().success());
    assert!(gateway.terminate().success());
}

#[test]
fn nginx_carries_websockets_and_the_api_over_several_ports() {
    if !(runs("nginx", &["-v"]) && runs("openssl", &["version"])) {
        return;
    }
    let directory = Directory::new();
    let [port, ports @ ..] = free_ports::<5>();
    let mut upstream = tuning("nginx/upstream-ports.conf");
    for (shipped, own) in (8080..).zip(ports) {
        upstream =
            replaced(&upstream, &format!("127.0.0.1:{shipped}"), &format!("127.0.0.1:{own}"));
    }
    // The setting is taken from the comment of the file, which tells the one that goes with the
    // upstream.
    let setting = upstream.lines().find_map(|line| line.split_once("RINGWAVE_LISTEN="));
    let mut command = gateway::ringwave(&directory, &[]);
    let mut gateway = Process::start(command.env("RINGWAVE_LISTEN", setting.unwrap().1));
    until("the gateway's ports", || ports.iter().all(|&port| tcp(port).is_ok()));
    let mut nginx = start_nginx(&directory, port, &tuning("nginx/site.conf"), &upstream);
    for _ in ports {
        carries(Tls::connect(port), Tls::connect(port));
    }
    assert!(nginx.terminate().success());
    assert!(gateway.terminate().success());
}

#[test]
fn nginx_waits_longer_for_a_silent_websocket_than_the_gateway_does() {
    let config = defaults();
    let app = config.apps.iter().next().unwrap();
    let site = tuning("nginx/site.conf");
    let (_, websockets) = site.split_once("location /app/ {").unwrap();
    for timeout in ["proxy_read_timeout ", "proxy_send_timeout "] {
        let seconds: u64 = setting(websockets, timeout).trim_end_matches('s').parse().unwrap();
        assert!(seconds > (app.ping_interval + app.pong_timeout).as_secs());
    }
}

#[test]
fn nginx_gives_up_an_idle_connection_before_the_gateway_does() {
    let waits = ringwave::testing::front::Settings::default().idle_timeout.as_secs();
    for upstream in ["nginx/upstream-unix.conf", "nginx/upstream-ports.conf"] {
        let keeps = tuning(upstream);
        let keeps: u64 =
            setting(&keeps, "keepalive_timeout ").trim_end_matches('s').parse().unwrap();
        assert!(keeps < waits);
    }
}

/// The configuration without any settings.
pub(crate) fn defaults() -> Config {
    let flags = Flags { dev: true, ..Flags::default() };
    load(&flags, &Environment::default(), &root().join("tuning")).unwrap()
}

pub(crate) const SOCKET: &str = "/run/ringwave/ringwave.sock";

/// The shipped main file and a site, with the paths and the port of this test.
pub(crate) fn start_nginx(directory: &Directory, port: u16, site: &str, upstream: &str) -> Process {
    let certificate = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-subj", "/CN=ws.example.com", "-days", "2"])
        .args(["-keyout", "privkey.pem", "-out", "fullchain.pem"])
        .current_dir(&directory.0)
        .stderr(Stdio::null())
        .status();
    assert!(certificate.unwrap().success());

    let here = directory.at("");
    let site = replaced(site, "/etc/letsencrypt/live/ws.example.com/", &here);
    let site = replaced(&site, "listen [::]:443 ssl reuseport backlog=65535;", "");
    let site = replaced(&site, "listen 443 ", &format!("listen 127.0.0.1:{port} "));
    directory.write("conf.d/ringwave.conf", &site);
    directory.write("conf.d/ringwave-upstream.conf", upstream);
    directory.write("conf.d/temporary.conf", &temporary_files(&here));

    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let mut main = tuning("nginx/nginx.conf");
    for (shipped, own) in [
        // As root, nginx would give up its rights and with them this directory.
        ("user www-data", format!("user {}", user.trim())),
        ("/run/nginx.pid", directory.at("nginx.pid")),
        ("/var/log/nginx/", here.clone()),
        ("/etc/nginx/modules-enabled/", here.clone() + "modules-enabled/"),
        ("/etc/nginx/sites-enabled/", here.clone() + "sites-enabled/"),
        ("/etc/nginx/conf.d/", here.clone() + "conf.d/"),
    ] {
        main = replaced(&main, shipped, &own);
    }
    let main = directory.write("nginx.conf", &main);
    let mut command = gateway::command("nginx");
    command.args(["-c", &main, "-p", &here, "-g", "daemon off;"]).stderr(Stdio::null());
    let nginx = Process::start(&mut command);
    until("nginx listens", || tcp(port).is_ok());
    nginx
}

/// Directives for the directories of temporary files. The ones that are compiled in belong to root.
fn temporary_files(here: &str) -> String {
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    places.map(|name| format!("{name}_temp_path {here}{name};\n")).concat()
}

/// A TLS connection to nginx, made by openssl(1), which passes bytes through.
pub(crate) struct Tls(Child);

impl Tls {
    pub(crate) fn connect(port: u16) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new("timeout");
        command.args([
            "20",
            "openssl",
            "s_client",
            "-quiet",
            "-verify_quiet",
            "-connect",
            &address,
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.stdout.as_mut().unwrap().read(buffer)
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stdin.as_mut().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.stdin.as_mut().unwrap().flush()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // timeout(1) passes it on to openssl, which does not end with its input.
        let _sent = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ended = self.0.wait();
    }
}
