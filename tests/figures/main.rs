//! The figures of the README: what Purser costs beside the bare thing, both measured in this run, one
//! after the other in turns, so that a noisy machine is noisy for both.
//!
//! Run it with `tests/measure`, or with `tests/measure load probes` for those alone. It prints a Markdown table; ratios are of medians.

mod bare;
mod cancel;
mod catalog;
mod fleet;
mod limits;
mod load;
mod probes;
mod rest;
mod road;
mod sample;

use std::process::ExitCode;

use sample::Row;

fn main() -> ExitCode {
    // Some figures start this program again, as a baseline or for the memory of a process.
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next().as_deref()) {
        (Some(bare::ARGUMENT), _) => return bare::main(),
        (Some(how @ (catalog::PAGED | catalog::WHOLE)), Some(address)) => return catalog::main(how, address),
        (Some(limits::burden::ARGUMENT), Some(names)) => return limits::burden::main(names),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    // Words are names of the modules here; none means all.
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let rows = runtime.block_on(async {
        let mut rows = Vec::new();
        if wanted("road") {
            rows.extend(road::tests().await);
            rows.push(road::pulls().await);
        }
        if wanted("cancel") {
            rows.push(cancel::reaches_the_engine().await);
        }
        if wanted("load") {
            rows.push(load::registry_all().await);
        }
        if wanted("rest") {
            rows.extend(rest::idle().await);
            rows.push(rest::first_answer().await);
        }
        if wanted("catalog") {
            rows.push(catalog::paged().await);
        }
        if wanted("probes") {
            rows.extend(probes::dead_address().await);
        }
        if wanted("limits") {
            rows.extend(limits::rows().await);
        }
        if wanted("fleet") {
            rows.extend(fleet::growth().await);
        }
        rows
    });
    let mut table =
        String::from("| figure | Purser | baseline, same run | ratio | goal |\n|---|---|---|---|---|\n");
    table.extend(rows.iter().map(Row::line));
    sample::print(&table);
    ExitCode::SUCCESS
}
