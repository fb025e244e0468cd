use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{APP_ID, KEY, SECRET, Setup, served, served_with};
use crate::http::{Call, Http, Response, connections, publish, until_connected};
use crate::sign::md5;
use crate::steps::api::{self, subscribers};

/// Every endpoint, with a request that succeeds when nothing is subscribed but `presence-a`.
fn endpoints() -> Vec<Call> {
    let event = json!({ "name": "e", "channel": "c", "data": "1" });
    vec![
        Call::post("events", &event),
        Call::post("batch_events", &json!({ "batch": [event] })),
        Call::get("channels"),
        Call::get("channels/c"),
        Call::get("channels/presence-a/users"),
        Call::post("users/nobody/terminate_connections", &json!({})),
        Call::get("connections"),
    ]
}

#[track_caller]
fn refused(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, text));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn up_answers_without_a_signature() {
    served(|gateway| {
        let mut http = Http::over(gateway.tcp());
        http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
        assert_eq!(http.response().json(), json!({ "health": "OK" }));
    });
}

#[test]
fn events_reach_all_their_channels_and_are_answered_with_an_empty_object() {
    served(|gateway| {
        let mut clients = subscribers(&[gateway], 4);
        let body = json!({ "name": "e", "channels": ["c", "presence-a", "c"], "data": "1" });
        let response = Call::post("events", &body).send(gateway);
        assert_eq!((response.status, response.text().as_str()), (200, "{}"));
        // Each channel has an end of its own, because channels promise no order between them.
        ["c", "presence-a"].iter().for_each(|channel| publish(gateway, channel, "end", "1"));
        for client in &mut clients {
            let mut seen: Vec<_> = (0..4)
                .map(|_| client.next())
                .map(|message| ["channel", "event"].map(|field| message[field].clone()))
                .collect();
            // The sort is stable, so each channel keeps its own order.
            seen.sort_by_key(|[channel, _]| channel.to_string());
            let expected = [["c", "e"], ["c", "end"], ["presence-a", "e"], ["presence-a", "end"]];
            assert_eq!(json!(seen), json!(expected));
        }
    });
}

#[test]
fn the_counts_of_a_publish_cover_all_shards() {
    served(|gateway| api::count_at_publishes(&[gateway]));
}

#[test]
fn a_batch_is_published_in_its_order_and_answered_by_event() {
    served(|gateway| {
        let mut client = api::publish_a_batch(&[gateway]).remove(0);
        let batch = json!({ "batch": [
            { "name": "e", "channel": "c", "data": "1", "info": "subscription_count" },
            { "name": "e", "channel": "c", "data": "2", "socket_id": client.socket_id },
            { "name": "e", "channel": "nobody", "data": "3", "info": "subscription_count" },
        ] });
        let answer = Call::post("batch_events", &batch).ok(gateway);
        let expected =
            json!({ "batch": [{ "subscription_count": 1 }, {}, { "subscription_count": 0 }] });
        assert_eq!(answer, expected);
        client.expect_event("c", "e", "1");
        client.expect_nothing();
    });
}

#[test]
fn the_list_of_channels_covers_all_shards() {
    served(|gateway| api::list_channels(&[gateway]));
}

#[test]
fn a_channel_is_described_by_what_is_asked_of_it() {
    served(|gateway| api::describe_channels(&[gateway]));
}

#[test]
fn the_users_of_a_presence_channel_are_listed_once_each() {
    served(|gateway| {
        api::list_users(&[gateway]);
        let refusal = Call::get("channels/c/users").send(gateway);
        refused(&refusal, 400, "Only presence channels have users.");
    });
}

#[test]
fn terminating_a_user_closes_all_of_its_connections_and_no_others() {
    served(|gateway| {
        let mut others = subscribers(&[gateway], 3);
        let mut unnamed = Client::subscribed(gateway, "c");
        let mut theirs: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        for (at, client) in theirs.iter_mut().enumerate() {
            client.join(&format!("presence-{at}"), &json!({ "user_id": "a/ü 1" }));
        }
        let endpoint = "users/a%2F%C3%BC%201/terminate_connections";
        assert_eq!(Call::post(endpoint, &json!({})).ok(gateway), json!({}));
        for client in &mut theirs {
            client.expect_refusal(4009, "Connection terminated by the application");
        }
        let nobody = Call::post("users/nobody/terminate_connections", &json!({}));
        assert_eq!(nobody.ok(gateway), json!({}));
        unnamed.expect_nothing();
        until_connected(gateway, 4);
        Call::post("users/1/terminate_connections", &json!({})).ok(gateway);
        others[1].expect_refusal(4009, "Connection terminated by the application");
    });
}

#[test]
fn connections_are_counted_subscribed_or_not() {
    served(|gateway| {
        assert_eq!(connections(gateway), 0);
        let clients: Vec<_> = (0..9).map(|_| Client::connect(gateway)).collect();
        assert_eq!(connections(gateway), 9);
        drop(clients);
        until_connected(gateway, 0);
    });
}

#[test]
fn every_endpoint_refuses_what_is_not_signed_right() {
    served(|gateway| {
        let _present = subscribers(&[gateway], 1);
        for call in endpoints() {
            call.ok(gateway);
            let wrong = Call { secret: "another".to_owned(), ..call.clone() };
            refused(&wrong.send(gateway), 401, "Authentication signature invalid.");
            let wrong = Call { signed_path: Some("/apps/1/x".to_owned()), ..call.clone() };
            refused(&wrong.send(gateway), 401, "Authentication signature invalid.");
            let wrong = Call { key: "another".to_owned(), ..call.clone() };
            refused(&wrong.send(gateway), 401, "The auth_key is not the key of this app.");
            let late = "The auth_timestamp is not within 600 s of the server's time.";
            for timestamp in [call.timestamp - 615, call.timestamp + 615, 0] {
                let wrong = Call { timestamp, ..call.clone() };
                refused(&wrong.send(gateway), 401, late);
            }
            for timestamp in [call.timestamp - 590, call.timestamp + 590] {
                Call { timestamp, ..call.clone() }.ok(gateway);
            }
            let mut http = Http::over(gateway.tcp());
            let bare = String::from_utf8(call.bytes()).unwrap().replace(&call.target(), &call.path);
            http.send(bare.as_bytes());
            refused(&http.response(), 401, "The auth_key parameter is missing or malformed.");
        }
    });
}

#[test]
fn a_signature_that_was_changed_in_form_is_refused() {
    served(|gateway| {
        let call = Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
        let target = call.target();
        let signature = target.rsplit_once('=').unwrap().1.to_owned();
        let of = |target: &str| {
            let request = String::from_utf8(call.bytes()).unwrap().replace(&call.target(), target);
            let mut http = Http::over(gateway.tcp());
            http.send(request.as_bytes());
            http.response()
        };
        assert_eq!(of(&target.replace(&signature, &signature.to_uppercase())).status, 200);
        for changed in [
            target.replace("auth_signature=", "auth_signature[]="),
            target.replace("auth_signature=", "auth_signature[0]="),
            target.replace("auth_signature=", "AUTH_SIGNATURE%5b%5d="),
            target.replace("auth_version=1.0", "auth_version=2.0"),
            target.replace("auth_version=1.0&", ""),
            target.replace("auth_timestamp=", "auth_timestamp=+"),
            target.replace("auth_timestamp=", "auth_timestamp=0"),
            target.replace("body_md5=", "body_md5=0"),
            target.replace(&md5(&call.body), &md5(b"another body")),
            target.replace(&signature, &signature[1..]),
            target.replace(&signature, &format!("{signature}00")),
            target.replace(&signature, ""),
            format!("{target}&auth_key={KEY}"),
            format!("{target}&auth_signature={signature}"),
            format!("{target}&more=1"),
            format!("{target}&auth_key[]={KEY}"),
        ] {
            let response = of(&changed);
            assert_eq!(response.status, 401, "{changed}: {}", response.text());
        }
    });
}

#[test]
fn a_body_that_was_changed_is_refused() {
    served(|gateway| {
        let call = Call::post("events", &json!({ "name": "e", "channel": "c", "data": "1" }));
        let changed = String::from_utf8(call.bytes()).unwrap().replace(r#""1""#, r#""2""#);
        let mut http = Http::over(gateway.tcp());
        http.send(changed.as_bytes());
        refused(&http.response(), 401, "The body_md5 does not match the body.");
    });
}

#[test]
fn the_time_of_a_request_may_be_left_unchecked() {
    let unchecked = |setup: Setup| setup.env("RINGWAVE_APP_AUTH_TIMESTAMP_TOLERANCE", "0");
    served_with(unchecked, |gateway| {
        Call { timestamp: 1_353_088_179, ..Call::get("channels") }.ok(gateway);
    });
}

#[test]
fn the_key_of_one_app_opens_nothing_of_another() {
    let second = |setup: Setup| {
        setup.toml("[[apps]]\napp_id = \"b\"\nkey = \"b-key\"\nsecret = \"b-secret\"\n")
    };
    served_with(second, |gateway| {
        let mut client = Client::subscribed(gateway, "c");
        client.join("presence-a", &json!({ "user_id": "1" }));
        for call in endpoints() {
            let path = call.path.replace(APP_ID, "b");
            let wrong = Call { path: path.clone(), ..call.clone() };
            refused(&wrong.send(gateway), 401, "The auth_key is not the key of this app.");
            let wrong = Call { path: path.clone(), key: "b-key".to_owned(), ..call.clone() };
            refused(&wrong.send(gateway), 401, "Authentication signature invalid.");
            let (key, secret) = ("b-key".to_owned(), "b-secret".to_owned());
            let right = Call { path, key, secret, ..call.clone() };
            let response = right.send(gateway);
            let expected = if call.path.ends_with("presence-a/users") { 404 } else { 200 };
            assert_eq!(response.status, expected, "{}", response.text());
        }
        // Apps share no channel, even if its name is the same.
        client.expect_nothing();
        publish(gateway, "c", "e", "ours");
        client.expect_event("c", "e", "ours");
    });
}

#[test]
fn unknown_apps_paths_and_methods_are_told_apart() {
    served(|gateway| {
        let path = "/apps/9/events".to_owned();
        let unknown = Call { path, ..Call::post("events", &json!({})) };
        refused(&unknown.send(gateway), 404, "No matching application for ID [9].");
        for path in ["/", "/nothing", "/apps", "/apps/4711", "/apps/4711/event", "/up/", "/UP"] {
            let call = Call { path: path.to_owned(), ..Call::get("") };
            refused(&call.send(gateway), 404, "Not found.");
        }
        for (method, path, allowed) in [
            ("GET", "events", "POST"),
            ("PUT", "events", "POST"),
            ("POST", "channels", "GET, HEAD"),
            ("DELETE", "channels/c", "GET, HEAD"),
            ("GET", "users/1/terminate_connections", "POST"),
        ] {
            let response = Call { method, ..Call::get(path) }.send(gateway);
            refused(&response, 405, "Method not allowed.");
            assert_eq!(response.header("allow"), Some(allowed));
        }
    });
}

#[test]
fn bodies_that_are_no_json_objects_are_400() {
    served(|gateway| {
        let nested = format!(r#"{{"name":{}}}"#, "[".repeat(90_000));
        for body in ["{", "x", "{\"name\":}", "\u{0}", &"[".repeat(99_000), &nested] {
            refused(
                &Call::post_text("events", body).send(gateway),
                400,
                "The body is not valid JSON.",
            );
        }
        for body in ["[]", "1", "null", "\"text\""] {
            let response = Call::post_text("batch_events", body).send(gateway);
            refused(&response, 400, "The body must be a JSON object.");
        }
        let empty = Call::post_text("events", "").send(gateway);
        assert_eq!(empty.status, 400);
    });
}

#[test]
fn an_invalid_request_is_answered_by_field() {
    served(|gateway| {
        let channels: Vec<_> = (0..101).map(|at| format!("c{at}")).collect();
        let valid = |key: &str, value: Value| {
            let mut body = json!({ "name": "e", "channel": "c", "data": "1" });
            body[key] = value;
            body
        };
        let table = [
            (valid("name", json!(null)), "name", "The name field is required."),
            (valid("name", json!("line\nfeed")), "name", "The name field format is invalid."),
            (valid("data", json!("")), "data", "The data field is required."),
            (valid("data", json!({})), "data", "The data field must be a string."),
            (
                valid("channel", json!(null)),
                "channel",
                "The channel field is required when channels is not present.",
            ),
            (
                valid("channels", json!(channels)),
                "channels",
                "The channels field must not have more than 100 items.",
            ),
            (valid("channels", json!("c")), "channels", "The channels field must be an array."),
            (
                valid("channel", json!("a\nb")),
                "channel",
                "The channel name has a character that is not allowed.",
            ),
            (
                valid("channel", json!("c".repeat(201))),
                "channel",
                "The channel name is longer than 200 bytes.",
            ),
            (valid("socket_id", json!(1.2)), "socket_id", "The socket id field must be a string."),
            (valid("info", json!([])), "info", "The info field must be a string."),
        ];
        for (body, field, text) in table {
            let response = Call::post("events", &body).send(gateway);
            assert_eq!(response.status, 422, "{body}: {}", response.text());
            assert_eq!(response.json()[field], json!([text]), "{body}");
        }
        let event = json!({ "name": "e", "channel": "c", "data": "1" });
        let batch = json!({ "batch": [event, { "channel": "c", "data": "1" }] });
        let response = Call::post("batch_events", &batch).send(gateway);
        let expected = json!({ "batch.1.name": ["The batch.1.name field is required."] });
        assert_eq!((response.status, response.json()), (422, expected));
        let response = Call::post("batch_events", &json!({ "batch": [] })).send(gateway);
        assert_eq!(response.json(), json!({ "batch": ["The batch field is required."] }));
    });
}

#[test]
fn a_request_with_one_wrong_event_publishes_none_of_them() {
    served(|gateway| {
        let mut client = Client::subscribed(gateway, "c");
        let batch = json!({ "batch": [
            { "name": "e", "channel": "c", "data": "1" }, { "name": "e", "channel": "c" },
        ] });
        assert_eq!(Call::post("batch_events", &batch).send(gateway).status, 422);
        let several = json!({ "name": "e", "channels": ["c", "a\nb"], "data": "1" });
        assert_eq!(Call::post("events", &several).send(gateway).status, 422);
        publish(gateway, "c", "e", "only");
        client.expect_event("c", "e", "only");
    });
}

#[test]
fn bodies_and_data_over_their_limits_are_413() {
    let limited = |setup: Setup| {
        let setup = setup.env("REVERB_MAX_REQUEST_SIZE", "5000");
        setup.env("RINGWAVE_APP_MAX_EVENT_DATA", "100")
    };
    served_with(limited, |gateway| {
        let event = |len| json!({ "name": "e", "channel": "c", "data": "d".repeat(len) });
        Call::post("events", &event(100)).ok(gateway);
        let response = Call::post("events", &event(101)).send(gateway);
        refused(&response, 413, "The data of an event may have at most 100 bytes.");
        let response = Call::post("events", &event(6000)).send(gateway);
        refused(&response, 413, "Payload too large.");
        assert_eq!(response.header("connection"), Some("close"));
        let padded = format!(r#"{{"name":"e","channel":"c","data":"1"{}}}"#, " ".repeat(4963));
        assert_eq!(padded.len(), 5000);
        Call::post_text("events", &padded).ok(gateway);
        assert_eq!(Call::post_text("events", &format!("{padded} ")).send(gateway).status, 413);
    });
}

#[test]
fn all_paths_answer_with_and_without_the_prefix_whichever_is_signed() {
    served_with(
        |setup| setup.env("REVERB_SERVER_PATH", "ws"),
        |gateway| {
            for prefix in ["", "/ws"] {
                let mut http = Http::over(gateway.tcp());
                http.send(format!("GET {prefix}/up HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
                assert_eq!(http.response().status, 200);
                let mut client =
                    Client::open(gateway, &format!("{prefix}/app/{KEY}?protocol=7"), &[]);
                client.established();
                client.join("presence-a", &json!({ "user_id": "1" }));
                for call in endpoints() {
                    for signed in ["", "/ws"] {
                        let path = format!("{prefix}{}", call.path);
                        let signed_path = Some(format!("{signed}{}", call.path));
                        Call { path, signed_path, ..call.clone() }.ok(gateway);
                    }
                    let signed_path = Some(format!("/other{}", call.path));
                    let wrong = Call { signed_path, ..call.clone() };
                    assert_eq!(wrong.send(gateway).status, 401);
                }
            }
        },
    );
}

#[test]
fn percent_encoded_paths_are_decoded_and_may_be_signed_in_either_form() {
    served(|gateway| {
        let _client = Client::subscribed(gateway, "a:b/ü");
        let encoded = Call::get("channels/a%3Ab%2F%C3%BC");
        assert_eq!(encoded.ok(gateway), json!({ "occupied": true }));
        let signed_path = Some(format!("/apps/{APP_ID}/channels/a:b/ü"));
        let decoded = Call { signed_path, ..encoded };
        assert_eq!(decoded.ok(gateway), json!({ "occupied": true }));
    });
}

#[test]
fn the_secret_of_an_app_is_in_no_answer() {
    served(|gateway| {
        let mut calls = endpoints();
        calls.push(Call { key: SECRET.to_owned(), ..Call::get("channels") });
        for call in calls {
            assert!(!call.send(gateway).text().contains(SECRET));
        }
    });
}
