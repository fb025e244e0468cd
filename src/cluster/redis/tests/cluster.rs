//! A Redis Cluster of three masters.

use std::collections::BTreeSet;

use ::redis::{Value, cmd};

use super::server::{Server, free_port, wait_until};
use super::*;

const PARTITIONS: u16 = 16;

/// Three masters that share the slots.
fn start() -> Option<[Server; 3]> {
    let started = [(); 3].map(|()| Server::start_in_cluster());
    let [Some(first), Some(second), Some(third)] = started else { return None };
    let servers = [first, second, third];
    for (index, ((server, _), range)) in
        servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]).enumerate()
    {
        server.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        server.command(&format!("CLUSTER ADDSLOTSRANGE {range}"));
    }
    for (server, bus) in &servers[1..] {
        servers[0].0.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port));
    }
    let servers = servers.map(|(server, _bus)| server);
    wait_until("the cluster serves", || servers.iter().all(serves));
    Some(servers)
}

fn serves(server: &Server) -> bool {
    let state: String = server.run_command(cmd("CLUSTER").arg("INFO"));
    state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
}

fn settings_of(ports: &[u16]) -> ClusterSettings {
    let addresses = ports.iter().map(|&port| tcp("127.0.0.1", port)).collect();
    let mut settings = settings(RedisPlace::Cluster(addresses));
    settings.partitions = PARTITIONS;
    settings
}

fn id_of(server: &Server) -> String {
    server.run_command(cmd("CLUSTER").arg("MYID"))
}

#[tokio::test]
async fn partitions_are_found_on_their_masters_and_followed_when_they_move() {
    let Some(servers) = start() else { return };
    // Of the servers in the settings, the first is down, and the other has only some partitions.
    let settings = settings_of(&[free_port(), servers[0].port]);
    let connector = connector(&settings);
    let mut used = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let mut connection = connector.connect(partition).await.unwrap();
        connection.prove_one_of(PARTITIONS).await;
        used.insert(connection.writer.server());
    }
    let all = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    assert_eq!(used, all);

    let mut connection = connector.connect(0).await.unwrap();
    let owner = servers
        .iter()
        .find(|server| connection.writer.server().ends_with(&server.port.to_string()));
    let target = servers
        .iter()
        .find(|server| !connection.writer.server().ends_with(&server.port.to_string()));
    let (owner, target) = (owner.unwrap(), target.unwrap());
    let slot: u16 = owner.run_command(cmd("CLUSTER").arg("KEYSLOT").arg("{ringwave:reverb:0}:"));
    target.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id_of(owner)));
    owner.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id_of(target)));
    move_keys(owner, target, slot);
    // The keys are elsewhere, and the slot is not yet.
    assert_eq!(connection.ask(2).await, Err(CallError::Moving));
    assert!(connector.connect(0).await.unwrap_err().to_string().contains("is being moved"));
    for server in [target, owner] {
        server.command(&format!("CLUSTER SETSLOT {slot} NODE {}", id_of(target)));
    }
    let moved = Err(CallError::Moved(format!("127.0.0.1:{}", target.port).into()));
    assert_eq!(connection.ask(2).await, moved);
    let mut connection = connector.connect(0).await.unwrap();
    assert_eq!(connection.writer.server(), format!("127.0.0.1:{}", target.port));
    connection.prove_one_of(PARTITIONS).await;

    let findings = probe(&settings).await.unwrap().lines();
    let servers = findings.iter().filter(|line| line.ends_with("is recent enough")).count();
    assert_eq!(servers, 3, "{findings:?}");
}

fn move_keys(from: &Server, to: &Server, slot: u16) {
    let keys: Vec<String> =
        from.run_command(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100));
    assert!(!keys.is_empty());
    let mut migrate = cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
    let _: Value = from.run_command(&migrate);
}

#[tokio::test]
async fn servers_that_were_met_are_asked_when_none_of_the_settings_is_left() {
    let Some(mut servers) = start() else { return };
    let connector = connector(&settings_of(&[servers[0].port]));
    let mut partition_elsewhere = None;
    for partition in 0..PARTITIONS {
        let server = connector.connect(partition).await.unwrap().writer.server();
        if !server.ends_with(&servers[0].port.to_string()) {
            partition_elsewhere = Some(partition);
        }
    }
    servers[0].kill();
    // The others serve what they have until they miss the dead one.
    connector.connect(partition_elsewhere.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_mode_that_does_not_fit_is_told() {
    let Some((server, _bus)) = Server::start_in_cluster() else { return };
    let told = refusal(&settings_of(&[server.port])).await;
    assert!(told.contains("the Redis Cluster does not serve all slots"), "{told}");
    let mut settings = settings_of(&[server.port]);
    settings.database = 3;
    let told = refusal(&settings).await;
    assert!(told.contains("does not have database 3") && told.contains("has only 0"), "{told}");
    let port = fake::serve(|request| {
        if request.contains("INFO") {
            fake::bulk("redis_version:7.0.15\r\nrole:master")
        } else if request.contains("GET") {
            "-MOVED 7 127.0.0.1:7001\r\n".into()
        } else {
            "+OK\r\n".into()
        }
    });
    let told = refusal(&standalone(port)).await;
    assert!(told.contains("is part of a Redis Cluster: set cluster.mode to `cluster`"), "{told}");
}

#[tokio::test]
async fn servers_that_name_each_other_in_a_circle_are_told() {
    let port = fake::serve(|request| {
        if request.contains("INFO") {
            fake::bulk("redis_version:7.0.15\r\nrole:master")
        } else if request.contains("GET") {
            // Without a host: the same one.
            format!("-MOVED 7 :{}\r\n", CIRCLE.load(std::sync::atomic::Ordering::Relaxed))
        } else {
            "+OK\r\n".into()
        }
    });
    CIRCLE.store(port, std::sync::atomic::Ordering::Relaxed);
    let told = refusal(&settings_of(&[port])).await;
    assert!(told.contains("name each other as the one that has the partition"), "{told}");
}

static CIRCLE: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
