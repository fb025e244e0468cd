use std::time::Instant;

use serde_json::json;

use crate::gateway::{Gateway, eventually, served_with};
use crate::http::{Call, Http, Response};
use crate::reload;

// ---- what an app may ask ------------------------------------------------------------------------

/// Sends it on each of several connections, which other shards may have accepted, in turn.
fn sent_by_turns(gateway: &Gateway, call: &Call, times: usize) -> Vec<Response> {
    let mut connections: Vec<_> = (0..8).map(|_| Http::over(gateway.tcp())).collect();
    let ways = connections.len();
    let bytes = call.bytes();
    let send = |at| {
        let http: &mut Http<std::net::TcpStream> = &mut connections[at % ways];
        http.send(&bytes);
        http.response()
    };
    (0..times).map(send).collect()
}

fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

#[test]
fn an_app_sends_as_many_requests_as_it_may_over_all_shards_and_hears_when_to_come_back() {
    let setting = ("RINGWAVE_APP_MAX_REQUESTS_PER_SECOND", "20");
    served_with(
        |setup| setup.env(setting.0, setting.1),
        |gateway| {
            let started = Instant::now();
            let responses = sent_by_turns(gateway, &Call::get("channels"), 200);
            let (ok, over) = (count(&responses, 200), count(&responses, 429));
            let came = 20.0 * started.elapsed().as_secs_f64();
            assert_eq!(ok + over, 200);
            assert!(ok >= 20 && ok as f64 <= 20.0 + came + 1.0, "{ok} in {came}");
            for refused in responses.iter().filter(|response| response.status == 429) {
                assert_eq!(refused.header("retry-after"), Some("1"));
                let text = "The app may send 20 requests per second, and has sent more.";
                assert_eq!(refused.text(), text);
            }
            eventually("the app may again", || {
                (Call::get("channels").send(gateway).status == 200).then_some(())
            });
        },
    );
}

#[test]
fn requests_that_the_app_did_not_sign_use_up_none_of_its_own() {
    served_with(
        |setup| setup.env("RINGWAVE_APP_MAX_REQUESTS_PER_SECOND", "1"),
        |gateway| {
            let forged = Call { secret: "another".to_owned(), ..Call::get("channels") };
            assert_eq!(count(&sent_by_turns(gateway, &forged, 50), 401), 50);
            let mut stale = Call::get("channels");
            stale.timestamp -= 3600;
            assert_eq!(count(&sent_by_turns(gateway, &stale, 50), 401), 50);
            Call::get("channels").ok(gateway);
        },
    );
}

#[test]
fn a_reload_changes_the_rate_and_gives_nothing_back() {
    served_with(
        |setup| setup.toml("[app]\nmax_requests_per_second = 1\n"),
        |gateway| {
            let used_up = || Call::get("channels").send(gateway).status == 429;
            eventually("it is used up", || used_up().then_some(()));
            let reloaded = |toml: &str| {
                std::fs::write(gateway.path("ringwave.toml"), toml).unwrap();
                assert!(reload::reload(gateway).status.success());
            };
            reloaded("");
            let event = json!({ "name": "e", "channel": "c", "data": "1" });
            let responses = sent_by_turns(gateway, &Call::post("events", &event), 50);
            assert_eq!(count(&responses, 200), 50, "there is no limit any more");
        },
    );
}
