//! `cargo xtask liburing`: liburing's own test programs on a kernel with the
//! patches and on one without, to see that io_uring itself is as it was.

mod list;
mod machine;
mod outcome;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{anyhow, bail, Context as _, Result};
use xtask_base::run::heading;
use xtask_base::Flavour;

use crate::image;
use crate::vm;
use list::{List, LIST};
use outcome::{differences, Outcome, Outcomes};

/// How often a program is run again if it did not end alike.
const AGAIN: usize = 6;

/// What to run them on.
#[derive(clap::Args)]
pub(crate) struct Liburing {
    /// A series that kernel/sources names.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: String,
    /// Two kernels in place of the series' own: without and with what is compared.
    #[arg(long, num_args = 2, value_name = "BZIMAGE", value_parser = vm::absolute)]
    images: Option<Vec<PathBuf>>,
    /// This program only; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Runs them on both; says whether the patched kernel is as good.
pub(crate) fn liburing(liburing: &Liburing) -> Result<bool> {
    let list = List::read()?;
    let programs = package::programs(&list.source)?;
    let names = chosen(&programs, &list, &liburing.only)?;
    let images = match liburing.images.as_deref() {
        Some([unpatched, patched]) => [unpatched.clone(), patched.clone()],
        _ => [
            image::build_unpatched(&liburing.kernel, Flavour::Plain)?,
            image::build(&liburing.kernel, Flavour::Plain)?,
        ],
    };
    let mut kernels = [("unpatched", &images[0]), ("patched", &images[1])]
        .map(|(title, image)| Kernel::new(title, image, &programs));
    run(&mut kernels, &names, 1)?;
    let [unpatched, patched] = kernels.each_ref().map(|kernel| &kernel.outcomes);
    let differ: Vec<String> = differences(&names, unpatched, patched)
        .into_iter()
        .map(|difference| difference.name)
        .collect();
    // By chance, or every time?
    if !differ.is_empty() {
        run(&mut kernels, &differ, AGAIN)?;
    }
    Ok(sum_up(&list, &names, &kernels))
}

/// Runs programs so many times each on both at the same time: what else the host
/// does takes time from both alike.
fn run(kernels: &mut [Kernel<'_>; 2], names: &[String], times: usize) -> Result<()> {
    heading(&format!("{} programs, {times} times each", names.len()));
    thread::scope(|scope| {
        let runs = kernels
            .each_mut()
            .map(|kernel| scope.spawn(move || kernel.run(names, times)));
        for run in runs {
            run.join().map_err(|_| anyhow!("a thread has panicked"))??;
        }
        Ok(())
    })
}

/// One of the two, and what it has shown.
struct Kernel<'a> {
    title: &'static str,
    image: &'a Path,
    programs: &'a Path,
    outcomes: Outcomes,
    clean: bool,
}

impl<'a> Kernel<'a> {
    fn new(title: &'static str, image: &'a Path, programs: &'a Path) -> Self {
        Self {
            title,
            image,
            programs,
            outcomes: Outcomes::default(),
            clean: true,
        }
    }

    fn run(&mut self, names: &[String], times: usize) -> Result<()> {
        let each = names.iter().flat_map(|name| vec![&**name; times]);
        let seen = machine::run(self.title, self.image, self.programs, each)?;
        self.clean &= seen.clean;
        self.outcomes.extend(seen.outcomes);
        Ok(())
    }
}

/// Prints what was seen; says whether the patched kernel is as good.
fn sum_up(list: &List, names: &[String], kernels: &[Kernel<'_>; 2]) -> bool {
    let [unpatched, patched] = kernels;
    heading("Summary");
    println!("liburing {}, {} programs", list.source.version, names.len());
    for Kernel {
        title, outcomes, ..
    } in kernels
    {
        let counts = Outcome::ALL.map(|it| format!("{} {it}", outcomes.first(it).len()));
        println!("{title:<9} {}", counts.join(", "));
    }
    for outcome in &Outcome::ALL[1..] {
        let both = unpatched.outcomes.first(*outcome).into_iter();
        let alike = patched.outcomes.first(*outcome);
        let both: Vec<&str> = both.filter(|name| alike.contains(name)).collect();
        println!("{outcome} on both: {}", both.join(" "));
    }
    for (name, why) in &list.without {
        println!("left out: {name}: {why}");
    }
    let differences = differences(names, &unpatched.outcomes, &patched.outcomes);
    for difference in &differences {
        println!("differs: {difference}");
    }
    let worse = differences.iter().filter(|it| it.worse).count();
    println!(
        "{} differ, {worse} pass on the unpatched kernel only",
        differences.len()
    );
    for Kernel { title, clean, .. } in kernels {
        if !clean {
            println!("{title}: the kernel's log holds a warning: see above");
        }
    }
    // What the untouched kernel says of itself is not for us to mend.
    worse == 0 && (patched.clean || !unpatched.clean)
}

/// The programs that are to run, in order.
fn chosen(programs: &Path, list: &List, only: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let cannot = || format!("cannot read {}", programs.display());
    for entry in fs::read_dir(programs).with_context(cannot)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "t") {
            names.extend(
                path.file_stem()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    for (name, _) in &list.without {
        if !names.contains(name) {
            bail!("{LIST} leaves out {name}, and there is no such program");
        }
    }
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        bail!("liburing has no program {unknown}");
    }
    let left_out = |name: &String| list.without.iter().any(|(left_out, _)| left_out == name);
    names.retain(|name| {
        if only.is_empty() {
            !left_out(name)
        } else {
            only.contains(name)
        }
    });
    Ok(names)
}
