//! Units of numbers, names of variables, paths without a file, and notes on them.

use std::os::unix::fs::symlink;

use super::*;

fn notes(environment: &[(&str, &str)]) -> Vec<String> {
    with_app(environment).unwrap().notes
}

fn flags(given: &[(&str, &str)]) -> Flags {
    given.iter().fold(Flags::default(), |flags, &(name, value)| flags.with(name, &[value]))
}

#[test]
fn sizes_and_times_take_units_in_every_source() {
    let config = with_app(&[
        ("RINGWAVE_BACKLOG_PER_SHARD", "128M"),
        ("RINGWAVE_MEMORY_LIMIT", "2G"),
        ("RINGWAVE_SHUTDOWN_WINDOW", "7s"),
        ("REVERB_APP_PING_INTERVAL", "2m"),
        ("REVERB_APP_ACTIVITY_TIMEOUT", "1m"),
        ("REVERB_MAX_REQUEST_SIZE", "64K"),
    ])
    .unwrap();
    assert_eq!(config.server.backlog_per_shard, 128 << 20);
    assert_eq!(config.server.memory_limit, MemoryLimit::Bytes(2 << 30));
    assert_eq!(config.server.shutdown_window, Some(Duration::from_secs(7)));
    let app = only_app(&config);
    assert_eq!((app.ping_interval, app.rules.activity_timeout_s), (Duration::from_secs(120), 60));
    assert_eq!(app.rules.limits.max_request_size, 64 << 10);

    let toml = "[server]\nbacklog_per_connection = \"2M\"\nheader_timeout = \"1m\"\n\
        [[apps]]\napp_id = 1\ncache_ttl = \"1h\"\nmax_message_size = \"64K\"\n\
        [[apps.webhooks]]\nurl = \"http://a\"\nbatch_window_ms = \"1s\"\ntimeout = \"5s\"\n";
    let config = with_toml(toml, &APP).unwrap();
    assert_eq!(config.server.backlog_per_connection, 2 << 20);
    assert_eq!(config.server.header_timeout, Duration::from_secs(60));
    let app = only_app(&config);
    assert_eq!(app.cache_ttl, Duration::from_secs(3600));
    assert_eq!(app.rules.limits.max_message_size, 64 << 10);
    let webhook = app.webhooks.iter().next().unwrap();
    assert_eq!(webhook.batch_window, Duration::from_secs(1));
    assert_eq!(webhook.timeout, Duration::from_secs(5));

    let message = refused(with_app(&[("RINGWAVE_BACKLOG_PER_SHARD", "64X")]));
    assert!(message.ends_with("a size from 4K to 64G (bytes, or `K`, `M`, `G`)"), "{message}");
}

#[test]
fn the_origins_of_projects_are_honoured_under_the_names_that_they_use() {
    for name in ["REVERB_ALLOWED_ORIGINS", "REVERB_APP_ALLOWED_ORIGINS"] {
        let config = with_app(&[(name, "https://a.test/, b.test")]).unwrap();
        let origins = &only_app(&config).allowed_origins;
        assert!(origins.check(Some("https://a.test")).is_ok(), "{name}");
        assert!(origins.check(Some("http://b.test:3000")).is_ok(), "{name}");
        assert!(origins.check(Some("https://c.test")).is_err(), "{name}");
        assert_eq!(config.notes, [""; 0], "{name}");
        let source = resolved(&config, "apps[0].allowed_origins").source.to_string();
        assert_eq!(source, format!("{name} of the environment"));
    }
    let message = refused(with_app(&[("REVERB_ALLOWED_ORIGINS", "https://a.test/path")]));
    assert!(message.contains("REVERB_ALLOWED_ORIGINS"), "{message}");
}

#[test]
fn of_two_names_for_one_setting_the_own_one_counts_and_the_other_is_named() {
    let config = with_app(&[
        ("REVERB_ALLOWED_ORIGINS", "a.test"),
        ("REVERB_APP_ALLOWED_ORIGINS", "b.test"),
        ("RINGWAVE_ALLOWED_ORIGINS", "b.test"),
    ])
    .unwrap();
    assert!(only_app(&config).allowed_origins.check(Some("http://a.test")).is_err());
    assert_eq!(
        config.notes,
        ["REVERB_ALLOWED_ORIGINS has no effect: RINGWAVE_ALLOWED_ORIGINS counts."]
    );
}

#[test]
fn variables_that_nobody_reads_are_named_with_the_nearest_one() {
    assert_eq!(
        notes(&[
            ("REVERB_SERVER_PROT", "9000"),
            ("REVERB_APP_MAX_CONECTIONS", "5"),
            ("REVERB_INTERNAL_HOST", "reverb"),
            ("REVERB_ENABLED", "true"),
            ("RINGWAVE_ZZZZZZ", "1"),
        ]),
        [
            "There is no variable REVERB_APP_MAX_CONECTIONS; the nearest is \
             REVERB_APP_MAX_CONNECTIONS. It has no effect.",
            "There is no variable REVERB_SERVER_PROT; the nearest is REVERB_SERVER_PORT. It has \
             no effect.",
            "There is no variable RINGWAVE_ZZZZZZ. It has no effect.",
            "REVERB_ENABLED, REVERB_INTERNAL_HOST have no effect on this server: neither Reverb \
             nor Ringwave has such a variable, though your app may.",
        ]
    );
}

#[test]
fn variables_that_reverb_and_laravel_read_are_not_spoken_of() {
    let read = [
        ("REVERB_SERVER", "reverb"),
        ("REVERB_PORT", "443"),
        ("REVERB_SCHEME", "https"),
        ("REVERB_HOST", "ws.example.com"),
        ("REVERB_SCALING_ENABLED", "false"),
        ("REVERB_SCALING_CHANNEL", "reverb"),
        ("REVERB_PULSE_INGEST_INTERVAL", "15"),
        ("REVERB_TELESCOPE_INGEST_INTERVAL", "15"),
        ("VITE_REVERB_HOST", "ws.example.com"),
        ("PUSHER_APP_ID", "2"),
        ("PUSHER_APP_CLUSTER", "mt1"),
        ("REDIS_HOST", "127.0.0.1"),
    ];
    assert_eq!(notes(&read), [""; 0]);
}

#[test]
fn a_reference_with_a_default_is_explained_without_the_default() {
    let text = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=\"${S3:-tops3cret}\"\n\
        REVERB_HOST='${NOBODY}'\nREVERB_SERVER_PATH=/ws\n";
    let config = Directory::with(&[(".env", text)]).load(&Flags::default(), &[]).unwrap();
    assert_eq!(
        config.notes,
        ["${S3:-...} is literal text in the value of REVERB_APP_SECRET in .env line 3: Laravel's \
          .env replaces `${NAME}` of a variable that is set, and knows no defaults."]
    );
    let message = refused(with_app(&[("REVERB_SERVER_PORT", "${PORT:-8080}")]));
    assert!(message.contains("literal text in Laravel's .env"), "{message}");
}

#[test]
fn what_is_no_file_is_passed_over_where_laravel_does_and_named() {
    let directory = Directory::with(&[]);
    fs::create_dir(directory.0.join(".env")).unwrap();
    symlink("/nonexistent/ringwave.toml", directory.0.join("ringwave.toml")).unwrap();
    let config = directory.load(&Flags::default(), &APP).unwrap();
    let path = |name: &str| directory.0.join(name).display().to_string();
    assert_eq!(config.notes.len(), 2);
    assert!(config.notes[0].starts_with(&format!("{} is a directory", path(".env"))));
    assert!(config.notes[1].starts_with(&format!("{} is a link to", path("ringwave.toml"))));
    let named = Flags { env: Some(".env".into()), ..Flags::default() };
    let message = refused(directory.load(&named, &APP));
    assert!(message.starts_with(".env (from --env) is a directory"), "{message}");
}

#[test]
fn encodings_that_laravel_cannot_read_are_named() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for name in [".env", "ringwave.toml"] {
        let directory = Directory::with(&[]);
        fs::write(directory.0.join(name), wide("\u{feff}A=1\n")).unwrap();
        let message = refused(directory.load(&Flags::default(), &[]));
        assert!(message.starts_with(&format!("{name} is in UTF-16, as PowerShell")), "{message}");
    }
    let directory = Directory::with(&[]);
    fs::write(directory.0.join("ringwave.toml"), b"[server]\n# caf\xE9\n").unwrap();
    let message = refused(directory.load(&Flags::default(), &[]));
    assert_eq!(message, "ringwave.toml line 2 is not UTF-8, as TOML has to be");
    let directory = Directory::with(&[]);
    fs::write(directory.0.join(".env"), b"# caf\xE9\nREVERB_SERVER_PORT=9000").unwrap();
    let config = directory.load(&Flags::default(), &[]).unwrap();
    assert_eq!(address(&config), "127.0.0.1:9000");
}

#[test]
fn a_quote_that_never_closes_drops_the_rest_of_the_file_and_is_told() {
    let text = "REVERB_SERVER_PORT=9000\nMAIL_FROM=\"tops3cret\nREVERB_SERVER_PATH=/ws\n";
    let config = Directory::with(&[(".env", text)]).load(&Flags::default(), &APP).unwrap();
    assert_eq!((address(&config).as_str(), config.server.path.as_str()), ("0.0.0.0:9000", ""));
    assert_eq!(
        config.notes,
        ["A double quote opens in .env line 2 and never closes: that line and all below it are \
          dropped, as in Laravel."]
    );
}

#[test]
fn places_to_listen_on_count_before_host_and_port_and_it_is_said() {
    let noted = |raw: &[(&str, &str)], environment: &[(&str, &str)]| {
        let environment: Vec<_> = APP.iter().chain(environment).copied().collect();
        Directory::with(&[]).load(&flags(raw), &environment).unwrap().notes
    };
    assert_eq!(
        noted(&[("--listen", "tcp://127.0.0.1:9000"), ("--port", "8081")], &[]),
        ["--port has no effect: server.listen (--listen) counts, and names 127.0.0.1:9000."]
    );
    assert_eq!(
        noted(
            &[("--listen", "unix:///run/r.sock"), ("--host", "127.0.0.1")],
            &[("REVERB_SERVER_PORT", "8081")]
        ),
        ["--host and REVERB_SERVER_PORT of the environment have no effect: server.listen \
          (--listen) counts, and names unix:///run/r.sock."]
    );
    let same = [("--listen", "tcp://127.0.0.1:9000"), ("--port", "9000"), ("--host", "127.0.0.1")];
    assert_eq!(noted(&same, &[]), [""; 0]);
    assert_eq!(noted(&[("--port", "9000")], &[]), [""; 0]);
}

#[test]
fn events_that_are_larger_than_a_request_are_spoken_of() {
    let notes = notes(&[("RINGWAVE_APP_MAX_EVENT_DATA", "200K")]);
    assert!(notes[0].starts_with("The app 1 allows events of 204800 bytes"), "{notes:?}");
}

/// The notes on the port to publish to for these variables and flags.
fn publishing(environment: &[(&str, &str)], raw: &[(&str, &str)]) -> Vec<String> {
    let environment: Vec<_> = APP.iter().chain(environment).copied().collect();
    Directory::with(&[]).load(&flags(raw), &environment).unwrap().notes
}

#[test]
fn the_port_to_publish_to_is_spoken_of_where_only_this_server_can_be_meant() {
    let local = [("REVERB_HOST", "localhost"), ("REVERB_PORT", "8081"), ("REVERB_SCHEME", "http")];
    let notes = publishing(&local, &[]);
    assert_eq!(
        notes,
        ["REVERB_PORT=8081 and REVERB_HOST=localhost tell your app to publish to this host over \
          plain HTTP, but this server listens on 8080. Unless a proxy listens on port 8081, start \
          it with --port=8081 or set REVERB_SERVER_PORT=8081."]
    );
    assert_eq!(publishing(&local, &[("--port", "8081")]), [""; 0]);
    for host in ["127.0.0.1", "[::1]", "::1"] {
        let mut local = local;
        local[0].1 = host;
        assert_eq!(publishing(&local, &[]).len(), 1, "{host}");
    }
    // The port alone is not enough.
    let notes = publishing(&local, &[("--port", "8081"), ("--host", "10.0.0.7")]);
    assert!(notes[0].contains("this server listens on 10.0.0.7:8081"), "{notes:?}");
    assert_eq!(publishing(&local, &[("--port", "8081"), ("--host", "127.0.0.1")]), [""; 0]);
    assert_eq!(publishing(&local, &[("--port", "8081"), ("--host", "[::]")]), [""; 0]);
}

#[test]
fn nothing_is_said_of_the_port_to_publish_to_where_a_proxy_may_be_meant() {
    for (host, port, scheme) in [
        ("ws.example.com", "443", "https"),
        ("ws.example.com", "8081", "http"),
        ("localhost", "443", "https"),
        ("localhost", "443", "http"),
        ("localhost", "80", "http"),
        ("localhost", "8443", "https"),
        // Laravel's own default is https.
        ("localhost", "8081", ""),
        ("localhost", "", "http"),
    ] {
        let variables = [("REVERB_HOST", host), ("REVERB_PORT", port), ("REVERB_SCHEME", scheme)];
        assert_eq!(publishing(&variables, &[]), [""; 0], "{variables:?}");
    }
    let local = [("REVERB_HOST", "localhost"), ("REVERB_PORT", "8000"), ("REVERB_SCHEME", "http")];
    for (name, value) in [
        ("RINGWAVE_TRUSTED_PROXIES", "127.0.0.1"),
        ("RINGWAVE_LISTEN", "unix:///run/r.sock"),
        ("RINGWAVE_LISTEN", "tcp+proxy://127.0.0.1:8080"),
    ] {
        let variables: Vec<_> = local.into_iter().chain([(name, value)]).collect();
        assert_eq!(publishing(&variables, &[]), [""; 0], "{name}={value}");
    }
}

#[test]
fn tls_to_the_servers_own_port_is_said_to_fail() {
    let tls =
        |host, port| [("REVERB_HOST", host), ("REVERB_PORT", port), ("REVERB_SCHEME", "https")];
    for host in ["localhost", "ws.example.com"] {
        let notes = publishing(&tls(host, "8080"), &[]);
        assert!(
            notes[0].starts_with("REVERB_SCHEME=https with REVERB_PORT=8080 cannot work"),
            "{notes:?}"
        );
    }
    // nginx may have the same port on the public address.
    let notes = publishing(&tls("ws.example.com", "8443"), &[("--listen", "tcp://127.0.0.1:8443")]);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn a_limit_of_memory_below_what_the_process_needs_is_refused_at_the_start_with_the_figure() {
    let config = |limit: &str| {
        with_app(&[("RINGWAVE_SHARDS", "2"), ("RINGWAVE_MEMORY_LIMIT", limit)]).unwrap()
    };
    let small = config("10M");
    let sentence = "server.memory_limit is 10M, but 2 shards take 13M before the first connection: \
        set it to 15M or more, as much more as connections and messages are to have, or to `auto`";
    assert_eq!(small.holds().unwrap_err().to_string(), sentence);
    // A process that serves may be told so.
    assert_eq!(small.notes, [format!("{sentence}.")]);
    assert!(config("15M").holds().is_ok());
    assert_eq!(config("15M").notes, [""; 0]);
    assert!(config("none").holds().is_ok());
}

#[test]
fn many_more_shards_than_cores_are_spoken_of_with_their_memory() {
    let server = |shards: &str| with_app(&[("RINGWAVE_SHARDS", shards)]).unwrap().server;
    assert_eq!(
        capacity::notes(&server("1024"), 2),
        ["1024 shards on 2 cores take turns, serve no more than 2 would, and take 2464M before \
          the first connection. The default is one per core."]
    );
    assert_eq!(capacity::notes(&server("8"), 2), [""; 0]);
}
