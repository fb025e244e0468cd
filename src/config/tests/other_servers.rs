//! Projects that come from soketi or from hosted Pusher, by their variables.

use super::*;

const PUSHER: [(&str, &str); 3] =
    [("PUSHER_APP_ID", "1234"), ("PUSHER_APP_KEY", "pk"), ("PUSHER_APP_SECRET", "tops3cret")];

const SOKETI: [(&str, &str); 3] = [
    ("SOKETI_DEFAULT_APP_ID", "77"),
    ("SOKETI_DEFAULT_APP_KEY", "sk"),
    ("SOKETI_DEFAULT_APP_SECRET", "tops3cret"),
];

fn loaded(of: &[(&str, &str)], more: &[(&str, &str)]) -> Config {
    let environment: Vec<_> = of.iter().chain(more).copied().collect();
    Directory::with(&[]).load(&Flags::default(), &environment).unwrap()
}

#[test]
fn a_project_of_pusher_is_served_with_its_app_and_the_start_says_so() {
    let config = loaded(&PUSHER, &[("PUSHER_APP_CLUSTER", "eu")]);
    let app = only_app(&config);
    assert_eq!((app.id.as_str(), app.rules.key.as_str()), ("1234", "pk"));
    assert!(!config.development);
    assert_eq!(address(&config), "0.0.0.0:8080");
    assert_eq!(
        config.notes,
        ["No REVERB_APP_ID is set: the app 1234 of PUSHER_APP_ID, PUSHER_APP_KEY and \
          PUSHER_APP_SECRET is served (PUSHER_APP_ID of the environment). Your app publishes to \
          hosted Pusher until PUSHER_HOST, PUSHER_PORT and PUSHER_SCHEME name this server."]
    );
    let source = resolved(&config, "apps[0].secret");
    assert_eq!(source.value, WITHHELD);
    assert_eq!(source.source.to_string(), "PUSHER_APP_SECRET of the environment");
}

#[test]
fn where_a_project_of_pusher_publishes_is_told_and_compared() {
    let target = |host, port, scheme| {
        [("PUSHER_HOST", host), ("PUSHER_PORT", port), ("PUSHER_SCHEME", scheme)]
    };
    let config = loaded(&PUSHER, &target("ws.example.com", "443", "https"));
    assert_eq!(config.notes.len(), 1);
    assert!(
        config.notes[0].contains("publishes to https://ws.example.com:443"),
        "{:?}",
        config.notes
    );
    let config = loaded(&PUSHER, &target("127.0.0.1", "6001", "http"));
    assert!(config.notes[1].contains("start it with --port=6001"), "{:?}", config.notes);
    let config = loaded(&PUSHER, &target("localhost", "8080", "https"));
    assert!(config.notes[1].starts_with("PUSHER_SCHEME=https with PUSHER_PORT=8080 cannot work"));
    let config = loaded(&PUSHER, &target("localhost", "8080", "http"));
    assert_eq!(config.notes.len(), 1);
    let config = loaded(&SOKETI, &target("localhost", "6001", "http"));
    assert!(config.notes[1].starts_with("PUSHER_PORT=6001"), "{:?}", config.notes);
    // A project that publishes by Reverb's variables may use hosted Pusher beside it.
    assert_eq!(loaded(&APP, &target("localhost", "6001", "http")).notes, [""; 0]);
}

#[test]
fn the_app_of_reverb_is_served_alone_whatever_pusher_and_soketi_have_left() {
    let left: Vec<_> = PUSHER.into_iter().chain(SOKETI).chain([("SOKETI_PORT", "6001")]).collect();
    let config = loaded(&APP, &left);
    assert_eq!(only_app(&config).rules.key, "k");
    assert_eq!(address(&config), "0.0.0.0:8080");
    assert_eq!(only_app(&config).rules.client_events, ClientEvents::Members);
    assert_eq!(config.notes.len(), 1);
    assert!(config.notes[0].contains("SOKETI_PORT: without effect"), "{:?}", config.notes);
    assert_eq!(loaded(&APP, &PUSHER).notes, [""; 0]);
    let message = refused(
        Directory::with(&[]).load(&Flags::default(), &[PUSHER.as_slice(), &APP[..1]].concat()),
    );
    assert!(message.ends_with("set REVERB_APP_KEY and REVERB_APP_SECRET are missing"), "{message}");
}

#[test]
fn apps_of_the_file_are_not_joined_by_that_of_pusher_unless_it_is_one_of_them() {
    let entry = |id: u32| {
        format!("[[apps]]\napp_id = {id}\nkey = \"file\"\nsecret = \"s\"\npong_timeout = 9")
    };
    let config = with_toml(&entry(5), &PUSHER).unwrap();
    assert_eq!(only_app(&config).rules.key, "file");
    let config = with_toml(&entry(1234), &PUSHER).unwrap();
    let app = only_app(&config);
    assert_eq!((app.rules.key.as_str(), app.pong_timeout), ("pk", Duration::from_secs(9)));
}

#[test]
fn half_of_an_app_is_refused_by_the_names_of_its_family_and_passed_over_for_pusher() {
    let message = refused(Directory::with(&[]).load(&Flags::default(), &SOKETI[..1]));
    assert_eq!(
        message,
        "an app needs SOKETI_DEFAULT_APP_ID, SOKETI_DEFAULT_APP_KEY and \
         SOKETI_DEFAULT_APP_SECRET, but with SOKETI_DEFAULT_APP_ID of the environment set \
         SOKETI_DEFAULT_APP_KEY and SOKETI_DEFAULT_APP_SECRET are missing"
    );
    let config = loaded(&PUSHER[..1], &[]);
    assert!(config.development);
    assert_eq!(
        config.notes,
        [
            "The app of PUSHER_APP_ID is not served: PUSHER_APP_KEY and PUSHER_APP_SECRET have to be \
          set too."
        ]
    );
}

#[test]
fn the_variables_of_soketi_make_its_app_with_its_limits() {
    let config = loaded(
        &SOKETI,
        &[
            ("SOKETI_HOST", "127.0.0.1"),
            ("SOKETI_PORT", "6001"),
            ("SOKETI_PATH_PREFIX", "/ws"),
            ("SOKETI_DEBUG", "1"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "50"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "-1"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "7"),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "-1"),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "true"),
            ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "4500"),
            ("SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH", "150"),
            ("SOKETI_CHANNEL_CACHE_TTL", "3600"),
            ("SOKETI_EVENT_MAX_NAME_LENGTH", "120"),
            ("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "20"),
            ("SOKETI_EVENT_MAX_BATCH_SIZE", "30"),
            ("SOKETI_EVENT_MAX_SIZE_IN_KB", "0.5"),
            ("SOKETI_PRESENCE_MAX_MEMBERS", "40"),
            ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "2"),
            ("SOKETI_ADAPTER_DRIVER", "local"),
            ("SOKETI_METRICS_ENABLED", "false"),
        ],
    );
    assert_eq!(address(&config), "127.0.0.1:6001");
    assert_eq!(config.server.path, "/ws");
    assert!(config.server.debug);
    let app = only_app(&config);
    assert_eq!((app.id.as_str(), app.rules.key.as_str()), ("77", "sk"));
    assert_eq!(app.max_connections, Some(50));
    assert_eq!(app.rules.client_events, ClientEvents::Members);
    assert_eq!(app.user_authentication_timeout, Some(Duration::from_secs(5)));
    assert_eq!(app.cache_ttl, Duration::from_secs(3600));
    let limits = Limits {
        max_channel_name: 150,
        max_event_name: Some(120),
        max_channels_per_event: 20,
        max_batch: app.rules.limits.max_batch,
        max_event_data: Some(512),
        max_presence_members: Some(40),
        max_presence_user_info: Some(2048),
        max_client_events_per_second: Some(7),
        ..Limits::default()
    };
    assert_eq!(app.rules.limits, limits);
    assert_eq!(resolved(&config, "apps[0].max_batch").value, "30");
    assert_eq!(
        config.notes,
        ["No REVERB_APP_ID is set: the app 77 of soketi's variables is served \
          (SOKETI_DEFAULT_APP_ID of the environment)."]
    );
}

#[test]
fn soketi_takes_no_client_events_unless_told_to_and_so_it_stays() {
    let config = loaded(&SOKETI, &[]);
    assert_eq!(only_app(&config).rules.client_events, ClientEvents::None);
    let line = resolved(&config, "apps[0].accept_client_events_from");
    assert_eq!(line.source.to_string(), "default of soketi");
    assert!(config.notes[0].contains("soketi listens on port 6001"), "{:?}", config.notes);
    for (value, expected) in [("false", ClientEvents::None), ("1", ClientEvents::Members)] {
        let config = loaded(&SOKETI, &[("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", value)]);
        assert_eq!(only_app(&config).rules.client_events, expected, "{value}");
    }
    let ours = [("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "all")];
    assert_eq!(only_app(&loaded(&SOKETI, &ours)).rules.client_events, ClientEvents::All);
}

#[test]
fn variables_of_soketi_without_a_counterpart_are_each_named_with_the_reason() {
    let config = loaded(
        &SOKETI,
        &[
            ("SOKETI_PORT", "8080"),
            ("SOKETI_ADAPTER_DRIVER", "redis"),
            ("SOKETI_DB_REDIS_HOST", "redis"),
            ("SOKETI_DB_MYSQL_HOST", "db"),
            ("SOKETI_METRICS_ENABLED", "true"),
            ("SOKETI_METRICS_SERVER_PORT", "9601"),
            ("SOKETI_SSL_CERT", "/etc/x.pem"),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "5"),
            ("SOKETI_DEFAULT_APP_MAX_CONECTIONS", "5"),
            ("SOKETI_CORS_ALLOWED_ORIGINS", "https://a.test"),
        ],
    );
    for part in [
        "SOKETI_ADAPTER_DRIVER, SOKETI_DB_REDIS_HOST have no effect: several nodes meet on a Redis",
        "SOKETI_DB_MYSQL_HOST has no effect: the apps are in the variables",
        "SOKETI_METRICS_ENABLED, SOKETI_METRICS_SERVER_PORT have no effect: there is no page",
        "SOKETI_SSL_CERT has no effect: a proxy such as nginx ends TLS",
        "SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC has no effect: app.max_requests_per_second",
        "soketi has no variable SOKETI_DEFAULT_APP_MAX_CONECTIONS; the nearest is",
        "SOKETI_CORS_ALLOWED_ORIGINS has no effect, in soketi neither: RINGWAVE_ALLOWED_ORIGINS",
    ] {
        assert!(
            config.notes.iter().any(|note| note.starts_with(part)),
            "{part}: {:?}",
            config.notes
        );
    }
    assert_eq!(config.notes.len(), 8, "{:?}", config.notes);
}

#[test]
fn the_webhooks_of_soketi_are_sent_and_what_it_passes_over_is_named() {
    let list = r#"[
        {"url": "https://a.example/hook", "event_types": ["channel_occupied", "message_sent"],
         "headers": {"X-Token": "tops3cret"}, "filter": {"channel_name_starts_with": "private-"}},
        {"lambda_function": "f", "event_types": ["channel_vacated"]}
    ]"#;
    let config = loaded(&SOKETI, &[("SOKETI_DEFAULT_APP_WEBHOOKS", list)]);
    assert!(!format!("{config:?}").contains("tops3cret"));
    let webhooks: Vec<_> = only_app(&config).webhooks.iter().collect();
    assert_eq!(webhooks.len(), 1);
    assert!(webhooks[0].wants(EventKind::ChannelOccupied, "private-a"));
    assert!(!webhooks[0].wants(EventKind::ChannelOccupied, "a"));
    assert!(!webhooks[0].wants(EventKind::ChannelVacated, "private-a"));
    // Without batching each event has a request of its own there.
    assert_eq!((webhooks[0].batch_max, webhooks[0].batch_window), (1, Duration::ZERO));
    for part in ["there are no events [\"message_sent\"]", "Lambda", "its entry 1 is left out"] {
        assert!(config.notes.iter().any(|note| note.contains(part)), "{:?}", config.notes);
    }

    let batching = [
        ("SOKETI_DEFAULT_APP_WEBHOOKS", list),
        ("SOKETI_WEBHOOKS_BATCHING", "true"),
        ("SOKETI_WEBHOOKS_BATCHING_DURATION", "200"),
    ];
    let config = loaded(&SOKETI, &batching);
    let webhook = only_app(&config).webhooks.iter().next().unwrap();
    assert_eq!((webhook.batch_max, webhook.batch_window), (100, Duration::from_millis(200)));

    let config = loaded(&SOKETI, &[("SOKETI_DEFAULT_APP_WEBHOOKS", "tops3cret")]);
    assert!(only_app(&config).webhooks.iter().next().is_none());
    assert!(config.notes.iter().any(|note| note.contains("not a list in JSON")));
    assert!(!config.notes.iter().any(|note| note.contains("tops3cret")));
}

#[test]
fn the_switches_of_soketi_follow_javascript() {
    for (value, expected) in [("0", false), ("false", false), ("1", true), ("yes", true)] {
        let config = loaded(&SOKETI, &[("SOKETI_DEBUG", value)]);
        assert_eq!(config.server.debug, expected, "{value}");
    }
    let config = loaded(&SOKETI, &[("SOKETI_DEFAULT_APP_MAX_CONNS", "-1")]);
    assert_eq!(only_app(&config).max_connections, None);
    let message = refused(Directory::with(&[]).load(
        &Flags::default(),
        &[SOKETI.as_slice(), &[("SOKETI_EVENT_MAX_SIZE_IN_KB", "lots")]].concat(),
    ));
    assert!(message.contains("SOKETI_EVENT_MAX_SIZE_IN_KB of the environment"), "{message}");
}
