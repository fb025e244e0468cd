//! The agreement of the files of the script of a call with each other, and with the commands.

use std::collections::{BTreeMap, BTreeSet};

use super::CALL;
use crate::channels::{ChannelPath, UserPath};
use crate::cluster::wire::{Command, JoinFlags, MemberText, NodeId, Retained};
use crate::frame::Frame;

/// The files of the script of a call, in their order.
const FILES: [(&str, &str); 25] = [
    ("clock.lua", include_str!("clock.lua")),
    ("prelude.lua", include_str!("prelude.lua")),
    ("publish.lua", include_str!("publish.lua")),
    ("shared.lua", include_str!("shared.lua")),
    ("join.lua", include_str!("join.lua")),
    ("leave.lua", include_str!("leave.lua")),
    ("count.lua", include_str!("count.lua")),
    ("enter.lua", include_str!("enter.lua")),
    ("part.lua", include_str!("part.lua")),
    ("keep.lua", include_str!("keep.lua")),
    ("users.lua", include_str!("users.lua")),
    ("online.lua", include_str!("online.lua")),
    ("offline.lua", include_str!("offline.lua")),
    ("watch.lua", include_str!("watch.lua")),
    ("unwatch.lua", include_str!("unwatch.lua")),
    ("ask.lua", include_str!("ask.lua")),
    ("state.lua", include_str!("state.lua")),
    ("answer.lua", include_str!("answer.lua")),
    ("permits.lua", include_str!("permits.lua")),
    ("return.lua", include_str!("return.lua")),
    ("bury.lua", include_str!("bury.lua")),
    ("quit.lua", include_str!("quit.lua")),
    ("tend.lua", include_str!("tend.lua")),
    ("ready.lua", include_str!("ready.lua")),
    ("run.lua", include_str!("run.lua")),
];

/// The names that a file takes from others, each with the file.
type Taken = BTreeSet<(String, String)>;

#[test]
fn each_file_names_what_it_takes_from_others() {
    let mut at = 0;
    for (number, (name, text)) in FILES.iter().enumerate() {
        let place = CALL[at..].find(text);
        at += place.unwrap_or_else(|| panic!("{name} is missing or in another order"));
        let used = words(text);
        let others = FILES[..number].iter().filter(|(other, _)| *other != "prelude.lua");
        let taken: Taken = others
            .flat_map(|(other, text)| names(text).into_iter().map(move |name| (name, *other)))
            .filter(|(name, _)| used.contains(*name))
            .map(|(name, other)| (name.into(), other.into()))
            .collect();
        assert_eq!(declared(text), taken, "the top of {name}");
    }
}

#[test]
fn each_command_has_the_arguments_that_its_verb_takes() {
    let mut table = arguments("\nlocal arguments = {");
    table.extend(arguments("\nfor verb, count in pairs({"));
    for command in commands() {
        let mut args = Vec::new();
        command.push_args(&mut args);
        let verb = std::str::from_utf8(&args[0]).unwrap();
        // An event that is retained has two verbs.
        let count = if verb == "retain" { 3 } else { args.len() - 1 };
        assert_eq!(table.remove(verb), Some(count), "{verb}");
        // Publishes have a loop instead of a function.
        let parameters = if verb == "publish" { Some(2) } else { parameters(verb) };
        assert_eq!(parameters, Some(count), "{verb}");
    }
    assert_eq!(table, BTreeMap::new(), "verbs without a command");
}

/// The names that the comment at the top of a file gives: `From FILE: name, name.`
fn declared(text: &str) -> Taken {
    let top = text.lines().map_while(|line| line.strip_prefix("--"));
    let top = top.map(str::trim).collect::<Vec<_>>().join(" ");
    let sentences = top.split("From ").skip(1);
    let lists = sentences.map(|sentence| sentence.split_once(": ").unwrap());
    lists
        .flat_map(|(file, names)| {
            let names = names.split('.').next().unwrap().split(", ");
            names.map(|name| (name.into(), file.into()))
        })
        .collect()
}

/// The names that a file defines for those behind it.
fn names(text: &str) -> Vec<&str> {
    let definitions = text.lines().filter_map(|line| line.strip_prefix("local "));
    let names = definitions.flat_map(|definition| {
        let definition = definition.strip_prefix("function ").unwrap_or(definition);
        definition.split(['(', '=']).next().unwrap().trim().split(", ")
    });
    names.collect()
}

/// The words of a file's code that are not names of fields.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let code = text.lines().map(|line| line.split("--").next().unwrap());
    // Every other part stands in quotes.
    let code = code.flat_map(|line| line.split('\'').step_by(2));
    code.flat_map(|code| {
        let fields = code.match_indices('.').map(|(at, _)| at + 1).collect::<BTreeSet<_>>();
        let starts = (0..code.len())
            .filter(move |&at| code[at..].starts_with(is_part) && !code[..at].ends_with(is_part));
        starts
            .filter(move |at| !fields.contains(at))
            .map(move |at| code[at..].split(|c| !is_part(c)).next().unwrap().to_owned())
    })
    .collect()
}

/// The table that begins so: verb -> number of its arguments.
fn arguments(begin: &str) -> BTreeMap<&'static str, usize> {
    let (_, table) = CALL.split_once(begin).unwrap();
    let (table, _) = table.split_once('}').unwrap();
    let entries = table.trim().split(',').filter_map(|entry| entry.split_once(" = "));
    let verb = |text: &'static str| text.trim().trim_matches(['[', ']', '"']);
    entries.map(|(name, count)| (verb(name), count.trim().parse().unwrap())).collect()
}

/// The number of parameters of the function that executes a verb.
fn parameters(verb: &str) -> Option<usize> {
    let heads = [
        format!("\nverbs.{verb} = function("),
        format!("\nverbs['{verb}'] = function("),
        format!("\nlocal function {verb}("),
    ];
    let (_, rest) = heads.iter().find_map(|head| CALL.split_once(head.as_str()))?;
    let (parameters, _) = rest.split_once(')')?;
    Some(parameters.split(", ").filter(|parameter| !parameter.is_empty()).count())
}

/// One command of each kind. The compiler asks for a new one in [`Command::push_args`], and the
/// test for its verb here.
fn commands() -> Vec<Command> {
    let (channel, user) = (ChannelPath::new("app", "news"), UserPath::new("app", "7"));
    let (app, flags, payload) = (|| "app".into(), JoinFlags::default(), bytes::Bytes::new);
    let frame = Frame::text(1, |out| out.push(b'a'));
    let retained = Retained { data: "a".into(), ttl_ms: 1 };
    let publish = |retained| {
        let (channel, frame) = (channel.clone(), frame.clone());
        Command::Publish { channel, frame, except: None, retained }
    };
    vec![
        Command::Join(channel.clone(), 1, flags),
        Command::Leave(channel.clone(), flags),
        Command::Count(channel.clone(), 1),
        Command::Enter {
            channel: channel.clone(),
            user_id: "7".into(),
            member: MemberText::from_text(payload()),
            max: 0,
            flags,
        },
        Command::Part(channel.clone(), "7".into(), flags),
        publish(None),
        publish(Some(retained.clone())),
        Command::Keep(channel.clone(), retained, frame.clone()),
        Command::Online(user.clone()),
        Command::Offline(user.clone()),
        Command::Watch(user.clone()),
        Command::Unwatch(user),
        Command::State { channel: channel.clone(), request: 1, payload: payload() },
        Command::Users(channel, 1),
        Command::Ask(1, payload()),
        Command::Answer(NodeId(1), 1, payload()),
        Command::Tend { read_id: "".into(), read_bytes: 0, departures: true, apps: app() },
        Command::Ready,
        Command::Bury(NodeId(1)),
        Command::Quit,
        Command::Permits { app: app(), wanted: 1, total: 1 },
        Command::Return { app: app(), count: 1 },
    ]
}
