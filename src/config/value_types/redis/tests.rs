use super::*;

const SERVERS: RedisServers = RedisServers { port: 6379, at_least: 1 };

#[track_caller]
fn one(text: &str) -> RedisServer {
    let mut servers = SERVERS.parse(&RawValue::Text(text.into())).ok().unwrap();
    assert_eq!(servers.len(), 1, "{text}");
    servers.remove(0)
}

fn tcp(host: &str, port: u16, tls: bool) -> RedisAddress {
    RedisAddress::Tcp { host: host.into(), port, tls }
}

#[test]
fn addresses_are_taken_in_every_form_of_laravel_and_its_clients() {
    for (text, address, shown) in [
        ("redis.test", tcp("redis.test", 6379, false), "redis://redis.test:6379"),
        ("redis_1:6380", tcp("redis_1", 6380, false), "redis://redis_1:6380"),
        ("redis://redis.test", tcp("redis.test", 6379, false), "redis://redis.test:6379"),
        ("tcp://10.0.0.1:1", tcp("10.0.0.1", 1, false), "redis://10.0.0.1:1"),
        ("rediss://r.test:6380", tcp("r.test", 6380, true), "rediss://r.test:6380"),
        ("TLS://r.test", tcp("r.test", 6379, true), "rediss://r.test:6379"),
        ("::1", tcp("::1", 6379, false), "redis://[::1]:6379"),
        ("[::1]:7", tcp("::1", 7, false), "redis://[::1]:7"),
        ("rediss://[2001:db8::1]", tcp("2001:db8::1", 6379, true), "rediss://[2001:db8::1]:6379"),
        ("/run/redis.sock", RedisAddress::Unix("/run/redis.sock".into()), "unix:///run/redis.sock"),
        ("unix:///run/r", RedisAddress::Unix("/run/r".into()), "unix:///run/r"),
        ("redis+unix:///run/r", RedisAddress::Unix("/run/r".into()), "unix:///run/r"),
    ] {
        let server = one(text);
        assert_eq!(server.address, address, "{text}");
        assert_eq!(SERVERS.display(&vec![server]), shown, "{text}");
    }
}

#[test]
fn users_passwords_and_databases_are_decoded_and_the_password_is_not_shown() {
    let said = |text: &str| {
        let RedisServer { username, password, database, ignored, .. } = one(text);
        let [username, password] = [username, password].map(Option::unwrap_or_default);
        (username, password, database, ignored.join(" "))
    };
    let expected = |username: &str, password: &str, database, ignored: &str| {
        (username.to_owned(), password.to_owned(), database, ignored.to_owned())
    };
    for (text, login) in [
        ("redis://u%40x:p%2F%3A%C3%A4@h/3", expected("u@x", "p/:\u{e4}", Some(3), "")),
        ("redis://:only@h:1/", expected("", "only", None, "")),
        ("redis://user@h", expected("user", "", None, "")),
        ("redis://u:a:b@c,d@h", expected("u", "a:b@c,d", None, "")),
        (
            "redis://h?password=a%26b+c&database=4&prefix=x",
            expected("", "a&b c", Some(4), "prefix"),
        ),
        ("unix:///run/r?db=2&pass=p&user=u&a\nb", expected("u", "p", Some(2), "a\\nb")),
        ("unix://u:p@/run/r", expected("u", "p", None, "")),
    ] {
        assert_eq!(said(text), login, "{text}");
    }
    let server = vec![one("rediss://u%40x:p%2F@h:1/3")];
    assert_eq!(SERVERS.display(&server), "rediss://u%40x:[withheld]@h:1/3");
    assert_eq!(SERVERS.canonical(&server), "rediss://u%40x:p%2F@h:1/3\n");
    let server = vec![one("unix:///run/r?pass=p&db=2")];
    assert_eq!(SERVERS.display(&server), "unix://:[withheld]@/run/r?db=2");
    let again = one(SERVERS.canonical(&server).trim());
    assert_eq!(vec![again], server);
}

#[test]
fn several_servers_are_a_list_and_a_comma_of_a_password_divides_none() {
    let hosts = |raw: &RawValue| {
        let servers = SERVERS.parse(raw).ok().unwrap();
        servers.iter().map(|server| server.address.to_string()).collect::<Vec<_>>().join(" ")
    };
    let text = |text: &str| RawValue::Text(text.into());
    assert_eq!(hosts(&text("a, b:1,")), "redis://a:6379 redis://b:1");
    let list = RawValue::List(vec!["redis://u:p,q@a".into(), "b".into()]);
    assert_eq!(hosts(&list), "redis://a:6379 redis://b:6379");
    let urls = text("rediss://u:p,q@a, rediss://u:r,s@b");
    assert_eq!(hosts(&urls), "rediss://a:6379 rediss://b:6379");
    assert!(SERVERS.parse(&text("")).is_err(), "at least one");
    assert!(RedisServers { port: 1, at_least: 0 }.parse(&text("")).is_ok());
}

#[test]
fn what_is_no_server_is_refused_and_shown_only_where_it_holds_no_password() {
    for text in [
        "http://h",
        "redis://",
        "redis://h:0",
        "redis://h:+1",
        "redis://h:65536",
        "redis://h/x",
        "redis://h/1/2",
        "redis://a b",
        "unix://",
        "unix:///",
        "unix://relative",
        "h:1:2",
        "[::1",
        "[h]:1",
        "sentinel://h",
    ] {
        let rejected = SERVERS.parse(&RawValue::Text(text.into())).err().unwrap();
        assert_eq!(rejected.to_string(), format!("{text:?}"));
    }
    for secret in
        ["redis://u:s3cret/@h", "redis://:%FF@h", "unix://s3cret:x@run/r", "redis://h?db=x"]
    {
        let rejected = SERVERS.parse(&RawValue::Text(secret.into())).err().unwrap();
        assert_eq!(rejected.to_string(), WITHHELD, "{secret}");
    }
}

#[test]
fn scheme_host_and_port_make_the_address_that_laravel_connects_to() {
    for (scheme, host, port, address) in [
        (None, "127.0.0.1", Some("6379"), "127.0.0.1:6379"),
        (None, "redis", None, "redis"),
        (Some("tls"), "h", Some("1"), "tls://h:1"),
        (Some("tls"), "TLS://h", Some("1"), "TLS://h:1"),
        (None, "tls://h", Some("1"), "tls://h:1"),
        (None, "tls://h:2", Some("1"), "tls://h:2"),
        (None, "::1", Some("1"), "[::1]:1"),
        (Some("tls"), "::1", None, "tls://[::1]"),
        (None, "/run/redis.sock", Some("0"), "/run/redis.sock"),
        (Some("unix"), "/run/redis.sock", None, "/run/redis.sock"),
        (None, "unix:///run/r", Some("0"), "unix:///run/r"),
        // Laravel refuses them too.
        (Some("tcp"), "tls://h", Some("1"), "tcp://tls://h"),
    ] {
        assert_eq!(address_of_parts(scheme, host, port), address);
    }
    for (url, with) in [
        ("redis://u:p@h/3?x=/", "redis://u:p@h:9/3?x=/"),
        ("redis://u:p@h:1/3", "redis://u:p@h:1/3"),
        ("redis://[::1]", "redis://[::1]:9"),
        ("redis://[::1]:1", "redis://[::1]:1"),
        ("unix:///run/r", "unix:///run/r"),
        ("/run/r", "/run/r"),
        ("", ""),
    ] {
        assert_eq!(with_port(url, Some("9")), with);
    }
}
