use std::fs;

use serde_json::json;

use crate::gateway::{Gateway, Setup, served_with};
use crate::http::Call;
use crate::reload::reload;

const APP: &str = "REVERB_APP_ID=4711\nREVERB_APP_KEY=it-key\nREVERB_APP_SECRET_FILE=secret\n";
const SECRETS: [&str; 2] = ["first-3f1c09aa", "second-77be01cc"];

/// The status of a publish that is signed with this secret.
fn published(gateway: &Gateway, secret: &str) -> u16 {
    let event = json!({ "name": "e", "channel": "room", "data": "1" });
    Call { secret: secret.to_owned(), ..Call::post("events", &event) }.send(gateway).status
}

#[test]
fn the_secret_of_an_app_is_read_from_its_file_again_by_a_reload_and_never_shown() {
    let [first, second] = SECRETS;
    let settings = |setup: Setup| {
        fs::create_dir_all(setup.path("")).unwrap();
        fs::write(setup.path("secret"), format!("{first}\n")).unwrap();
        setup.dotenv(APP).flag("--debug")
    };
    served_with(settings, |gateway| {
        assert_eq!((published(gateway, first), published(gateway, second)), (200, 401));
        fs::write(gateway.path("secret"), second).unwrap();
        let output = reload(gateway);
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("app 4711: secret changed"), "{told}");
        assert_eq!((published(gateway, first), published(gateway, second)), (401, 200));
        fs::write(gateway.path("secret"), "").unwrap();
        let output = reload(gateway);
        let refused = String::from_utf8(output.stderr).unwrap();
        let sentence = "secret (from REVERB_APP_SECRET_FILE in .env line 3) is empty: write the";
        assert!(refused.contains(sentence), "{refused}");
        assert_eq!(published(gateway, second), 200, "the old configuration stays in force");
        fs::write(gateway.path("secret"), second).unwrap();
        let shown = String::from_utf8(gateway.twin().output("check").stdout).unwrap();
        assert!(shown.contains("[withheld]") && shown.contains("REVERB_APP_SECRET_FILE in .env"));
        for text in [&shown, &told, &refused, &gateway.log()] {
            assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
        }
    });
}
