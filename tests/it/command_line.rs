//! Completions and manual pages, which the command line derives from itself.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use crate::gateway::Setup;

/// The commands of the binary.
const COMMANDS: [&str; 11] = [
    "start",
    "check",
    "reload",
    "status",
    "log",
    "import",
    "import-reverb",
    "doctor",
    "storm",
    "completions",
    "man",
];

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringwave")).args(arguments).output().unwrap()
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` lists.
fn listed() -> BTreeSet<String> {
    let help = printed(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let lines = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let names = lines.filter_map(|line| line.split(' ').next());
    names.filter(|name| !["", "help"].contains(name)).map(str::to_owned).collect()
}

#[test]
fn the_help_lists_every_command() {
    assert_eq!(listed(), COMMANDS.map(str::to_owned).into());
}

#[test]
fn every_shell_is_given_completions_that_name_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{command} in {shell}");
        }
        assert!(script.contains("log-format"), "the flags of settings in {shell}");
    }
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(64));
}

/// The words that bash offers behind these.
fn completed(words: &[&str]) -> Vec<String> {
    let script = printed(&["completions", "bash"]);
    let (line, last) = (words.join(" "), words[words.len() - 1]);
    let ask = format!(
        "COMP_WORDS=({line} ''); COMP_CWORD={}; _ringwave ringwave '' {last}; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len(),
    );
    let output = Command::new("bash").arg("-c").arg(format!("{script}\n{ask}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_levels() {
    let offers = |words: &[&str], word: &str| completed(words).iter().any(|it| it == word);
    for command in COMMANDS {
        assert!(offers(&["ringwave"], command), "{command}");
    }
    assert!(offers(&["ringwave", "start"], "--log"));
    assert!(offers(&["ringwave", "log"], "debug"));
}

#[test]
fn each_command_has_a_manual_page_and_a_directory_gets_them_all() {
    let setup = Setup::new(1);
    let directory = setup.path("man");
    printed(&["man", directory.to_str().unwrap()]);
    for command in COMMANDS {
        let page = directory.join(format!("ringwave-{command}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|_| panic!("{}", page.display()));
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    let start = fs::read_to_string(directory.join("ringwave-start.1")).unwrap();
    assert!(start.contains("RINGWAVE_LOG") && start.contains("log\\-format"), "{start}");
    let page = printed(&["man"]);
    assert_eq!(page, fs::read_to_string(directory.join("ringwave.1")).unwrap());
    assert!(!page.contains("kernel"), "a package is the same whichever host has built it");
    let occupied = directory.join("ringwave.1");
    let refused = run(&["man", occupied.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(73));
    let sentence = String::from_utf8(refused.stderr).unwrap();
    assert!(sentence.starts_with("ringwave: cannot write the manual pages into"), "{sentence}");
    fs::remove_dir_all(setup.path("")).unwrap();
}
