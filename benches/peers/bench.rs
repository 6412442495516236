//! [`Bench`]: criterion, what it was given, and what is to be told at the end.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};

use crate::cold::Cold;
use crate::machine::Machine;

pub(crate) type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What is done with what was read.
pub(crate) type Look<'a, R> = &'a dyn Fn(&[R]) -> Result<u64>;

/// One way to read something. Its `look` gives a number made of all that it has
/// read, so that nothing is left unread.
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'static str,
    look: Box<dyn FnMut() -> Result<u64> + 'a>,
    /// Ends what the last look has left behind; not measured.
    settle: Box<dyn FnMut() + 'a>,
    clock: Clock,
}

/// What has passed, since any moment.
pub(crate) type Clock = fn() -> Duration;

/// The clock on the wall.
pub(crate) fn wall() -> Duration {
    static MOMENT: LazyLock<Instant> = LazyLock::new(Instant::now);
    MOMENT.elapsed()
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(name: &'static str, look: impl FnMut() -> Result<u64> + 'a) -> Self {
        Self {
            name,
            look: Box::new(look),
            settle: Box::new(|| ()),
            clock: wall,
        }
    }

    /// Measured by another clock than that of the wall.
    pub(crate) fn by_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    pub(crate) fn settled_by(self, settle: impl FnMut() + 'a) -> Self {
        let settle = Box::new(settle);
        Self { settle, ..self }
    }
}

/// Candidates side by side: the last one is the peer of the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) group: &'static str,
    /// How many of them there are.
    pub(crate) items: usize,
    /// What there are so many of.
    pub(crate) item: &'static str,
    /// Whether the time is told for each of them.
    pub(crate) each: bool,
}

/// What criterion has measured.
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) name: &'static str,
    pub(crate) peer: &'static str,
}

impl Measured {
    /// Where criterion has put it.
    pub(crate) fn estimates(&self, home: &Path) -> PathBuf {
        let items = self.case.items.to_string();
        let parts = [self.case.group, self.name, &items, "new", "estimates.json"];
        home.join(parts.iter().collect::<PathBuf>())
    }
}

/// A table, for what is no comparison of times. The first row is its heading.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(title: String, heading: [&str; N]) -> Self {
        let rows = vec![heading.map(str::to_owned).to_vec()];
        Self { title, rows }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

pub(crate) struct Bench {
    criterion: Criterion,
    /// Where criterion keeps what it has measured.
    pub(crate) home: PathBuf,
    /// Where the report goes.
    pub(crate) folder: PathBuf,
    /// Each candidate runs once, on little: nothing is measured.
    pub(crate) once: bool,
    pub(crate) machine: Machine,
    pub(crate) cold: Cold,
    pub(crate) measured: Vec<Measured>,
    pub(crate) left_out: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) tables: Vec<Table>,
}

impl Bench {
    pub(crate) fn new(args: &[String]) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..");
        let folder = |variable: &str, name: &str| {
            env::var_os(variable).map_or_else(|| target.join(name), PathBuf::from)
        };
        let home = folder("CRITERION_HOME", "criterion");
        env::set_var("CRITERION_HOME", &home);
        let criterion = Criterion::default()
            .without_plots()
            .sample_size(20)
            // Of the median's error, which is not told: as few as criterion likes.
            .nresamples(2000)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        let given = |wanted: &str| args.iter().any(|arg| arg == wanted);
        let machine = Machine::look();
        Self {
            criterion,
            home,
            folder: folder("URING_BENCH_DIR", "bench"),
            // As criterion takes it: cargo test passes no --bench.
            once: !given("--bench") || given("--test"),
            cold: Cold::new(&machine),
            machine,
            measured: Vec::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Names what is not compared, and why.
    pub(crate) fn leave_out(&mut self, what: impl Display, why: impl Display) {
        let line = format!("{what}: {why}");
        if !self.left_out.contains(&line) {
            self.left_out.push(line);
        }
    }

    /// What the report is to say of a peer.
    pub(crate) fn note(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.notes.contains(&line) {
            self.notes.push(line);
        }
    }

    /// A candidate, or, if it cannot serve here, nothing but its name and the
    /// reason in the report.
    pub(crate) fn candidate<'a>(
        &mut self,
        group: &str,
        name: &'static str,
        made: Result<Candidate<'a>>,
    ) -> Result<Option<Candidate<'a>>> {
        use uring_bpf_iter::Error::{NoBackend, Unsupported};
        match made {
            Ok(candidate) => Ok(Some(candidate)),
            Err(error) => match error.downcast_ref() {
                Some(NoBackend { .. } | Unsupported { .. }) => {
                    self.leave_out(format!("{group}, {name}"), error);
                    Ok(None)
                }
                _ => Err(format!("{name}: {error}").into()),
            },
        }
    }

    /// Measures the candidates, one after the other.
    pub(crate) fn compare(&mut self, case: Case, candidates: Vec<Candidate<'_>>) -> Result<()> {
        self.measure(case, candidates, |_| ())
    }

    /// The same, each look after the caches were filled with something else.
    pub(crate) fn compare_cold(&mut self, case: Case, all: Vec<Candidate<'_>>) -> Result<()> {
        if let Some(why) = self.cold.why_not() {
            self.leave_out(case.group, why);
            return Ok(());
        }
        self.measure(case, all, Cold::evict)
    }

    fn measure(
        &mut self,
        case: Case,
        candidates: Vec<Candidate<'_>>,
        before: impl Fn(&mut Cold),
    ) -> Result<()> {
        let Some(peer) = candidates.last().map(|peer| peer.name) else {
            return Ok(());
        };
        let mut group = self.criterion.benchmark_group(case.group);
        for Candidate {
            name,
            mut look,
            mut settle,
            clock,
        } in candidates
        {
            let (mut ran, mut failed) = (false, None);
            let cold = &mut self.cold;
            group.bench_function(BenchmarkId::new(name, case.items), |bencher| {
                ran = true;
                bencher.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..times {
                        settle();
                        before(cold);
                        let start = clock();
                        let seen = black_box(look());
                        spent += clock() - start;
                        if let Err(error) = seen {
                            failed.get_or_insert(error);
                        }
                    }
                    spent
                });
            });
            if let Some(error) = failed {
                return Err(format!("{name}: {error}").into());
            }
            // Not so if a filter leaves it out.
            if ran {
                self.measured.push(Measured { case, name, peer });
            }
        }
        group.finish();
        Ok(())
    }
}
