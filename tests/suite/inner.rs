//! What this program does when it is started by one of its own trials, in a
//! namespace or as a user that a trial cannot be in; or for a soak, which takes
//! longer than any trial.

use std::process::ExitCode;

/// The variable that names what is to be done instead of trials.
pub(crate) const MODE: &str = "URING_SUITE_INNER";

/// What a trial tells the inner run.
pub(crate) const FOREIGN: &str = "URING_SUITE_FOREIGN";

/// Printed at the end, so that no early exit is taken for success.
pub(crate) const DONE: &str = "inner: all checks done";

/// The mode that this process was started in.
pub(crate) fn mode() -> Option<String> {
    std::env::var(MODE).ok()
}

/// Panics, and so fails, if a check does.
pub(crate) fn run(mode: &str) -> ExitCode {
    // What it starts are ordinary programs.
    match mode {
        // It is ended by the trial.
        "epoll-set" => super::epoll::inside(),
        // These, too.
        "epoll-leaderless" => super::epoll_sets::inside_leaderless(),
        "epoll-tables" => super::epoll_sets::inside_tables(),
        "epoll-forked" => super::epoll_sets::inside_forked(),
        "ring-of-a-thread" => super::finding::inside_ring_of_a_thread(),
        "swapped-descriptors" => super::finding::inside_swapped_descriptors(),
        "growing-descriptors" => super::finding::inside_growing_descriptors(),
        "great-descriptor" => super::finding::inside_great_descriptor(),
        "epoll-numbers" => super::epoll_sets::inside_numbers(),
        "thread-descriptors" => super::attach::inside_thread_descriptors(),
        "files-on-overlayfs" => super::file_facts::inside_overlayfs(),
        "few-descriptors" => super::errors::inside_few_descriptors(),
        "instructions" => super::instructions::inside(),
        "observer" => super::observer::inside(),
        "observer-orphaned" => super::observer::inside_orphaned(),
        "over-limit" => super::limits::inside(),
        "namespace" => super::namespaces::inside(),
        "reader" => super::reader::inside(),
        "reader-descriptors" => super::reader::inside_descriptors(),
        "same-number" => super::namespaces::inside_same_number(),
        "segments-of-much" => super::pages::inside_much(),
        "segments-of-huge-pages" => super::pages::inside_huge_pages(),
        "segments-without-rights" => super::pages::inside_without_rights(),
        "hands-on" => super::handed_on::inside_loader(),
        "huge-pages" => super::memory::inside_huge_pages(),
        "soak" => super::soak::inside(),
        "interrupted-read" => super::native_epoll::inside_interrupted(),
        "late-ring" => super::threads::inside_late_ring(),
        "churning-threads" => super::threads::inside_churn(),
        "standard-input" => super::handed_on::inside_reader(),
        "strange-name" => super::threads::inside_strange_name(),
        "forked-worker" => super::forks::inside_worker(),
        "many-holders" => super::forks::inside_holders(),
        "tables-of-threads" => super::threads::inside_tables(),
        "ended-leader" => super::threads::inside_ended_leader(),
        "unprivileged" => super::unprivileged::inside(),
        "verified" => super::verifier::inside(),
        "waits-for-buffers" => super::native_waits::inside_buffers(),
        "waits-for-files" => super::native_waits::inside_files(),
        "waits-for-items" => super::native_waits::inside_items(),
        "warm" => super::warm::inside(),
        other => panic!("no mode {other}"),
    }
    println!("{DONE}");
    ExitCode::SUCCESS
}

/// The numbers that the trial has passed on.
pub(crate) fn foreign() -> Vec<u64> {
    let text = std::env::var(FOREIGN).expect("set by the trial");
    text.split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect()
}

/// Runs a mode and wants it to come to its end. Gives what it said before that.
#[track_caller]
pub(crate) fn expect_done(command: &mut std::process::Command) -> String {
    let output = super::run::output(command);
    assert!(
        output.status.success() && output.stdout.contains(DONE),
        "{}\n{}\n{}",
        output.status,
        output.stdout,
        output.stderr
    );
    output.stdout.replace(DONE, "")
}
