//! The figures of the README: what Purser costs beside the bare thing, both measured in this run, one
//! after the other in turns, so that a noisy machine is noisy for both.
//!
//! Run it with `tests/measure`. It prints a Markdown table; ratios are of medians.

mod bare;
mod load;
mod rest;
mod road;
mod sample;

use std::process::ExitCode;

use sample::Row;

fn main() -> ExitCode {
    // The load test starts this program again as its baseline.
    if std::env::args().nth(1).as_deref() == Some(bare::ARGUMENT) {
        return bare::main();
    }
    let runtime = tokio::runtime::Runtime::new();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let rows = runtime.block_on(async {
        let mut rows = Vec::new();
        rows.extend(road::tests().await);
        rows.push(road::pulls().await);
        rows.push(load::registry_all().await);
        rows.extend(rest::idle().await);
        rows.push(rest::first_answer().await);
        rows
    });
    let mut table =
        String::from("| figure | Purser | baseline, same run | ratio | goal |\n|---|---|---|---|---|\n");
    table.extend(rows.iter().map(Row::line));
    sample::print(&table);
    ExitCode::SUCCESS
}
