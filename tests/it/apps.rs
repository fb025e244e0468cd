use serde_json::json;

use crate::client::Client;
use crate::gateway::{SECRET, Setup, served_with};
use crate::http::Call;

const APPS: usize = 500;

fn many_apps(setup: Setup) -> Setup {
    let app = |number: usize| {
        format!(
            "[[apps]]\napp_id = \"{number}\"\nkey = \"key-{number}\"\nsecret = \"{SECRET}\"\n\
             activity_timeout = {}\n",
            number + 1
        )
    };
    setup.dotenv("").toml(&(0..APPS).map(app).collect::<String>())
}

#[test]
fn hundreds_of_apps_have_each_their_own_channels_settings_and_api() {
    served_with(many_apps, |gateway| {
        let mut clients: Vec<_> = (0..APPS)
            .step_by(7)
            .map(|number| {
                let mut client = Client::open(gateway, &format!("/app/key-{number}"), &[]);
                assert_eq!(client.established()["activity_timeout"], number + 1);
                client.subscribe("room");
                client.subscribe("cache-room");
                client.expect("pusher:cache_miss");
                (number, client)
            })
            .collect();
        for (number, _) in &clients {
            let channels = json!(["room", "cache-room"]);
            let event = json!({ "name": "e", "channels": channels, "data": number.to_string() });
            let (path, key) = (format!("/apps/{number}/events"), format!("key-{number}"));
            Call { path, key, ..Call::post("", &event) }.ok(gateway);
        }
        for (number, client) in &mut clients {
            let mut heard = [client.next(), client.next()];
            heard.sort_by_key(|message| message["channel"].to_string());
            for (message, channel) in heard.iter().zip(["cache-room", "room"]) {
                assert_eq!(
                    (&message["channel"], &message["event"]),
                    (&json!(channel), &json!("e"))
                );
                assert_eq!(message["data"], number.to_string());
            }
            client.expect_nothing();
            let (path, key) = (format!("/apps/{number}/connections"), format!("key-{number}"));
            let connections = Call { path, key, ..Call::get("") }.ok(gateway);
            assert_eq!(connections, json!({ "connections": 1 }));
        }
    });
}
