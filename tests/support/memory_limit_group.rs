//! Control groups with a limit of memory, and gateways in them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::gateway::{Gateway, Setup, eventually};
use super::left_out::left_out;

/// A control group with a limit of memory, removed when dropped.
pub struct MemoryGroup {
    directory: PathBuf,
    names: Names,
}

/// The names of the files of a hierarchy.
#[derive(Clone, Copy)]
struct Names {
    root: &'static str,
    limit: &'static str,
    used: &'static str,
}

const V1: Names = Names {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
};

const V2: Names = Names { root: "/sys/fs/cgroup", limit: "memory.max", used: "memory.current" };

impl MemoryGroup {
    /// Makes a group of version 1 or 2, whichever this host has and permits. Returns `None` if it
    /// permits neither, and the test is left out.
    pub fn new(limit: u64) -> Option<Self> {
        match Self::made(limit) {
            Ok(group) => Some(group),
            Err(error) => {
                left_out(&format!("no control group of memory can be made here ({error})"));
                None
            }
        }
    }

    fn made(limit: u64) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwave-it-{}-{number}", std::process::id());
        let mut failed = io::ErrorKind::NotFound.into();
        for names in [V1, V2] {
            let directory = PathBuf::from(names.root).join(&name);
            match fs::create_dir(&directory).map(|()| Self { directory, names }) {
                Ok(group) => match group.limited(limit) {
                    Ok(()) => return Ok(group),
                    Err(error) => failed = error,
                },
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn limited(&self, limit: u64) -> io::Result<()> {
        let file = self.directory.join(self.names.limit);
        // If there is no such file, a write would make one in a directory that is no group at all.
        if !file.exists() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        fs::write(file, limit.to_string())
    }

    /// Starts a gateway in the group. Its drop checks that the kernel has not killed it.
    pub fn start(&self, setup: Setup) -> Gateway {
        let plain = setup.command("start");
        let mut grouped = Command::new("sh");
        grouped.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.directory);
        grouped.arg(plain.get_program()).args(plain.get_args());
        grouped.current_dir(plain.get_current_dir().unwrap());
        setup.start_as(&mut grouped)
    }

    /// Starts a process in the group that holds so many bytes. It fills most of a large limit, and
    /// the test fills the rest.
    pub fn ballast(&self, bytes: u64) -> Ballast {
        let script = format!(
            "echo $$ > \"$0/cgroup.procs\" && {{ head -c {bytes} /dev/zero; exec cat; }} | \
             tail -c {bytes} > /dev/null"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(&self.directory).stdin(Stdio::piped());
        let ballast = Ballast(command.spawn().unwrap());
        eventually("the ballast is there", || (self.used() >= bytes).then_some(()));
        ballast
    }

    /// The bytes that the group has in use.
    pub fn used(&self) -> u64 {
        let used = fs::read_to_string(self.directory.join(self.names.used)).unwrap();
        used.trim().parse().unwrap()
    }
}

/// A process that holds memory until it is dropped.
pub struct Ballast(Child);

impl Drop for Ballast {
    fn drop(&mut self) {
        // The process ends by itself at the end of its input.
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its last process may still be ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
