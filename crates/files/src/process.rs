//! Which process a file belongs to, and whether that process still runs.
//!
//! A process is known by its machine, the machine's boot, its number and its start time: numbers are given again, and
//! the same folder may be shared by several machines. Processes of another container on the same machine count as those of
//! another machine, since their numbers mean something else there.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// A process that writes files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Hash of the machine's id and of what its process numbers are counted in.
    machine: String,
    /// Start of the id that Linux gives each boot.
    boot: String,
    id: u32,
    /// When it started, in ticks since the boot; 0 where the system does not tell.
    start: u64,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Running,
    /// It has ended.
    Ended,
    /// It is one of another machine or container.
    Elsewhere,
}

impl Process {
    /// This process.
    pub(crate) fn this() -> &'static Self {
        static THIS: LazyLock<Process> = LazyLock::new(|| {
            let id = std::process::id();
            Process {
                machine: system::machine(),
                boot: system::boot(),
                id,
                start: system::start(id).unwrap_or(0),
            }
        });
        &THIS
    }

    /// The number of the process on its machine.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it still runs, as far as this process can know.
    pub(crate) fn state(&self) -> State {
        let this = Self::this();
        if self == this {
            return State::Running;
        }
        if self.machine != this.machine {
            return State::Elsewhere;
        }
        if self.boot != this.boot {
            return State::Ended;
        }
        match system::is_running(self.id) {
            None => State::Elsewhere,
            Some(false) => State::Ended,
            // The number may have been given to another process since.
            Some(true) if system::start(self.id).is_some_and(|start| start != self.start) => State::Ended,
            Some(true) => State::Running,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.machine, self.boot, self.id, self.start)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let [machine, boot, id, start] = parts[..] else { return Err(()) };
        let is_hash = |text: &str| text.len() == HASH && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hash(machine) || !is_hash(boot) {
            return Err(());
        }
        Ok(Self {
            machine: machine.into(),
            boot: boot.into(),
            id: id.parse().map_err(|_| ())?,
            start: start.parse().map_err(|_| ())?,
        })
    }
}

/// How many hexadecimal digits of a hash are written.
const HASH: usize = 8;

/// The start of the SHA-256 of a text, in hexadecimal.
fn hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text);
    digest.iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::read_to_string;

    /// The machine, and the set of process numbers that this process sees: containers have their own.
    pub(super) fn machine() -> String {
        // Machines that were cloned share the first two, and all machines share the number of the first set of processes.
        let ids = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/hostname"];
        let ids: Vec<String> = ids.iter().map(|path| read_to_string(path).unwrap_or_default()).collect();
        let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        super::hash(&format!("causalcone {} {}", ids.concat(), numbers.display()))
    }

    pub(super) fn boot() -> String {
        super::hash(read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim())
    }

    /// The 22nd number of `/proc/ID/stat`; `None` where it cannot be read. A process that has ended and waits for its
    /// parent to ask has no start.
    pub(super) fn start(id: u32) -> Option<u64> {
        let text = read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The second field is the program's name, which may hold spaces and parentheses.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return Some(u64::MAX);
        }
        fields.nth(18)?.parse().ok()
    }

    pub(super) use super::unix::is_running;
}

#[cfg(all(unix, not(target_os = "linux")))]
mod system {
    pub(super) fn machine() -> String {
        super::hash(&rustix::system::uname().nodename().to_string_lossy())
    }

    /// Not told: what another boot left is found by its process numbers alone.
    pub(super) fn boot() -> String {
        super::hash("")
    }

    pub(super) fn start(_: u32) -> Option<u64> {
        None
    }

    pub(super) use super::unix::is_running;
}

#[cfg(not(unix))]
mod system {
    pub(super) fn machine() -> String {
        super::hash(&std::env::var("COMPUTERNAME").unwrap_or_default())
    }

    pub(super) fn boot() -> String {
        super::hash("")
    }

    pub(super) fn start(_: u32) -> Option<u64> {
        None
    }

    pub(super) fn is_running(_: u32) -> Option<bool> {
        None
    }
}

#[cfg(unix)]
mod unix {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};

    /// Whether there is a process of that number; `None` where that is no number of a process.
    pub(super) fn is_running(id: u32) -> Option<bool> {
        let id = Pid::from_raw(i32::try_from(id).ok()?)?;
        // Another user's process may not be signalled, but is there.
        Some(!matches!(test_kill_process(id), Err(Errno::SRCH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_and_read() {
        let this = Process::this();
        assert_eq!(this.to_string().parse::<Process>().as_ref(), Ok(this));
        for bad in ["", "a-b-1-2", "00000000-00000000-1", "00000000-00000000-x-2", "00000000-00000000-1-2-3"]
        {
            assert_eq!(bad.parse::<Process>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn this_process_runs_and_one_of_another_machine_is_elsewhere() {
        let this = Process::this();
        assert_eq!(this.state(), State::Running);
        let elsewhere = Process { machine: "01234567".into(), ..this.clone() };
        assert_eq!(elsewhere.state(), State::Elsewhere);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ended_processes_and_other_boots_are_known() {
        let this = Process::this();
        let before = Process { boot: "01234567".into(), ..this.clone() };
        assert_eq!(before.state(), State::Ended);
        // The same number, given to this process after the other had ended.
        let earlier = Process { start: this.start - 1, ..this.clone() };
        assert_eq!(earlier.state(), State::Ended);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let start = system::start(child.id()).unwrap();
        let other = Process { id: child.id(), start, ..this.clone() };
        assert_eq!(other.state(), State::Running);
        child.kill().unwrap();
        // Until its parent has asked for its exit code, its number is not free.
        while system::start(child.id()) == Some(start) {
            std::thread::yield_now();
        }
        assert_eq!(other.state(), State::Ended);
        child.wait().unwrap();
        assert_eq!(other.state(), State::Ended);
    }
}
