//! The settings of a cluster: where Redis is, by the variables of Laravel and by our own, and what
//! is said of those that have no effect.

use crate::cluster::{ClusterSettings, RedisAddress, RedisPlace, WhenAway};

use super::*;

const ON: (&str, &str) = ("REVERB_SCALING_ENABLED", "true");

/// The cluster of an app with these variables beside the switch.
#[track_caller]
fn clustered(variables: &[(&str, &str)]) -> ClusterSettings {
    config(variables).cluster.unwrap()
}

#[track_caller]
fn config(variables: &[(&str, &str)]) -> Config {
    with_app(&[&[ON], variables].concat()).unwrap()
}

fn error(variables: &[(&str, &str)]) -> String {
    refused(with_app(&[&[ON], variables].concat()))
}

/// The addresses of Redis, the user, the password and the database.
fn redis(cluster: &ClusterSettings) -> (String, String, String, u32) {
    let addresses = cluster.place.addresses().iter().map(ToString::to_string);
    let login = &cluster.login;
    (
        addresses.collect::<Vec<_>>().join(" "),
        login.username.clone().unwrap_or_default(),
        login.password.as_ref().map(|password| password.0.clone()).unwrap_or_default(),
        cluster.database,
    )
}

fn told(
    address: &str,
    username: &str,
    password: &str,
    database: u32,
) -> (String, String, String, u32) {
    (address.into(), username.into(), password.into(), database)
}

#[test]
fn the_switch_of_reverb_alone_makes_a_cluster_and_every_setting_is_read_once() {
    let config = config(&[]);
    let cluster = config.cluster.as_ref().unwrap();
    assert_eq!(redis(cluster), told("redis://127.0.0.1:6379", "", "", 0));
    assert_eq!((cluster.name.as_str(), cluster.partitions), ("reverb", 1));
    let seconds = [cluster.lease, cluster.retention, cluster.patience].map(|it| it.as_secs());
    assert_eq!(seconds, [5, 60, 8]);
    assert_eq!(cluster.when_away, WhenAway::Hold);
    assert_eq!((cluster.backlog, cluster.inbox), (64 << 20, 64 << 20));
    let keys = ALL.iter().map(|setting| setting.declaration().key);
    for key in keys.filter(|key| key.starts_with("cluster.")) {
        let lines = config.resolved.iter().filter(|line| line.key == key);
        assert_eq!(lines.count(), 1, "{key}");
    }
    assert_eq!(config.notes, [""; 0]);
}

#[test]
fn the_switch_is_on_for_any_text_that_php_takes_for_true() {
    for on in ["true", "1", "yes", "on", "off"] {
        let config = with_app(&[("REVERB_SCALING_ENABLED", on)]).unwrap();
        assert!(config.cluster.is_some(), "{on}");
    }
    for off in ["false", "0", "null", "", "(false)"] {
        let config = with_app(&[("REVERB_SCALING_ENABLED", off)]).unwrap();
        assert!(config.cluster.is_none(), "{off}");
        assert_eq!(config.notes, [""; 0], "{off}");
    }
}

#[test]
fn a_server_that_stands_alone_says_nothing_of_the_redis_that_the_app_has() {
    let config = with_app(&[
        ("REVERB_SCALING_CHANNEL", "{}"),
        ("REDIS_URL", "gopher://tops3cret@x"),
        ("REDIS_HOST", "a b"),
        ("REDIS_DB", "many"),
        ("REDIS_PASSWORD", "${X:-y}"),
        ("REDIS_TIMEOUT", "60"),
        ("REDIS_PREFIX", "x"),
    ])
    .unwrap();
    assert!(config.cluster.is_none());
    assert_eq!(config.notes, [""; 0]);
    assert!(config.resolved.iter().all(|line| !line.value.contains("tops3cret")));
}

#[test]
fn settings_of_our_own_for_a_cluster_that_is_off_are_named() {
    let toml = "[cluster]\nredis = \"redis.test\"\nlease = 10";
    let variables: Vec<_> =
        APP.into_iter().chain([("RINGWAVE_CLUSTER_PATIENCE", "5"), ("REDIS_HOST", "x")]).collect();
    assert_eq!(
        with_toml(toml, &variables).unwrap().notes,
        ["cluster.redis in ringwave.toml, cluster.lease in ringwave.toml, \
          RINGWAVE_CLUSTER_PATIENCE of the environment have no effect, because this server stands \
          alone: cluster.enabled (REVERB_SCALING_ENABLED) makes it a node of a cluster."]
    );
}

#[test]
fn the_redis_of_laravel_is_found_by_each_of_its_variables() {
    for (variables, expected) in [
        (
            &[("REDIS_HOST", "127.0.0.1"), ("REDIS_PASSWORD", "null"), ("REDIS_PORT", "6379")][..],
            told("redis://127.0.0.1:6379", "", "", 0),
        ),
        (&[("REDIS_PORT", "6380")], told("redis://127.0.0.1:6380", "", "", 0)),
        (
            &[("REDIS_HOST", "tls://redis.test"), ("REDIS_PORT", "6380")],
            told("rediss://redis.test:6380", "", "", 0),
        ),
        (
            &[("REDIS_SCHEME", "tls"), ("REDIS_HOST", "redis.test")],
            told("rediss://redis.test:6379", "", "", 0),
        ),
        (
            &[("REDIS_HOST", "/run/redis/redis.sock"), ("REDIS_PORT", "0")],
            told("unix:///run/redis/redis.sock", "", "", 0),
        ),
        (&[("REDIS_HOST", "::1"), ("REDIS_PORT", "1")], told("redis://[::1]:1", "", "", 0)),
        (
            &[("REDIS_USERNAME", "app"), ("REDIS_PASSWORD", "p/:@%#\u{e4}"), ("REDIS_DB", "3")],
            told("redis://127.0.0.1:6379", "app", "p/:@%#\u{e4}", 3),
        ),
        (
            &[
                ("REDIS_URL", "redis://u:p%2F@redis.test:7/2"),
                ("REDIS_HOST", "other"),
                ("REDIS_PASSWORD", "other"),
                ("REDIS_DB", "9"),
            ],
            told("redis://redis.test:7", "u", "p/", 2),
        ),
        // The parts that a URL lacks are those of the other variables.
        (
            &[
                ("REDIS_URL", "tls://redis.test"),
                ("REDIS_PORT", "7"),
                ("REDIS_PASSWORD", "p"),
                ("REDIS_DB", "4"),
            ],
            told("rediss://redis.test:7", "", "p", 4),
        ),
        (&[("REDIS_URL", "redis://:p,q@h?database=5")], told("redis://h:6379", "", "p,q", 5)),
    ] {
        let config = config(variables);
        assert_eq!(redis(config.cluster.as_ref().unwrap()), expected, "{variables:?}");
        assert_eq!(config.notes, [""; 0], "{variables:?}");
    }
    let config = config(&[("REDIS_PORT", "6380"), ("REDIS_HOST", "h")]);
    let line = resolved(&config, "cluster.redis");
    assert_eq!(line.value, "redis://h:6380");
    assert_eq!(line.source.to_string(), "REDIS_HOST of the environment");
}

#[test]
fn a_redis_of_our_own_takes_the_place_of_the_apps_as_a_whole() {
    let apps = [
        ON,
        ("REDIS_HOST", "apps"),
        ("REDIS_PORT", "1"),
        ("REDIS_PASSWORD", "apps-own"),
        ("REDIS_USERNAME", "apps-own"),
        ("REDIS_DB", "3"),
    ];
    let cluster = with_toml("[cluster]\nredis = \"ours\"", &[&APP[..], &apps].concat());
    assert_eq!(redis(&cluster.unwrap().cluster.unwrap()), told("redis://ours:6379", "", "", 0));
    let toml = "[cluster]\nenabled = true\nredis = \"rediss://toml:7/2\"\nusername = \"u\"\n\
        password = 12345";
    let config = with_toml(toml, &[&APP[..], &apps[1..]].concat()).unwrap();
    assert_eq!(config.notes, [""; 0]);
    assert_eq!(redis(&config.cluster.unwrap()), told("rediss://toml:7", "u", "12345", 2));
    let variables = [&apps[1..], &[("RINGWAVE_CLUSTER_REDIS", "ours:8")]].concat();
    assert_eq!(redis(&clustered(&variables)), told("redis://ours:8", "", "", 0));
}

#[test]
fn passwords_of_redis_are_nowhere_in_a_configuration() {
    let config = config(&[
        ("RINGWAVE_CLUSTER_REDIS", "redis://u:tops3cret@h"),
        ("RINGWAVE_CLUSTER_PASSWORD", "tops3cret"),
        ("RINGWAVE_CLUSTER_SENTINEL_PASSWORD", "tops3cret"),
    ]);
    assert!(!format!("{config:?}").contains("tops3cret"));
    assert_eq!(resolved(&config, "cluster.redis").value, "redis://u:[withheld]@h:6379");
    assert_eq!(resolved(&config, "cluster.password").value, WITHHELD);
    for variable in ["RINGWAVE_CLUSTER_REDIS", "REDIS_URL"] {
        let message = error(&[(variable, "redis://u:tops3cret/@h")]);
        assert!(message.starts_with("cluster.redis cannot be [withheld] ("), "{message}");
        assert!(message.contains("percent-encoded"), "{message}");
    }
    let toml = "[cluster]\nenabled = true\npassword = [\"tops3cret\"]";
    assert!(refused(with_toml(toml, &APP)).starts_with("cluster.password cannot be [withheld]"));
}

#[test]
fn sentinels_name_the_master_and_have_a_login_of_their_own() {
    let sentinel = [
        ("RINGWAVE_CLUSTER_MODE", "sentinel"),
        ("RINGWAVE_CLUSTER_SENTINELS", "a.test, b.test:26380"),
        ("RINGWAVE_CLUSTER_SENTINEL_MASTER", "mymaster"),
        ("RINGWAVE_CLUSTER_SENTINEL_PASSWORD", "sp"),
        ("REDIS_HOST", "of-the-app"),
        ("REDIS_PASSWORD", "mp"),
        ("REDIS_DB", "2"),
    ];
    let config = config(&sentinel);
    assert_eq!(config.notes, [""; 0]);
    let cluster = config.cluster.unwrap();
    let addresses = "redis://a.test:26379 redis://b.test:26380";
    assert_eq!(redis(&cluster), told(addresses, "", "mp", 2));
    let RedisPlace::Sentinel { master, login, .. } = &cluster.place else { panic!() };
    assert_eq!((master.as_str(), login.password.as_ref().unwrap().0.as_str()), ("mymaster", "sp"));
    let toml = "[cluster]\nenabled = true\nmode = \"sentinel\"\nredis = \"redis://u:p@h/3\"\n\
        sentinels = [\"rediss://su:sp@a.test\"]\nsentinel_master = \"m\"";
    let config = with_toml(toml, &APP).unwrap();
    assert!(config.notes[0].starts_with("cluster.redis in ringwave.toml has no effect: with"));
    let cluster = config.cluster.unwrap();
    assert_eq!(redis(&cluster), told("rediss://a.test:26379", "", "", 0));
    let RedisPlace::Sentinel { login, .. } = &cluster.place else { panic!() };
    assert_eq!(login.username.as_deref(), Some("su"));
}

#[test]
fn a_redis_cluster_has_sixteen_partitions_unless_told_otherwise() {
    let mode = ("RINGWAVE_CLUSTER_MODE", "cluster");
    let cluster = clustered(&[mode, ("RINGWAVE_CLUSTER_REDIS", "a:1, b:2")]);
    assert_eq!(redis(&cluster).0, "redis://a:1 redis://b:2");
    assert!(matches!(&cluster.place, RedisPlace::Cluster(servers) if servers.len() == 2));
    assert_eq!(cluster.partitions, 16);
    let cluster = clustered(&[mode, ("REDIS_HOST", "a"), ("RINGWAVE_CLUSTER_PARTITIONS", "64")]);
    assert_eq!((redis(&cluster).0.as_str(), cluster.partitions), ("redis://a:6379", 64));
}

#[test]
fn every_time_and_bound_has_a_variable_and_takes_units() {
    let cluster = clustered(&[
        ("REVERB_SCALING_CHANNEL", "shop:reverb"),
        ("RINGWAVE_CLUSTER_REDIS", "rediss://h"),
        ("RINGWAVE_CLUSTER_TLS_CA", "/ca.pem"),
        ("RINGWAVE_CLUSTER_TLS_CERTIFICATE", "/c.pem"),
        ("RINGWAVE_CLUSTER_TLS_KEY", "/k.pem"),
        ("RINGWAVE_CLUSTER_PARTITIONS", "4"),
        ("RINGWAVE_CLUSTER_LEASE", "10s"),
        ("RINGWAVE_CLUSTER_RETENTION", "2m"),
        ("RINGWAVE_CLUSTER_PATIENCE", "0"),
        ("RINGWAVE_CLUSTER_WHEN_AWAY", "local"),
        ("RINGWAVE_CLUSTER_BACKLOG", "128M"),
        ("RINGWAVE_CLUSTER_INBOX", "1G"),
    ]);
    assert_eq!((cluster.name.as_str(), cluster.partitions), ("shop:reverb", 4));
    let files = [&cluster.tls.authorities, &cluster.tls.certificate, &cluster.tls.key];
    assert_eq!(
        files.map(|file| file.clone().unwrap()),
        ["/ca.pem", "/c.pem", "/k.pem"].map(PathBuf::from)
    );
    let seconds = [cluster.lease, cluster.retention, cluster.patience].map(|it| it.as_secs());
    assert_eq!(seconds, [10, 120, 0]);
    assert_eq!(cluster.when_away, WhenAway::Local);
    assert_eq!((cluster.backlog, cluster.inbox), (128 << 20, 1 << 30));
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_the_remedy() {
    let sentinel = ("RINGWAVE_CLUSTER_MODE", "sentinel");
    let cluster = ("RINGWAVE_CLUSTER_MODE", "cluster");
    let sentinels = ("RINGWAVE_CLUSTER_SENTINELS", "a, b");
    let master = ("RINGWAVE_CLUSTER_SENTINEL_MASTER", "m");
    for (variables, parts) in [
        (
            &[("RINGWAVE_CLUSTER_REDIS", "a, b")][..],
            ["names 2 servers", "RINGWAVE_CLUSTER_MODE=cluster"],
        ),
        (&[sentinels], ["cluster.mode is not sentinel", "RINGWAVE_CLUSTER_MODE=sentinel"]),
        (&[sentinel, master], ["there are no sentinels", "RINGWAVE_CLUSTER_SENTINELS="]),
        (&[sentinel, sentinels], ["the master has no name", "cluster.sentinel_master"]),
        (&[cluster, ("REDIS_DB", "2")], ["cluster.database is 2", "remove the other number"]),
        (&[cluster, ("REDIS_URL", "redis://h/1")], ["cluster.database is 1", "the URL of Redis"]),
        (&[cluster, ("REDIS_HOST", "/r.sock")], ["names a unix socket", "HOST:PORT"]),
        (
            &[cluster, ("RINGWAVE_CLUSTER_REDIS", "rediss://a,b")],
            ["with TLS and servers without", "rediss://"],
        ),
        (
            &[sentinel, master, ("RINGWAVE_CLUSTER_SENTINELS", "unix:///s")],
            ["cluster.sentinels names a unix socket", "HOST:PORT"],
        ),
        (&[("RINGWAVE_CLUSTER_TLS_CA", "/ca.pem")], ["need a Redis with TLS", "REDIS_SCHEME=tls"]),
        (
            &[("REDIS_SCHEME", "tls"), ("RINGWAVE_CLUSTER_TLS_CERTIFICATE", "/c.pem")],
            ["belong together", "set both"],
        ),
        (
            &[("REDIS_SCHEME", "tls"), ("RINGWAVE_CLUSTER_TLS_KEY", "/k.pem")],
            ["belong together", "set both"],
        ),
        (&[("REVERB_SCALING_CHANNEL", "a{b}")], ["cluster.name cannot be", "without spaces,"]),
        (
            &[("REDIS_SCHEME", "tcp"), ("REDIS_HOST", "tls://h")],
            ["\"tcp://tls://h\"", "REDIS_HOST"],
        ),
        (&[("RINGWAVE_CLUSTER_MODE", "clustered")], ["cannot be \"clustered\"", "`sentinel`"]),
    ] {
        let message = error(variables);
        assert!(parts.iter().all(|part| message.contains(part)), "{variables:?}: {message}");
    }
}

#[test]
fn what_has_no_effect_on_a_cluster_is_said_with_the_reason() {
    let notes = |variables: &[(&str, &str)]| config(variables).notes;
    for (variables, start, end) in [
        (
            &[("REDIS_TIMEOUT", "60")][..],
            "REDIS_TIMEOUT of the environment has no effect",
            "when it is back.",
        ),
        (
            &[("REDIS_PREFIX", "x_")],
            "REDIS_PREFIX of the environment has no effect",
            "cluster.name.",
        ),
        (&[("REDIS_CLUSTER", "redis")], "REDIS_CLUSTER of the environment", "for a Redis Cluster."),
        (
            &[("REDIS_URL", "redis://h?prefix=tops3cret&read_timeout=5")],
            "The URL of Redis has parameters without effect (REDIS_URL",
            "prefix, read_timeout.",
        ),
        (
            &[("REDIS_USERNAME", "u")],
            "The user of Redis has no effect (REDIS_USERNAME",
            "its setting.",
        ),
        (
            &[("RINGWAVE_CLUSTER_REDIS", "redis://h/3"), ("RINGWAVE_CLUSTER_DATABASE", "2")],
            "RINGWAVE_CLUSTER_DATABASE of the environment has no effect: the URL",
            "environment).",
        ),
        (
            &[("REDIS_USERNAME", "a"), ("RINGWAVE_CLUSTER_USERNAME", "b"), ("REDIS_PASSWORD", "p")],
            "REDIS_USERNAME has no effect",
            "RINGWAVE_CLUSTER_USERNAME counts.",
        ),
        (
            &[("REDIS_PASSWORD", "${X:-tops3cret}")],
            "${X:-...} is literal text",
            "knows no defaults.",
        ),
    ] {
        let notes = notes(variables);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with(start) && notes[0].ends_with(end), "{notes:?}");
        assert!(!notes[0].contains("tops3cret"), "{notes:?}");
    }
}

#[test]
fn addresses_in_toml_may_be_a_list() {
    let toml =
        "[cluster]\nenabled = true\nmode = \"cluster\"\nredis = [\"redis://u:a,b@a\", \"b\"]";
    let cluster = with_toml(toml, &APP).unwrap().cluster.unwrap();
    assert_eq!(redis(&cluster), told("redis://a:6379 redis://b:6379", "u", "a,b", 0));
    assert!(matches!(
        cluster.place.addresses()[1],
        RedisAddress::Tcp { port: 6379, tls: false, .. }
    ));
    let message = refused(with_toml("[cluster]\nrediss = 1", &APP));
    assert!(message.contains("the nearest is `cluster.redis`"), "{message}");
    assert!(refused(with_toml("cluster = 1", &APP)).contains("cluster has to be a table"));
}
