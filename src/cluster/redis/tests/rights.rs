//! The user with the least rights, and the probe.

use super::server::Server;
use super::*;

/// Makes the user of the documented line.
fn with_user(line: &str) -> Option<(Server, ClusterSettings)> {
    let server = Server::start(&[])?;
    server.command(&line.replace("PASSWORD", "secret"));
    let mut settings = standalone(server.port);
    settings.login = login(Some("ringwave"), "secret");
    Some((server, settings))
}

async fn probed(settings: &ClusterSettings) -> Result<Findings, String> {
    probe(settings).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_user_of_the_documented_line_can_do_everything_and_nothing_else() {
    let Some((server, mut settings)) = with_user(ACL_LINE) else { return };
    connect(&settings).await.prove().await;
    probed(&settings).await.unwrap();
    settings.database = 1;
    probed(&settings).await.unwrap();
    let denied: Vec<::redis::Value> = server.run_command(::redis::cmd("ACL").arg("LOG"));
    assert!(denied.is_empty(), "{denied:?}");
    settings.name = "another".into();
    let told = refusal(&settings).await;
    assert!(told.contains("has too few rights (\"NOPERM "), "{told}");
}

#[tokio::test]
async fn missing_rights_are_named_together_and_granted_by_the_line() {
    let line = ACL_LINE.replace(" +hset", "").replace(" +xtrim", "");
    let Some((server, settings)) = with_user(&line) else { return };
    let told = probed(&settings).await.unwrap_err();
    assert!(
        told.contains("may not run hset, xtrim: grant it with `ACL SETUSER ringwave"),
        "{told}"
    );
    server.command("ACL SETUSER ringwave +hset +xtrim -script|load");
    let told = probed(&settings).await.unwrap_err();
    assert!(told.contains("(\"NOPERM ") && told.contains("script|load"), "{told}");
}

#[tokio::test]
async fn a_command_that_is_denied_within_a_script_is_told_as_a_missing_right() {
    let line = ACL_LINE.replace(" +xadd", "");
    let Some((_server, settings)) = with_user(&line) else { return };
    let mut connection = connect(&settings).await;
    connection.enter(1).await;
    let error = connection.ask(2).await.unwrap_err();
    assert!(matches!(error, CallError::NotPermitted(_)), "{error}");
}

#[tokio::test]
async fn a_probe_tells_what_it_found_and_leaves_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let mut settings = standalone(server.port);
    let lines = probed(&settings).await.unwrap().lines();
    assert!(lines[0].ends_with("answers and is recent enough"), "{lines:?}");
    assert!(lines[0].contains(&format!(" at 127.0.0.1:{}", server.port)), "{lines:?}");
    assert_eq!(lines[2], "partitions: 1, and no node has been there yet");
    assert!(lines[3].starts_with("the clock of Redis is "), "{lines:?}");
    let size: usize = server.run_command(&::redis::cmd("DBSIZE"));
    assert_eq!(size, 0);
    connect(&settings).await.enter(1).await;
    let lines = probed(&settings).await.unwrap().lines();
    assert_eq!(lines[2], "partitions: 1, as the cluster has");
    settings.partitions = 4;
    let told = probed(&settings).await.unwrap_err();
    assert!(told.contains("cluster.partitions of this node is 4"), "{told}");
}

#[tokio::test]
async fn a_policy_that_evicts_keys_of_the_cluster_is_noted() {
    let arguments = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(server) = Server::start(&arguments) else { return };
    let lines = probed(&standalone(server.port)).await.unwrap().lines();
    assert!(lines[4].starts_with("its maxmemory-policy allkeys-lru lets it evict"), "{lines:?}");
}
