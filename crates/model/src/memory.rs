//! How much memory this process may still take.
//!
//! [`free`] is the one place that answers this. It asks the machine, the control groups that the process is in (versions
//! 1 and 2) and the limit on its address space (`ulimit -v`), and returns the least of them. The environment variable
//! [`VARIABLE`] takes the place of all of these: `CAUSALCONE_FREE_MEMORY=4GB`. It is for tests, and for people who know
//! better than the operating system what is free.

use crate::{Error, Result};
use std::path::Path;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The environment variable that says how much memory is free: a size such as `4GB` or `512MiB`.
pub const VARIABLE: &str = "CAUSALCONE_FREE_MEMORY";

/// Bytes of memory that this process may still take; `None` where the system does not say.
///
/// The value of [`VARIABLE`] is returned as it is, every time: what the process has taken since is not subtracted.
///
/// # Errors
/// When [`VARIABLE`] is set to something that is not a memory size.
pub fn free() -> Result<Option<u64>> {
    if let Some(given) = given()? {
        return Ok(Some(given));
    }
    let refresh = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let machine = Some(System::new_with_specifics(refresh).available_memory()).filter(|bytes| *bytes > 0);
    Ok([machine, of_control_groups(), of_address_space()].into_iter().flatten().min())
}

/// The value of [`VARIABLE`], where it is set.
pub(crate) fn given() -> Result<Option<u64>> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = text.to_string_lossy();
    let size = parse_size(&text).map_err(|problem| Error::Memory {
        problem: format!("{VARIABLE}={}: {problem}", crate::error::printable(&text, 40)),
        hint: format!("set {VARIABLE} to a size such as 4GB, or unset it"),
    })?;
    Ok(Some(size))
}

const UNITS: [(&str, u64); 8] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a memory size as people write it: a number and a unit, in powers of 1000 (`4GB`) or 1024 (`4GiB`), or bytes.
///
/// ```
/// use causalcone_model::memory::parse_size;
/// assert_eq!(parse_size("1.5 MB"), Ok(1_500_000));
/// assert_eq!(parse_size("2KiB"), Ok(2048));
/// assert!(parse_size("four").is_err());
/// ```
///
/// # Errors
/// A message, when the text is not such a size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((upper.strip_suffix(name)?, *bytes)));
    let (number, bytes) = unit.unwrap_or((upper.strip_suffix('B').unwrap_or(&upper), 1));
    let number: f64 =
        number.trim().parse().map_err(|_| "a size is a number and a unit, such as 500MB or 4GiB")?;
    let size = number * bytes as f64;
    if !(size >= 1.0 && size < u64::MAX as f64) {
        return Err("not a valid memory size (examples: 4GB, 512MB)".into());
    }
    #[expect(clippy::cast_sign_loss, reason = "it was just found to be at least 1")]
    Ok(size as u64)
}

/// A size for people: `4.6 GB`, three digits at most.
///
/// ```
/// assert_eq!(causalcone_model::memory::readable(6_230_000_000), "6.2 GB");
/// assert_eq!(causalcone_model::memory::readable(999), "999 bytes");
/// ```
pub fn readable(bytes: u64) -> String {
    let (unit, size) = match bytes {
        0..1_000 => return format!("{bytes} bytes"),
        1_000..1_000_000 => ("KB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        1_000_000_000.. => ("GB", 1e9),
    };
    let number = bytes as f64 / size;
    if number < 99.95 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

/// What the control groups of this process leave free.
fn of_control_groups() -> Option<u64> {
    // Where Linux distributions and container runtimes mount them. Elsewhere there is no such file.
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    free_in_groups(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least that a group in `/proc/self/cgroup`, or one above it, leaves free.
fn free_in_groups(groups: &str, root: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mount, version) = match controllers {
            "" => (root.to_path_buf(), CgroupVersion::Two),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), CgroupVersion::One),
            _ => continue,
        };
        // A group outside the namespace of this process is shown as `/../..`: only the mount itself is visible then.
        let path = if path.contains("..") { "" } else { path.trim_start_matches('/') };
        // Within a container the mount may be the group itself, so that the last ancestor, the mount, counts as well.
        for folder in Path::new(path).ancestors() {
            let free = free_in_group(&mount.join(folder), version);
            least = [least, free].into_iter().flatten().min();
        }
    }
    least
}

#[derive(Clone, Copy)]
enum CgroupVersion {
    One,
    Two,
}

/// What one control group leaves free: its limit less what is used, but for cached files, which the kernel drops first.
fn free_in_group(folder: &Path, version: CgroupVersion) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limits, usage, cached): (&[&str], _, _) = match version {
        CgroupVersion::One => (
            &["memory.limit_in_bytes"],
            "memory.usage_in_bytes",
            ["total_inactive_file", "total_active_file"],
        ),
        // Above `memory.high` a process is slowed down until it hardly moves.
        CgroupVersion::Two => {
            (&["memory.max", "memory.high"], "memory.current", ["inactive_file", "active_file"])
        }
    };
    let limit = limits.iter().filter_map(|name| number(name)).min()?;
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        if cached.contains(&name) { value.trim().parse::<u64>().ok() } else { None }
    };
    let cached = stat.lines().filter_map(value).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(number(usage)?.saturating_sub(cached)))
}

/// What the limit on the address space leaves free (Linux).
fn of_address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let used: u64 = used.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(used.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory() {
        assert!(free().unwrap().unwrap() > 1 << 20);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4GB", 4_000_000_000),
            ("4gib", 4 << 30),
            ("1.5 MB", 1_500_000),
            ("512", 512),
            ("512B", 512),
            ("2KiB", 2048),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "nanGB", "infGB", "4 GBs", "1e30GB", "four"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_two_or_three_digits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1_000, "1.0 KB"),
            (99_949, "99.9 KB"),
            (99_960, "100 KB"),
            (512_000_000, "512 MB"),
            (32_120_000_000, "32.1 GB"),
            (141_000_000_000, "141 GB"),
        ] {
            assert_eq!(readable(bytes), text);
        }
    }

    /// Files of a control group.
    fn group(root: &Path, folder: &str, files: &[(&str, &str)]) {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn control_groups_of_version_2_bound_what_is_free() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let stat = "anon 100\nfile 900\ninactive_file 300\nactive_file 200\n";
        group(root, "a/b", &[("memory.max", "max\n"), ("memory.current", "700\n"), ("memory.stat", stat)]);
        assert_eq!(free_in_groups("0::/a/b\n", root), None, "no limit");
        group(root, "a", &[("memory.max", "2000\n"), ("memory.current", "900\n"), ("memory.stat", stat)]);
        assert_eq!(
            free_in_groups("0::/a/b\n", root),
            Some(2000 - 400),
            "the group above, its cached files free"
        );
        group(root, "a/b", &[("memory.high", "1000\n")]);
        assert_eq!(free_in_groups("0::/a/b\n", root), Some(1000 - 200), "where it is slowed down");
        group(root, "a/b", &[("memory.max", "100\n")]);
        assert_eq!(free_in_groups("0::/a/b\n", root), Some(0), "more is used than there is");
        assert_eq!(free_in_groups("0::/c\n", root), None, "a group that is not mounted here");
        group(root, "", &[("memory.max", "5000\n"), ("memory.current", "0\n")]);
        assert_eq!(free_in_groups("0::/../x\n", root), Some(5000), "a container sees the mount alone");
    }

    #[test]
    fn control_groups_of_version_1_bound_what_is_free() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let files = [
            ("memory.limit_in_bytes", "4000\n"),
            ("memory.usage_in_bytes", "3000\n"),
            ("memory.stat", "cache 1\ninactive_file 7\ntotal_inactive_file 1500\ntotal_active_file 500\n"),
        ];
        group(root, "memory/job", &files);
        let groups = "9:name=systemd:/\n4:memory:/job\n1:cpu:/other\n0::/\n";
        assert_eq!(free_in_groups(groups, root), Some(3000));
        assert_eq!(free_in_groups("4:cpu,memory:/job\n", root), Some(3000));
        for broken in ["", "4", "4:memory", "::", "\u{0}"] {
            assert_eq!(free_in_groups(broken, root), None, "{broken:?}");
        }
    }
}
