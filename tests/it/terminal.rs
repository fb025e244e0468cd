use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{APP_ID, Gateway, Setup};
use crate::http::Call;
use crate::raw;

/// Sequences that set the title of a terminal, clear it, colour it by the one character that stands
/// for `ESC [`, and turn the order of characters round.
const STEERING: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}";

/// A name that a channel may have, which turns the order of characters round.
const REORDERED: &str = "room\u{202e}";

/// The sequences that the log itself writes: those of levels and of times.
const COLOURS: [&str; 6] =
    ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[34m"];

/// Starts a gateway whose stdout is a terminal. Everything that the terminal gets is its log.
fn in_terminal(setup: Setup, variables: &[(&str, &str)]) -> Gateway {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let serving = setup.command("start");
    let mut command = Command::new("sh");
    command.args(["-c", "terminal=$0; exec \"$@\" > \"$terminal\"", name.to_str().unwrap()]);
    command.arg(serving.get_program()).args(serving.get_args()).current_dir(setup.path(""));
    command.env_clear().envs(variables.iter().copied());
    let log = setup.path("log");
    std::thread::spawn(move || {
        let mut terminal = File::from(terminal);
        let mut bytes = [0; 4096];
        // Reads fail once the gateway has closed its end, and before it has opened it.
        loop {
            match terminal.read(&mut bytes) {
                Ok(count) => {
                    let Ok(mut log) = File::options().append(true).open(&log) else { return };
                    log.write_all(&bytes[..count]).unwrap();
                }
                Err(_) if log.exists() => std::thread::sleep(std::time::Duration::from_millis(5)),
                Err(_) => return,
            }
        }
    });
    setup.start_as(&mut command)
}

/// Sends such sequences wherever a stranger, a client and an app can put text, and waits for the
/// lines about it.
fn steer(gateway: &Gateway) {
    let encoded: String = STEERING.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let c1 = "\u{9b}31m\u{202e}";
    // In bytes of a head, which has to be refused as a whole.
    for head in [
        format!("GET /{STEERING} HTTP/1.1\r\nHost: it\r\n"),
        format!("GET /up HTTP/1.1\r\nHost: it\r\nUser-Agent: {STEERING}\r\n"),
        format!("{STEERING} / HTTP/1.1\r\n"),
    ] {
        let mut stream = gateway.tcp();
        let _refused = stream.write_all(format!("{head}\r\n").as_bytes());
        let _end = stream.read_to_end(&mut Vec::new());
    }
    // In the parts of a head that may have such bytes.
    for (target, header) in [
        (format!("/{encoded}"), format!("User-Agent: {c1}")),
        (format!("/apps/{encoded}/events"), format!("X-Forwarded-For: {c1}")),
        (format!("/apps/{APP_ID}/channels?auth_key={encoded}"), format!("X-Request-Id: {c1}")),
        (format!("/app/{encoded}?protocol={encoded}"), format!("Origin: https://{c1}")),
        (format!("{}&client={encoded}", target()), format!("Origin: https://{c1}")),
    ] {
        let mut stream = gateway.tcp();
        let handshake = raw::handshake().replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
        let (_, headers) = handshake.split_once("\r\n").unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\n{headers}").as_bytes()).unwrap();
        let mut first = [0; 16];
        assert!(stream.read(&mut first).unwrap() > 0, "{target}");
    }
    let origin = ("Origin", "https://a.example");
    let mut client = Client::open(gateway, &target(), &[origin]);
    client.established();
    client.subscribe(REORDERED);
    client.ask(STEERING);
    client.expect("pusher:error");
    client.send(&json!({ "event": STEERING, "channel": STEERING, "data": STEERING }));
    client.whisper("private-a", &format!("client-{STEERING}"), &json!(STEERING));
    client.send_text(STEERING);
    client.ask_sign_in(&json!({ "id": STEERING }).to_string());
    let event = json!({ "name": REORDERED, "channel": REORDERED, "data": STEERING });
    Call::post("events", &event).ok(gateway);
    let invalid = json!({ "name": STEERING, "channel": STEERING, "socket_id": STEERING });
    assert_eq!(Call::post("events", &invalid).send(gateway).status, 422);
    for texts in [
        ["origin not allowed", "4009"],
        ["unknown path", "%1b%5d"],
        ["unknown key", "u001b]0;"],
        ["broadcasting to ", "u001b]0;owned"],
        ["received", "u001b]0;owned"],
        ["subscription to ", "u001b]0;owned"],
        ["signed in", "u001b]0;owned"],
        ["subscribed", "room\\u202e"],
    ] {
        gateway.logged(&texts);
    }
}

/// Asserts that a log has no character that steers a terminal, but the ends of its lines.
#[track_caller]
fn steers_nothing(log: &str) {
    let steering =
        |char: char| (char.is_control() && char != '\n') || matches!(char, '\u{202a}'..='\u{202e}');
    assert!(!log.contains(steering), "{:?}", log.lines().find(|line| line.contains(steering)));
}

fn setup() -> Setup {
    Setup::new(2).flag("--debug").toml("[app]\nallowed_origins = [\"a.example\"]\n")
}

#[test]
fn no_text_of_a_client_steers_the_terminal_whose_only_sequences_are_colours() {
    let gateway = in_terminal(setup(), &[]);
    steer(&gateway);
    let mut log = gateway.log().replace("\r\n", "\n");
    assert!(COLOURS.iter().filter(|colour| log.contains(**colour)).count() >= 4, "{log:?}");
    for colour in COLOURS {
        log = log.replace(colour, "");
    }
    steers_nothing(&log);
}

#[test]
fn a_terminal_without_colours_gets_no_sequence_at_all() {
    let gateway = in_terminal(setup(), &[("NO_COLOR", "1")]);
    steer(&gateway);
    steers_nothing(&gateway.log().replace("\r\n", "\n"));
}

#[test]
fn no_text_of_a_client_reaches_a_file_raw_in_either_form() {
    for form in ["text", "json"] {
        let gateway = setup().flag(&format!("--log-format={form}")).start();
        steer(&gateway);
        steers_nothing(&gateway.log());
    }
}
