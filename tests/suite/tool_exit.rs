//! How `uringctl` ends, by `bufs` and `list`: exit codes, and what goes where.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::run::{for_everyone, idle_process, output, tool, workload, Output, NOBODY};
use super::tool::run;
use super::{done, Outcome};

trials![
    wrong_usage,
    a_process_without_rings,
    no_such_process,
    descriptors_that_are_no_ring,
    a_backend_that_cannot_serve,
    without_privilege,
    a_busy_ring,
];

const BOTH: [&str; 2] = ["bufs", "list"];

/// Nothing on stdout, a reason on stderr, and this code.
#[track_caller]
fn assert_ended(ran: &Output, code: i32, says: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "only records go there");
    for says in says {
        assert!(ran.stderr.contains(says), "{says:?} is missing: {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

fn wrong_usage() -> Outcome {
    for name in BOTH {
        assert_ended(&run(name, "--fd 3"), 2, &["--pid"]);
        assert_ended(&run(name, "--locked --raw"), 2, &["--raw"]);
        assert_ended(&run(name, "--watch 0"), 2, &["--watch"]);
        assert_ended(&run(name, "--backend none"), 2, &["--backend"]);
        assert_ended(&run(name, "--pid x"), 2, &["--pid"]);
    }
    done()
}

fn a_process_without_rings() -> Outcome {
    let idle = idle_process();
    let pid = idle.0.id().to_string();
    for name in BOTH {
        for format in ["json", "table"] {
            for backend in ["auto", "task-file", "fdinfo"] {
                let ran = run(
                    name,
                    &format!("--pid {pid} --format {format} --backend {backend}"),
                );
                assert_ended(&ran, 0, &[&pid, "no io_uring"]);
            }
        }
    }
    done()
}

fn no_such_process() -> Outcome {
    for name in BOTH {
        for pid in ["4194305", "0", "4294967295"] {
            let ran = run(name, &format!("--pid {pid} --format json"));
            let says = [&format!("uringctl {name}: "), &format!("no process {pid}")];
            assert_ended(&ran, 1, &says.map(|says| &**says));
            let ran = run(name, &format!("--pid {pid} --fd 3"));
            assert_ended(&ran, 1, &[&format!("no process {pid}")]);
        }
    }
    done()
}

fn descriptors_that_are_no_ring() -> Outcome {
    let load = workload("--rings 1");
    let pid = load.pid();
    for name in BOTH {
        // Standard input of a workload is a pipe.
        let ran = run(name, &format!("--pid {pid} --fd 0"));
        assert_ended(&ran, 1, &["io_uring", ": it is pipe:["]);
        let ran = run(name, &format!("--pid {pid} --fd 19999"));
        assert_ended(&ran, 1, &["no descriptor 19999"]);
    }
    done()
}

fn a_backend_that_cannot_serve() -> Outcome {
    if super::oracle::has_native() {
        return super::results::skip("this kernel has native iterators");
    }
    let load = workload("--rings 1");
    // Rings are found by others; `list` reads no table.
    for (name, target) in [("bufs", "io_uring_buf"), ("files", "io_uring_file")] {
        let ran = run(name, &format!("--pid {} --backend native", load.pid()));
        assert_ended(&ran, 3, &[name, "native", target]);
    }
    done()
}

fn without_privilege() -> Outcome {
    let load = workload("--rings 1");
    let own = workload(&format!("--rings 1 --uid {NOBODY}"));
    let program = for_everyone(&tool());
    for name in BOTH {
        let nobody = |args: &str| {
            let mut command = Command::new(&program);
            command.arg(name).args(args.split_whitespace());
            output(command.uid(NOBODY).gid(NOBODY).current_dir("/"))
        };
        let ran = nobody("--backend task-file --format json");
        assert_ended(&ran, 3, &["CAP_BPF", "CAP_PERFMON"]);
        let ran = nobody(&format!("--pid {} --format json", load.pid()));
        assert_ended(&ran, 3, &["not permitted", "CAP_BPF"]);
        // It dropped its rights, so the kernel does not let its user look.
        let ran = nobody(&format!("--pid {} --format json", own.pid()));
        assert_ended(&ran, 3, &["not permitted"]);
        // All of the machine: nothing of it may be looked at.
        let ran = nobody("--format json");
        assert_eq!(ran.status.code(), Some(3), "{ran:?}");
        assert!(!ran.stderr.contains("no io_uring instance\n"), "{ran:?}");
        assert!(ran.stderr.contains("using fdinfo"), "{ran:?}");
        assert!(ran.stderr.contains("could not be inspected"), "{ran:?}");
        assert!(
            ran.stdout.lines().all(|line| line.starts_with('{')),
            "{ran:?}"
        );
    }
    done()
}

fn a_busy_ring() -> Outcome {
    let load = workload("--rings 1 --bufs 2 --hold-lock");
    let pid = load.pid();
    let mut options = vec!["", "--backend fdinfo"];
    if super::oracle::kernel() >= (6, 13) {
        options.push("--locked");
    }
    for option in options {
        let ran = run("bufs", &format!("--pid {pid} --format json {option}"));
        assert_ended(&ran, 4, &["busy", "try again"]);
    }
    let ran = run("bufs", &format!("--pid {pid} --format json"));
    assert!(ran.stderr.contains(&format!("process {pid}")), "{ran:?}");
    // A raw look does what the message says.
    let ran = run("bufs", &format!("--pid {pid} --format json --raw"));
    assert_eq!(
        (ran.status.code(), ran.stdout.lines().count()),
        (Some(0), 3),
        "{ran:?}"
    );
    // The list of rings goes without the sum.
    let ran = run("list", &format!("--pid {pid} --format json"));
    assert_eq!(
        (ran.status.code(), ran.stdout.lines().count()),
        (Some(0), 1),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("\"pinned_bytes\":null"), "{ran:?}");
    if super::oracle::kernel() >= (6, 13) {
        let ran = run("list", &format!("--pid {pid} --format json --locked"));
        assert_eq!(ran.status.code(), Some(4), "{ran:?}");
        assert!(ran.stdout.contains("\"pinned_bytes\":null"), "{ran:?}");
    }
    done()
}
