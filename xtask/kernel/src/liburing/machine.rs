//! Runs the programs in a machine and reads how each ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use xtask_base::Flavour;

use super::outcome::{Outcome, Outcomes};
use crate::vm::{self, Vm};

const GUEST: &str = include_str!("guest.sh");

/// Seconds for a program; emulated ones are slow, and take up to 22.
const EACH: u32 = 60;
/// Seconds for all of them.
const ALL: u32 = 5400;
/// How often a line of progress is shown.
const PROGRESS: Duration = Duration::from_secs(60);

/// What a machine has shown.
pub(super) struct Seen {
    pub(super) outcomes: Outcomes,
    /// The kernel's log holds no warning.
    pub(super) clean: bool,
}

/// Boots a kernel and runs the programs of a folder, in this order. What is shown
/// goes under a title.
pub(super) fn run<'a>(
    title: &str,
    image: &Path,
    programs: &Path,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Seen> {
    let names: Vec<&str> = names.into_iter().collect();
    let folder = programs.display();
    let script = format!("set -- '{folder}' {EACH} {}\n{GUEST}", names.join(" "));
    let vm = Vm::new(image, Flavour::Plain, ALL, script);
    let mut machine = Command::from(vm::machine(&vm)?);
    let mut machine = machine.stdout(Stdio::piped()).spawn()?;
    let said = machine.stdout.take().context("no output")?;
    let (mut outcomes, mut done) = (Outcomes::default(), 0);
    let mut shown = Instant::now();
    // What a program said comes before its result.
    let mut before = Vec::new();
    for line in BufReader::new(said).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let Some((name, status, seconds)) = result(&line) else {
            before.push(line);
            continue;
        };
        let outcome = Outcome::of(status);
        if !matches!(outcome, Outcome::Passed | Outcome::Skipped) {
            println!("{title}: {name}: {outcome} ({status}, {seconds} s)");
            let said = before.iter().filter(|line| !line.trim().is_empty());
            said.for_each(|line| println!("    {line}"));
        }
        before.clear();
        outcomes.add(name, outcome);
        done += 1;
        if shown.elapsed() >= PROGRESS {
            println!("{title}: {done} of {}", names.len());
            shown = Instant::now();
        }
    }
    let status = machine.wait().context("cannot wait for the machine")?;
    let clean = match status.code() {
        Some(0) => true,
        Some(vm::SPLAT) => false,
        _ => bail!("{title}: the machine failed: {status}"),
    };
    if done < names.len() {
        bail!("{title}: {done} of {} programs ran: see above", names.len());
    }
    Ok(Seen { outcomes, clean })
}

/// The name, exit status and seconds of a line that tells of a program's end.
fn result(line: &str) -> Option<(&str, i32, &str)> {
    let words: Vec<&str> = line.strip_prefix("RESULT ")?.split(' ').collect();
    let [name, status, seconds] = words[..] else {
        return None;
    };
    Some((name, status.parse().ok()?, seconds))
}

#[cfg(test)]
mod tests {
    use super::result;

    #[test]
    fn results_are_told_from_what_programs_say() {
        assert_eq!(result("RESULT accept 77 3"), Some(("accept", 77, "3")));
        assert_eq!(result("RESULT of it all"), None);
        assert_eq!(result("accept: RESULT accept 0 1"), None);
    }
}
