use super::super::load::{Config, load_text};
use super::super::settings::ALL;
use super::*;

fn config(toml: &str) -> Config {
    load_text(toml).unwrap()
}

fn app(id: &str, more: &str) -> String {
    format!("[[apps]]\napp_id = \"{id}\"\nkey = \"{id}-key\"\nsecret = \"{id}-s3cret\"\n{more}\n")
}

fn between(before: &str, after: &str) -> Changes {
    Changes::between(&config(before).resolved, &config(after).resolved)
}

#[test]
fn what_is_the_same_is_no_change_however_it_is_written_and_wherever_it_stands() {
    let before =
        format!("[server]\ndebug = false\n{}{}", app("a", "ping_interval = 60"), app("b", ""));
    let after = format!("{}{}", app("b", "max_connections = \"none\""), app("a", ""));
    assert_eq!(between(&before, &after), Changes::default());
}

#[test]
fn settings_of_the_server_are_named_with_both_values_and_those_that_wait_for_a_restart_apart() {
    let before = format!("[server]\nheader_timeout = 5\n{}", app("a", ""));
    let after = format!(
        "[server]\nport = 9999\nheader_timeout = 7\npath = \"ws\"\nlog_format = \"json\"\n{}",
        app("a", "")
    );
    let changes = between(&before, &after);
    assert_eq!(changes.in_force, ["server.path: \"\" -> /ws", "server.header_timeout: 5 -> 7"]);
    assert_eq!(
        changes.pending.as_deref(),
        Some(
            "server.port (8080 in force, 9999 configured), server.log_format (text in force, json \
             configured) change with a restart only."
        )
    );
    let back = between(&after, &before);
    assert_eq!(back.in_force, ["server.path: /ws -> \"\"", "server.header_timeout: 7 -> 5"]);
}

#[test]
fn what_needs_a_restart_stays_as_it_was_and_is_quiet_once_it_is_changed_back() {
    let read = |toml: &str| config(&format!("[server]\n{toml}\n{}", app("a", ""))).resolved;
    let started = read("port = 7777\ndebug = false");
    let changed = read("port = 9999\ndebug = true");
    let force = in_force(&started, &changed);
    assert_eq!(Changes::between(&started, &force).in_force, ["server.debug: false -> true"]);
    assert!(Changes::between(&started, &force).pending.is_none());
    assert!(Changes::between(&force, &changed).pending.unwrap().contains("7777 in force"));
    let back = read("port = 7777\ndebug = true");
    assert_eq!(Changes::between(&force, &back), Changes::default());
}

#[test]
fn a_cluster_that_is_switched_off_or_on_waits_for_a_restart_with_all_its_settings() {
    let read = |toml: &str| config(&format!("[cluster]\n{toml}\n{}", app("a", ""))).resolved;
    let on = read("enabled = true\nredis = \"redis://u:s3cret@a\"\nlease = 7");
    let off = read("enabled = false");
    let pending = |before: &[Resolved], after: &[Resolved]| {
        let Changes { in_force, pending } = Changes::between(before, after);
        assert_eq!(in_force, [""; 0]);
        pending.unwrap_or_default()
    };
    assert_eq!(
        pending(&on, &off),
        "cluster.enabled (true in force, false configured) changes with a restart only."
    );
    let other = read("enabled = true\nredis = \"redis://u:s3cret@b\"\nlease = 7");
    assert_eq!(
        pending(&in_force(&on, &off), &other),
        "cluster.redis (redis://u:[withheld]@a:6379 in force, redis://u:[withheld]@b:6379 \
         configured) changes with a restart only."
    );
    let force = in_force(&off, &on);
    assert!(pending(&force, &other).starts_with("cluster.enabled (false in force, true"));
    assert_eq!(pending(&force, &off), "");
}

#[test]
fn apps_are_named_by_their_ids_and_one_line_tells_of_all_with_the_same_change() {
    let before = format!("{}{}{}", app("a", ""), app("b", ""), app("gone", ""));
    let after = format!(
        "[app]\nping_interval = 30\n{}{}{}",
        app("new", ""),
        app("b", "max_connections = 5"),
        app("a", "")
    );
    assert_eq!(
        between(&before, &after).in_force,
        ["apps b, a: ping_interval 60 -> 30", "app b: max_connections none -> 5"]
    );
}

#[test]
fn secrets_change_without_being_shown() {
    let keys =
        |secret: &str| app("a", &format!("keys = [{{ key = \"old\", secret = \"{secret}\" }}]"));
    let changes = between(&keys("s3cret-1"), &keys("s3cret-2"));
    assert_eq!(changes.in_force, ["app a: keys changed"]);
    let other = app("a", "").replace("a-s3cret", "s3cret-3");
    let changes = between(&app("a", ""), &other);
    assert_eq!(changes.in_force, ["app a: secret changed"]);
    let hook = |url: &str, headers: &str| {
        app("a", &format!("[[apps.webhooks]]\nurl = \"{url}\"\nheaders = [\"{headers}\"]"))
    };
    let changes = between(
        &hook("https://x.test/?token=s3cret-4", "X-Token: s3cret-5"),
        &hook("https://x.test/?token=s3cret-6", "X-Token: s3cret-7"),
    );
    let of = changes.in_force[0].strip_suffix(": url changed").unwrap();
    assert_eq!(changes.in_force[1], format!("{of}: headers changed"));
    assert!(of.starts_with("app a, webhook https://x.test/"), "{of}");
    assert!(!format!("{changes:?}").contains("s3cret"));
    let resolved = format!("{:?}", config(&keys("s3cret-1")).resolved);
    assert!(!resolved.contains("s3cret"), "{resolved}");
}

#[test]
fn webhooks_are_known_by_their_urls() {
    let hook = |name: &str, more: &str| {
        format!("[[apps.webhooks]]\nurl = \"https://{name}.test/\"\n{more}\n")
    };
    let hooks = |list: &[String]| app("a", &list.concat());
    let before = hooks(&[hook("first", ""), hook("second", "timeout = 5")]);
    let swapped = hooks(&[hook("second", "timeout = 7"), hook("third", ""), hook("first", "")]);
    assert_eq!(
        between(&before, &swapped).in_force,
        [
            "app a, webhook https://second.test/: timeout 5 -> 7",
            "app a: webhook https://third.test/ added"
        ]
    );
    let moved = hooks(&[hook("first", ""), hook("moved", "timeout = 5")]);
    assert_eq!(
        between(&before, &moved).in_force,
        ["app a, webhook https://second.test/: url https://second.test/ -> https://moved.test/"]
    );
    assert_eq!(
        between(&before, &hooks(&[hook("second", "timeout = 5")])).in_force,
        ["app a: webhook https://first.test/ removed"]
    );
}

#[test]
fn a_report_is_bounded_whatever_changes() {
    let many = |more: fn(usize) -> String| {
        (0..300).map(|n| app(&format!("app-{n}"), &more(n))).collect::<String>()
    };
    let same = between(&many(|_| String::new()), &many(|_| "max_batch = 7".to_owned()));
    let [line] = &same.in_force[..] else { panic!("{same:?}") };
    assert!(line.starts_with("apps app-0, app-1, ") && line.contains(" and 290 more: "), "{line}");
    let each = between(&many(|_| String::new()), &many(|n| format!("max_batch = {}", 20 + n)));
    assert_eq!(each.in_force.len(), LINES_MAX + 1);
    assert_eq!(each.in_force.last().unwrap(), "further changes: 200");
    let origins = "x.test, ".repeat(100);
    let long = between(&app("a", ""), &app("a", &format!("allowed_origins = \"{origins}y.test\"")));
    assert!(long.in_force[0].len() < 200, "{long:?}");
}

/// A value of each setting of the server that is not its default.
fn another_value(key: &str) -> &'static str {
    match key {
        "server.host" => "\"127.0.0.9\"",
        "server.path" => "\"ws\"",
        "server.hostname" => "\"ws.test\"",
        "server.socket_mode" => "\"0600\"",
        "server.socket_owner" | "server.socket_group" => "\"4711\"",
        "server.listen" => "[\"tcp://127.0.0.9:9999\"]",
        "server.debug" => "true",
        "server.direct_descriptors" => "false",
        "server.log" => "\"warn,front=debug\"",
        "server.log_format" => "\"json\"",
        "server.trusted_proxies" => "\"10.0.0.0/8\"",
        "server.webhook_spool" => "\"spool\"",
        "server.shards" => "77",
        "server.shutdown_window" | "server.header_timeout" => "7",
        "server.port" | "server.max_http_connections" => "9999",
        key if key.starts_with("server.max_") => "777",
        _ => "7777777",
    }
}

#[test]
fn exactly_the_settings_that_are_declared_to_change_by_a_reload_are_taken_over() {
    let before = config(&app("a", ""));
    let text = |config: &Config| format!("{:?}", config.server);
    for declaration in ALL.iter().map(|setting| setting.declaration()) {
        let Some(name) = declaration.key.strip_prefix("server.") else {
            // A node keeps the cluster that it has entered, and the listener for operators.
            let on_restart = ["cluster.", "admin."].map(|table| declaration.key.starts_with(table));
            let expected = match on_restart.contains(&true) {
                true => TakesEffect::OnRestart,
                false => TakesEffect::OnReload,
            };
            assert_eq!(declaration.takes_effect, expected, "{}", declaration.key);
            continue;
        };
        // It is among the limits of the apps.
        if name == "max_request_size" {
            continue;
        }
        let value = another_value(declaration.key);
        let after = config(&format!("[server]\n{name} = {value}\n{}", app("a", "")));
        assert_ne!(text(&before), text(&after), "{name} = {value} is no other value");
        let server = format!("{:?}", before.server.followed_by(&after.server));
        let expected = match declaration.takes_effect {
            TakesEffect::OnReload => text(&after),
            TakesEffect::OnRestart => text(&before),
        };
        assert_eq!(server, expected, "{name} is declared {:?}", declaration.takes_effect);
        let changes = Changes::between(&before.resolved, &after.resolved);
        let on_reload = declaration.takes_effect == TakesEffect::OnReload;
        assert_eq!(
            (changes.in_force.len() == 1, changes.pending.is_none()),
            (on_reload, on_reload)
        );
    }
}
