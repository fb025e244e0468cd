//! The script, in a directory instead of a host, so that it changes nothing on the machine that
//! runs the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Directory, root, tuning};

#[test]
fn every_setting_of_the_kernel_exists_and_says_what_it_buys_and_costs() {
    let text = tuning("sysctl.conf");
    let mut comment = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            comment.push_str(line);
        } else if line.is_empty() {
            comment.clear();
        } else {
            let (key, _) = line.split_once(" = ").unwrap();
            for told in ["Buys: ", "Costs: ", "Per 100,000: "] {
                assert!(comment.contains(told), "{key} does not say {told}");
            }
            let optional = key.starts_with('-');
            assert!(optional || kernel_file(Path::new("/"), key).exists(), "{key}");
        }
    }
}

#[test]
fn no_limit_of_open_files_is_beyond_what_the_kernel_grants() {
    let ceiling: u64 = number(&fs::read_to_string("/proc/sys/fs/nr_open").unwrap());
    let limits = tuning("limits.conf");
    let lines = limits.lines().filter(|line| !line.starts_with('#'));
    for line in lines.clone() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_who, "soft" | "hard", "nofile", limit] = fields[..] else { panic!("{line}") };
        assert!(number(limit) <= ceiling, "{line}");
    }
    assert_eq!(lines.count(), 4);
    let unit = tuning("systemd/ringwave.service");
    assert!(number(crate::setting(&unit, "LimitNOFILE=")) <= ceiling);
}

#[test]
fn a_dry_run_changes_nothing_applying_changes_all_and_undoing_all_again() {
    let host = host();
    let before = tree(&host);
    let shown = apply_tuning(&host, EVERYTHING);
    assert!(shown.contains("new: /etc/nginx/conf.d/ringwave-upstream.conf"), "{shown}");
    assert!(shown.contains("net.core.somaxconn: 4096 -> 65535"), "{shown}");
    assert!(shown.contains("new: /etc/systemd/system/ringwave.service"), "{shown}");
    assert!(shown.contains("-worker_processes 1;\n"), "what is replaced is shown: {shown}");
    assert_eq!(tree(&host), before);

    apply_tuning(&host, &[&["--apply"], EVERYTHING].concat());
    let after = tree(&host);
    assert_eq!(after["etc/sysctl.d/60-ringwave.conf"], tuning("sysctl.conf"));
    assert_eq!(after["etc/nginx/nginx.conf"], tuning("nginx/nginx.conf"));
    assert_eq!(
        after["etc/nginx/conf.d/ringwave-upstream.conf"],
        tuning("nginx/upstream-unix.conf")
    );
    assert!(after["etc/nginx/conf.d/ringwave.conf"].contains("server_name ws.shop.test;"));
    assert!(!after["etc/nginx/conf.d/ringwave.conf"].contains("example.com"));
    assert_eq!(after["proc/sys/net/core/somaxconn"], "65535\n");
    assert_eq!(after["proc/sys/net/ipv4/tcp_wmem"], "4096 16384 262144\n");

    // A second run does not take our own files for the ones that were there before.
    let again = apply_tuning(&host, &[&["--apply"], EVERYTHING].concat());
    assert!(!again.contains("set: ") && !again.contains("written: "), "{again}");
    apply_tuning(&host, &["--undo"]);
    assert_eq!(tree(&host), before);
}

#[test]
fn undoing_leaves_alone_what_others_have_changed_since() {
    let host = host();
    apply_tuning(&host, &["--apply", "sysctl", "limits"]);
    host.write("etc/security/limits.d/ringwave.conf", "edited\n");
    host.write("proc/sys/net/core/somaxconn", "2048\n");
    let output = script(&host, &["--undo"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("changed since").count(), 2, "{told}");
    let after = tree(&host);
    assert_eq!(after["etc/security/limits.d/ringwave.conf"], "edited\n");
    assert_eq!(after["proc/sys/net/core/somaxconn"], "2048\n");
    assert_eq!(after["proc/sys/net/ipv4/tcp_migrate_req"], "1\n", "as it was");
    assert!(!after.contains_key("etc/sysctl.d/60-ringwave.conf"));
}

#[test]
fn a_kernel_without_a_setting_is_told_and_fails() {
    let host = host();
    fs::remove_file(kernel_file(&host.0, "net.ipv4.tcp_migrate_req")).unwrap();
    let output = script(&host, &["--apply", "sysctl"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "apply-tuning: this kernel has no net.ipv4.tcp_migrate_req\n");
}

const EVERYTHING: &[&str] =
    &["sysctl", "limits", "systemd", "nginx-unix", "nginx-main", "--host", "ws.shop.test"];

/// A directory that looks like a host: the kernel's settings, and an nginx.
pub(crate) fn host() -> Directory {
    let host = Directory::new();
    for line in tuning("sysctl.conf").lines().filter(|line| !line.starts_with(['#', '-'])) {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let file = kernel_file(Path::new(""), key);
        host.write(file.to_str().unwrap(), "1\n");
    }
    host.write("proc/sys/net/core/somaxconn", "4096\n");
    host.write("etc/nginx/nginx.conf", "worker_processes 1;\n");
    host
}

#[track_caller]
pub(crate) fn apply_tuning(host: &Directory, arguments: &[&str]) -> String {
    let output = script(host, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn script(host: &Directory, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(root().join("scripts/apply-tuning"));
    command.arg("--root").arg(&host.0).args(arguments).output().unwrap()
}

/// All files below a directory, by their paths from there.
pub(crate) fn tree(directory: &Directory) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.0.clone()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(&directory.0).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

fn kernel_file(root: &Path, key: &str) -> PathBuf {
    root.join("proc/sys").join(key.replace('.', "/"))
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}
