use std::process::{Command, Output, Stdio};

use crate::client::Client;
use crate::gateway::{Gateway, Setup, served, served_with};
use crate::reload::reloaded;

/// Runs `ringwave log` in the gateway's directory.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    command.arg("log").args(arguments).current_dir(gateway.path("")).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs `ringwave log`, which succeeds. Returns the filter that it prints.
#[track_caller]
fn filter(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = run(gateway, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Whether the log has the line of a client that subscribes to a channel of this name now.
fn tells_subscriptions(gateway: &Gateway, channel: &str) -> bool {
    Client::subscribed(gateway, channel).expect_nothing();
    // A line of a refusal comes behind that of the subscription, whose answer the client has.
    let mut refused = Client::open(gateway, &format!("/app/behind-{channel}"), &[]);
    refused.expect_refusal(4001, "Application does not exist");
    gateway.log().lines().any(|line| line.contains("DEBUG") && line.contains(channel))
}

#[test]
fn the_filter_of_the_start_counts_for_the_parts_that_it_names() {
    for (name, value, told) in [
        ("RINGWAVE_LOG", "info,shard=debug", true),
        ("RINGWAVE_LOG", "info,front=debug", false),
        ("RINGWAVE_LOG", "debug,shard=info", false),
        ("RINGWAVE_DEBUG", "true", true),
    ] {
        let gateway = Setup::new(2).env(name, value).start();
        assert_eq!(tells_subscriptions(&gateway, "room"), told, "{name}={value}");
    }
    let gateway = Setup::new(1).env("RINGWAVE_LOG", "debug").flag("--log=warn,server=info").start();
    assert!(!tells_subscriptions(&gateway, "room"), "the flag is stronger");
    assert_eq!(filter(&gateway, &[]), "warn,server=info");
}

#[test]
fn a_filter_that_cannot_be_understood_is_refused_with_its_part() {
    for (filter, part) in [
        ("info,fornt=debug", r#"server.log cannot be "fornt=debug" (--log): it takes levels"#),
        ("info,front=loud", r#"server.log cannot be "front=loud" (--log): it takes levels"#),
        ("\x1b[2Jinfo", r#"server.log cannot be "\u{1b}[2Jinfo" (--log): it takes levels"#),
    ] {
        let output = Setup::new(1).flag(&format!("--log={filter}")).output("start");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(told.contains(part) && told.contains("`front`"), "{told}");
        assert!(!told.contains('\x1b'), "{told:?}");
    }
}

#[test]
fn the_filter_changes_while_the_server_runs_until_the_next_reload() {
    served(|gateway| {
        assert_eq!(filter(gateway, &[]), "info");
        assert!(!tells_subscriptions(gateway, "first"));
        assert_eq!(filter(gateway, &["debug", "shard"]), "info,shard=debug");
        gateway.logged(&["INFO", "filter of the log changes", "after=\"info,shard=debug\""]);
        assert!(tells_subscriptions(gateway, "second"));
        assert_eq!(filter(gateway, &["warn", "shard"]), "info,shard=warn");
        assert!(!tells_subscriptions(gateway, "third"));
        assert_eq!(filter(gateway, &["debug"]), "debug");
        assert!(tells_subscriptions(gateway, "fourth"));
        reloaded(gateway, "[server]\nlog = \"info,front=warn\"\n");
        assert_eq!(filter(gateway, &[]), "info,front=warn");
        assert!(!tells_subscriptions(gateway, "fifth"));
    });
}

#[test]
fn a_word_that_is_no_level_or_no_target_changes_nothing() {
    served_with(
        |setup| setup.flag("--log=warn"),
        |gateway| {
            for words in [&["loud"][..], &["debug", "fornt"], &["debug", "front", "shard"]] {
                assert_eq!(run(gateway, words).status.code(), Some(64), "{words:?}");
            }
            assert_eq!(filter(gateway, &[]), "warn");
        },
    );
}
