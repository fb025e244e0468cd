//! `ringwave status` and `--version`: the answers of a running server and of the binary about
//! themselves.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, SHARD_COUNTS, Setup, eventually, served, served_with};
use crate::http::until_connected;
use crate::left_out::left_out;

const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");

fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(RINGWAVE);
    command.arg("status").args(arguments).current_dir(gateway.path("")).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs `ringwave status --json` in the gateway's directory. Returns the status and the exit code.
#[track_caller]
pub fn status(gateway: &Gateway) -> (Value, i32) {
    let output = run(gateway, &["--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let status = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!("{text:?}, {}", String::from_utf8_lossy(&output.stderr));
    });
    (status, output.status.code().unwrap())
}

#[test]
fn the_status_tells_connections_and_channels_of_each_app_and_shard() {
    let shop = "[[apps]]\napp_id = \"shop\"\nkey = \"shop-key\"\nsecret = \"s\"\n";
    served_with(
        |setup| setup.toml(shop),
        |gateway| {
            let mut clients: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
            clients.iter_mut().for_each(|client| client.subscribe("room"));
            clients[0].subscribe("other");
            let mut shopper = Client::open(gateway, "/app/shop-key?protocol=7", &[]);
            shopper.established();
            shopper.subscribe("room");
            let (told, code) = status(gateway);
            assert_eq!(code, 0);
            assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!((&told["pid"], &told["state"]), (&json!(gateway.id()), &json!("serving")));
            assert_eq!((&told["connections"], &told["channels"]), (&json!(6), &json!(3)));
            let app = |id, connections, channels| {
                json!({ "id": id, "enabled": true, "connections": connections,
                    "channels": channels })
            };
            assert_eq!(told["apps"], json!([app(APP_ID, 5, 2), app("shop", 1, 1)]));
            let shards = told["shards"].as_array().unwrap();
            assert_eq!(shards.len(), gateway.shards());
            let sum = |what: &str| -> u64 {
                shards.iter().map(|shard| shard[what].as_u64().unwrap()).sum()
            };
            assert_eq!((sum("connections"), sum("channels")), (6, 3));
            drop((clients, shopper));
            until_connected(gateway, 0);
            eventually("nothing is left", || (status(gateway).0["channels"] == 0).then_some(()));
        },
    );
}

#[test]
fn people_get_a_screen() {
    served(|gateway| {
        let _client = Client::connect(gateway);
        let output = run(gateway, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("ringwave 0.") && first.ends_with(", serving"), "{text}");
        let app = text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(app, [APP_ID, "1", "0"], "{text}");
    });
}

#[test]
fn without_a_server_it_ends_with_69() {
    let mut gateway = Setup::new(1).start();
    gateway.signal(Signal::TERM);
    gateway.ended();
    let output = run(&gateway, &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("no server was started from this directory"), "{told}");
}

#[test]
fn a_shard_that_hangs_is_named_and_a_signal_still_ends_the_process() {
    for shards in SHARD_COUNTS {
        let mut gateway = Setup::new(shards).start();
        let _client = Client::connect(&gateway);
        let mut tracer = hang(&gateway, "shard-0");
        let (told, code) = status(&gateway);
        assert_eq!((code, &told["shards"][0]["answered"]), (1, &json!(false)), "{told}");
        assert_eq!(told["shards"].as_array().unwrap().len(), shards);
        let stderr = String::from_utf8(run(&gateway, &[]).stderr).unwrap();
        assert!(stderr.contains("shard 0 does not answer"), "{stderr}");
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating"]);
        gateway.signal(Signal::TERM);
        kill_process(Pid::from_child(&tracer), Signal::KILL).unwrap();
        tracer.wait().unwrap();
        assert_eq!(gateway.ended().code(), Some(143));
    }
}

/// Holds up the thread of a shard in its next sleep, until the tracer is gone.
fn hang(gateway: &Gateway, thread: &str) -> Child {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == thread;
    let task = tasks.map(|task| task.unwrap().path()).find(named).unwrap();
    let log = gateway.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-etrace=io_uring_enter"]).arg("-o").arg(&log);
    strace.args(["-e", "inject=io_uring_enter:delay_enter=600000000", "-p"]);
    let tracer = strace.arg(task.file_name().unwrap()).spawn().unwrap();
    // The system call that is under way ends, and the next one is held up.
    eventually("the thread hangs", || {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let entered = fs::read_to_string(&log).unwrap_or_default().contains("io_uring_enter");
        (entered && status.contains("State:\tt (tracing stop)")).then_some(())
    });
    tracer
}

#[test]
fn a_command_does_not_believe_another_user_who_has_taken_the_name() {
    if !rustix::process::geteuid().is_root() {
        return left_out("only root can become somebody else");
    }
    // The first server of this directory shows the name that the second one will take.
    let setup = Setup::new(1);
    let gateway = setup.clone().start();
    let names = fs::read_to_string("/proc/net/unix").unwrap();
    let inodes: Vec<_> = fs::read_dir(format!("/proc/{}/fd", gateway.id()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(link.to_owned())
        })
        .collect();
    let name = names.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let own = inodes.iter().any(|inode| Some(&inode.as_str()) == fields.get(6));
        fields.get(7).filter(|_| own)?.strip_prefix("@ringwave-")
    });
    let name = format!("ringwave-{}", name.unwrap());
    drop(gateway);
    let script = format!(
        "import os,socket\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\n\
         s.bind('\\0{name}')\ns.listen()\nprint('taken',flush=True)\n\
         held=[]\nwhile True: held.append(s.accept())\n"
    );
    let free = || {
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        UnixListener::bind_addr(&address).ok()
    };
    drop(eventually("the name is free", free));
    fs::create_dir_all(setup.path("")).unwrap();
    let mut mallory = Command::new("python3");
    mallory.args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut mallory = mallory.spawn().unwrap();
    let mut taken = [0; 5];
    std::io::Read::read_exact(mallory.stdout.as_mut().unwrap(), &mut taken).unwrap();
    for command in ["status", "reload"] {
        let mut asking = Command::new(RINGWAVE);
        let output = asking.arg(command).current_dir(setup.path("")).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{told}");
        let stranger = format!("belongs to process {} of user 65534", mallory.id());
        assert!(told.contains(&stranger), "{told}");
    }
    mallory.kill().unwrap();
    mallory.wait().unwrap();
}

#[test]
fn the_version_tells_the_commit_and_the_long_one_the_kernel_and_the_allocator_too() {
    let told = |flag: &str| {
        let output = Command::new(RINGWAVE).arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let number = env!("CARGO_PKG_VERSION");
    // Without a repository the build knows no commit.
    let short = match option_env!("RINGWAVE_COMMIT") {
        Some(commit) => format!("ringwave {number} ({commit})"),
        None => format!("ringwave {number}"),
    };
    assert_eq!(told("-V"), format!("{short}\n"));
    if let Some(commit) = option_env!("RINGWAVE_COMMIT") {
        assert!(commit.len() == 12 && commit.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let long = told("--version");
    let lines: Vec<_> = long.lines().collect();
    let [first, kernel, allocator] = lines[..] else { panic!("{long}") };
    assert_eq!((first, kernel), (&*short, &*format!("kernel     Linux {}", release.trim())));
    let version = allocator.strip_prefix("allocator  mimalloc ").unwrap();
    let parts: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
    assert!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{long}");
}

#[test]
fn shards_that_cannot_be_pinned_are_told_so_at_the_start_and_by_the_status() {
    let pinned = Setup::new(2).start();
    assert!(pinned.log().contains("  shards  2 on cores "), "{}", pinned.log());
    assert!(!pinned.log().contains("pinned"), "{}", pinned.log());
    let setup = Setup::new(2);
    let serving = setup.command("start");
    let mut refused = Command::new("strace");
    let inject = "inject=sched_setaffinity:error=EPERM";
    refused.args(["-f", "-qq", "-o/dev/null", "-etrace=sched_setaffinity", "-e", inject]);
    refused.arg(serving.get_program()).args(serving.get_args()).current_dir(setup.path(""));
    let gateway = setup.start_as(&mut refused);
    assert!(gateway.log().contains("  shards  2 not pinned to cores, "), "{}", gateway.log());
    gateway.logged(&["WARN", "the system does not let shards 0, 1 be pinned to a core"]);
    let (told, _) = status(&gateway);
    let cores: Vec<_> = told["shards"].as_array().unwrap().iter().map(|of| &of["core"]).collect();
    assert_eq!(cores, [&Value::Null, &Value::Null]);
    // A strace that is killed leaves its child behind.
    let pid = told["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    kill_process(pid.unwrap(), Signal::KILL).unwrap();
}
