//! All trials, and what they share: the need for root, and the list of what
//! was skipped.

pub(crate) mod inner;
mod oracle;
pub(crate) mod run;
pub(crate) mod skipped;

use libtest_mimic::{Completion, Failed, Trial};

/// How a trial ended: [`done`], [`skipped::skip`], or a panic.
pub(crate) type Outcome = Result<Completion, Failed>;

pub(crate) fn done() -> Outcome {
    Ok(Completion::Completed)
}

/// Registers functions as trials, under the name of their file.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(super::trial(module_path!(), stringify!($test), $test)),*]
        }
    };
}

mod attach;
mod contention;
mod dying;
mod errors;
mod examples;
mod examples_exit;
mod examples_shown;
mod fakes;
mod files;
mod finding;
mod holders;
mod long_hold;
mod memory;
mod namespaces;
mod setups;
mod tables;
mod torn;
mod types;
mod unprivileged;

/// Long ones first, so that nothing waits for them at the end.
pub(crate) fn trials() -> Vec<Trial> {
    [
        long_hold::trials(),
        contention::trials(),
        torn::trials(),
        dying::trials(),
        namespaces::trials(),
        memory::trials(),
        finding::trials(),
        holders::trials(),
        fakes::trials(),
        files::trials(),
        tables::trials(),
        setups::trials(),
        attach::trials(),
        errors::trials(),
        unprivileged::trials(),
        examples::trials(),
        examples_shown::trials(),
        examples_exit::trials(),
        types::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn trial(module: &str, test: &str, body: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    let topic = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{topic}::{test}");
    let shown = name.clone();
    Trial::ignorable_test(name, move || {
        need_root()?;
        let outcome = body();
        if let Ok(Completion::Ignored { reason }) = &outcome {
            skipped::note(&shown, reason.as_deref().unwrap_or("no reason given"));
        }
        outcome
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
