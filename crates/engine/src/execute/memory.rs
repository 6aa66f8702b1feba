//! How much memory there is to work in.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Half of what the machine, and the control group this process is in, leave free, in bytes; `None`
/// where the system does not say.
pub fn half_of_free_memory() -> Option<u64> {
    let refresh = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh);
    let machine = system.available_memory();
    let group = system.cgroup_limits().map(|limits| limits.free_memory);
    let free = group.map_or(machine, |group| group.min(machine));
    (free > 0).then_some(free / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory() {
        let half = half_of_free_memory().unwrap();
        assert!(half > 1 << 20, "{half}");
    }
}
