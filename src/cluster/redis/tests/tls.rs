//! TLS, with an authority of the test's own.

use super::server::{Folder, Server, free_port, wait_until};
use super::*;

/// Makes the certificates of an authority, a server and a client; `None` without `openssl`.
fn certificates() -> Option<Folder> {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let make = |name: &str, more: &[&str]| {
        let (key, certificate) = (path(&format!("{name}.key")), path(&format!("{name}.pem")));
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"];
        arguments.extend(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &subject]);
        arguments.extend(["-keyout", &key, "-out", &certificate]);
        arguments.extend(more);
        left_out::runs("openssl", &arguments)
    };
    let (authority, key) = (path("ca.pem"), path("ca.key"));
    let signed = ["-CA", &authority, "-CAkey", &key, "-addext", "basicConstraints=CA:FALSE"];
    let with = |name| [&signed[..], &["-addext", name]].concat();
    let made = make("ca", &[])
        && make("server", &with("subjectAltName=IP:127.0.0.1"))
        && make("named", &with("subjectAltName=DNS:redis.example"))
        && make("client", &with("subjectAltName=DNS:node.example"));
    made.then_some(folder)
}

/// A server that speaks TLS only, with a certificate from the folder.
fn start(folder: &Folder, certificate: &str, asks_clients: &str) -> Option<(Server, u16)> {
    let port = free_port();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let arguments = [
        ("--port", "0".to_owned()),
        ("--tls-port", port.to_string()),
        ("--tls-ca-cert-file", path("ca.pem")),
        ("--tls-cert-file", path(&format!("{certificate}.pem"))),
        ("--tls-key-file", path(&format!("{certificate}.key"))),
        ("--tls-auth-clients", asks_clients.to_owned()),
    ];
    let arguments: Vec<String> =
        arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let server = Server::start_elsewhere(Folder::new(), &arguments)?;
    let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("the server listens", is_up);
    Some((server, port))
}

fn settings_for(port: u16, folder: &Folder, client: Option<&str>) -> ClusterSettings {
    let mut settings = settings(RedisPlace::Standalone(over_tls(port)));
    settings.tls = TlsFiles {
        authorities: Some(folder.path().join("ca.pem")),
        certificate: client.map(|name| folder.path().join(format!("{name}.pem"))),
        key: client.map(|name| folder.path().join(format!("{name}.key"))),
    };
    settings
}

#[tokio::test]
async fn both_sides_know_each_other_by_certificates() {
    let Some(folder) = certificates() else { return };
    let Some((_server, port)) = start(&folder, "server", "yes") else { return };
    connect(&settings_for(port, &folder, Some("client"))).await.prove().await;
    let told = refusal(&settings_for(port, &folder, None)).await;
    assert!(told.contains("does not accept the certificate of this node"), "{told}");
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_told() {
    let Some(folder) = certificates() else { return };
    let Some((_server, port)) = start(&folder, "server", "no") else { return };
    connect(&settings_for(port, &folder, None)).await.prove().await;
    let Some(stranger) = certificates() else { return };
    let told = refusal(&settings_for(port, &stranger, None)).await;
    assert!(told.contains("no known authority has signed its certificate"), "{told}");
    let Some((_server, port)) = start(&folder, "named", "no") else { return };
    let told = refusal(&settings_for(port, &folder, None)).await;
    assert!(told.contains("its certificate is for another name"), "{told}");
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let Some(folder) = certificates() else { return };
    let port = fake::serve(|_| "-ERR Protocol error\r\n".into());
    let told = refusal(&settings_for(port, &folder, None)).await;
    assert!(told.contains("it does not speak TLS: use its TLS port"), "{told}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_before_anything_is_connected() {
    let Some(folder) = certificates() else { return };
    let file = |name: &str| Some(folder.path().join(name));
    let usable = || settings_for(1, &folder, Some("client")).tls;
    for (files, text) in [
        (TlsFiles { authorities: file("none.pem"), ..usable() }, "(no such file or directory)"),
        (TlsFiles { authorities: file("ca.key"), ..usable() }, "cluster.tls_ca has to name"),
        (TlsFiles { key: file("client.pem"), ..usable() }, "holds no private key"),
        (TlsFiles { key: file("server.key"), ..usable() }, "does not belong to"),
        (TlsFiles { key: None, ..usable() }, "cluster.tls_key is missing"),
        (TlsFiles { certificate: None, ..usable() }, "cluster.tls_certificate is missing"),
    ] {
        let mut settings = settings_for(1, &folder, None);
        settings.tls = files;
        let told = refusal(&settings).await;
        assert!(told.contains(text), "{text}: {told}");
    }
}
