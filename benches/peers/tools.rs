//! Programs of others that can find rings, each a process for each look. They tell
//! which process has a ring, and no more of it.

use std::process::Command;

use crate::bench::{Bench, Candidate, Result};

struct Tool {
    name: &'static str,
    args: &'static [&'static str],
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "lsfd",
        args: &[
            "--raw",
            "--noheadings",
            "--output=PID",
            "--filter",
            r#"NAME == "anon_inode:[io_uring]""#,
        ],
    },
    Tool {
        name: "bpftrace",
        args: &[
            "-e",
            r#"iter:task_file {
                if (str(ctx->file->f_path.dentry->d_name.name) == "[io_uring]") {
                    printf("%d\n", ctx->task->tgid);
                }
            }"#,
        ],
    },
];

/// Those that are here and work here. `check` is given the processes that one found.
pub(crate) fn candidates<'a>(
    bench: &mut Bench,
    check: impl Fn(Vec<u32>) -> Result<()>,
) -> Result<Vec<Candidate<'a>>> {
    let mut all = Vec::new();
    for Tool { name, args } in TOOLS {
        let version = match run(name, &["--version"]) {
            Ok(version) => version.trim().to_owned(),
            Err(error) => {
                bench.leave_out(format!("discover, {name}"), error);
                continue;
            }
        };
        // Another version may call a ring something else: no reason to fail.
        let found = run(name, args).and_then(|said| check(pids(&said)));
        if let Err(error) = found {
            bench.leave_out(format!("discover, {version}"), error);
            continue;
        }
        bench.note(format!("`{name}`: {version}"));
        let look = move || Ok(pids(&run(name, args)?).len() as u64);
        all.push(Candidate::new(name, look));
    }
    Ok(all)
}

fn pids(said: &str) -> Vec<u32> {
    // What is no number is said to a person.
    let numbers = said.lines().map(|line| line.trim().parse());
    numbers.filter_map(Result::ok).collect()
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("no word of why");
        return Err(format!("{}: {first}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
