//! All trials, and what they share: the need for root, and the list of how they
//! ended.

pub(crate) mod inner;
mod oracle;
mod results;
mod run;
mod slowest;

use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Completion, Failed, Trial};

/// How a trial ended: [`done`], [`results::skip`], or a panic.
pub(crate) type Outcome = Result<Completion, Failed>;

pub(crate) fn done() -> Outcome {
    Ok(Completion::Completed)
}

/// Registers functions as trials, under the name of their file.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            use super::Company::Any;
            vec![$(super::trial(module_path!(), stringify!($test), Any, $test)),*]
        }
    };
}

/// The same for what needs the iterators of a patched kernel.
macro_rules! native_trials {
    ($company:ident: $($test:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            use super::{native, trial, Company::$company};
            vec![$(trial(module_path!(), stringify!($test), $company, || native::run($test))),*]
        }
    };
}

mod attach;
mod contention;
mod dying;
mod epoll;
mod epoll_sets;
mod epoll_torn;
mod errors;
mod examples;
mod fakes;
mod file_facts;
mod files;
mod finding;
mod forks;
mod handed_on;
mod holders;
mod instructions;
mod kernel_bufs;
mod limits;
mod long_hold;
mod memory;
mod namespaces;
mod native;
mod native_epoll;
mod native_errors;
mod native_faults;
mod native_lifetime;
mod native_locks;
mod native_memory;
mod native_resume;
mod native_self;
mod native_stress;
mod native_tables;
mod native_waits;
mod observer;
mod pages;
mod reader;
mod setups;
mod soak;
mod stress;
mod tables;
mod threads;
mod tool;
mod tool_epoll;
mod tool_epoll_sets;
mod tool_exit;
mod tool_shown;
mod torn;
mod types;
mod unprivileged;
mod verifier;
mod warm;

/// Which other trials may run at the same time.
#[derive(Clone, Copy)]
pub(crate) enum Company {
    Any,
    /// None: it compares what belongs to the whole machine.
    Alone,
}

/// Those that run alone first, then long ones, so that nothing waits for them at
/// the end.
pub(crate) fn trials() -> Vec<Trial> {
    [
        native_stress::trials(),
        native_memory::trials(),
        native_faults::trials(),
        native_waits::trials(),
        native_lifetime::trials(),
        long_hold::trials(),
        contention::trials(),
        torn::trials(),
        epoll_torn::trials(),
        dying::trials(),
        epoll::trials(),
        epoll_sets::trials(),
        namespaces::trials(),
        memory::trials(),
        observer::trials(),
        native_locks::trials(),
        native_self::trials(),
        native_tables::trials(),
        native_resume::trials(),
        native_epoll::trials(),
        native_errors::trials(),
        pages::trials(),
        kernel_bufs::trials(),
        finding::trials(),
        forks::trials(),
        holders::trials(),
        fakes::trials(),
        file_facts::trials(),
        files::trials(),
        tables::trials(),
        threads::trials(),
        setups::trials(),
        attach::trials(),
        reader::trials(),
        errors::trials(),
        unprivileged::trials(),
        handed_on::trials(),
        examples::trials(),
        tool::trials(),
        tool_shown::trials(),
        tool_epoll::trials(),
        tool_epoll_sets::trials(),
        tool_exit::trials(),
        types::trials(),
        limits::trials(),
        verifier::trials(),
        warm::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is left to do when all trials have ended, or one of them is over its limit.
pub(crate) fn finish() {
    slowest::print();
    results::report();
    run::clean_up();
}

fn trial(
    module: &str,
    test: &str,
    company: Company,
    body: impl FnOnce() -> Outcome + Send + 'static,
) -> Trial {
    static TRIALS: RwLock<()> = RwLock::new(());
    let topic = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{topic}::{test}");
    let shown = name.clone();
    Trial::ignorable_test(name, move || {
        let limited = || limits::within(&shown, body);
        results::note(&shown, || {
            need_root()?;
            match company {
                Company::Any => {
                    let _with_others = TRIALS.read().unwrap_or_else(PoisonError::into_inner);
                    limited()
                }
                Company::Alone => {
                    let _alone = TRIALS.write().unwrap_or_else(PoisonError::into_inner);
                    limited()
                }
            }
        })
    })
}

/// A run without privilege must not look like a pass.
fn need_root() -> Result<(), Failed> {
    const ROOT_HAS: [(u32, &str); 4] = [
        (19, "CAP_SYS_PTRACE"),
        (21, "CAP_SYS_ADMIN"),
        (38, "CAP_PERFMON"),
        (39, "CAP_BPF"),
    ];
    let have = u64::from_str_radix(&oracle::status(std::process::id(), "CapEff"), 16)?;
    let missing: Vec<&str> = ROOT_HAS
        .iter()
        .filter(|(bit, _)| have >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "not privileged, so nothing was tested: missing {}. Run the suite as root.",
        missing.join(", ")
    )
    .into())
}
