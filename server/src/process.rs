//! This process as the system sees it: memory, files, time. By the names that Prometheus gives them everywhere.

use std::fs;

use crate::metrics::Sample;

/// What the system tells times in, a second. The same on every Linux.
const TICKS: f64 = 100.0;

/// What can be told; nothing where there is no `/proc`. Blocks: with ten thousand sockets, counting them takes
/// milliseconds.
pub fn samples() -> Vec<Sample> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    // Behind the name, which may hold anything but ends with the last bracket.
    let ticks = |at: usize| {
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(at)?.parse::<f64>().ok()
    };
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = soft.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let booted = booted.lines().find_map(|line| line.strip_prefix("btime "));
    let booted = booted.and_then(|seconds| seconds.trim().parse::<f64>().ok());
    let cpu = ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS);
    let started = booted.zip(ticks(19)).map(|(booted, since)| booted + since / TICKS);
    // One of them is the look itself.
    let open = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1) as f64).ok();
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", field("VmRSS:").map(|kib| kib * 1024.0)),
        ("process_virtual_memory_bytes", "Virtual memory.", field("VmSize:").map(|kib| kib * 1024.0)),
        ("process_threads", "Threads.", field("Threads:")),
        ("process_open_fds", "Open files and sockets.", open),
        ("process_max_fds", "The most that may be open.", soft),
        ("process_start_time_seconds", "When the process started, since 1970.", started),
    ];
    let gauges = gauges.into_iter().filter_map(|(name, help, value)| Some(Sample::gauge(name, help, value?)));
    let cpu = cpu.map(|cpu| Sample::counter("process_cpu_seconds_total", "Processor time used.", cpu));
    gauges.chain(cpu).collect()
}
