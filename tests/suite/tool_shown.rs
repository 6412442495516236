//! `uringctl bufs` and `uringctl list` before a person: tables, `--watch`, a pager that
//! has seen enough.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use uring_testkit::page_size;

use super::oracle::pinned_bytes;
use super::run::{tool, wait, workload, Killed};
use super::tool::run;
use super::{done, Outcome};

trials![
    tables_are_for_people,
    watch_looks_again,
    a_closed_pipe_ends_it_quietly,
];

fn tables_are_for_people() -> Outcome {
    let load = workload("--rings 2 --bufs 3 --len 8192 --tag 4660");
    let report = load.report();
    let ran = run("bufs", &format!("--pid {}", load.pid()));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    for ring in &report.rings {
        let head = format!(
            "ring {}: workload[{}] fd {}",
            ring.inode.unwrap(),
            load.pid(),
            ring.fd.unwrap()
        );
        assert!(ran.stdout.contains(&head), "{head}\n{}", ran.stdout);
        for buf in ring.expected().iter().flatten() {
            let line = ran
                .stdout
                .lines()
                .find(|l| l.contains(&format!("{:#x}", buf.addr)));
            let line = line.unwrap_or_else(|| panic!("{buf:?}\n{}", ran.stdout));
            assert!(
                line.contains("8 KiB") && line.contains(&format!("{:#x}", buf.tag)),
                "{line}"
            );
        }
    }
    let ran = run("list", &format!("--pid {}", load.pid()));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines.len(),
        1 + 2,
        "a heading and a line a ring: {}",
        ran.stdout
    );
    for ring in &report.rings {
        let start = ring.inode.unwrap().to_string();
        let line = lines.iter().find(|l| l.trim_start().starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{}", ran.stdout));
        let pinned = pinned_bytes(&ring.expected()) / page_size() as u64;
        assert!(line.contains(&format!("{} KiB", 4 * pinned)), "{line}");
    }
    done()
}

fn watch_looks_again() -> Outcome {
    let load = workload("--rings 1");
    let pid = load.pid().to_string();
    for name in ["bufs", "list"] {
        let mut command = Command::new(tool());
        command.args([name, "--format", "json", "--watch", "1", "--pid", &pid]);
        let mut child = Killed(command.stdout(Stdio::piped()).spawn()?);
        let lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
        let heads = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        // Kept: a closed pipe would end it.
        let mut looks = heads.filter(|record| record["type"] == "ring");
        assert_eq!(looks.by_ref().take(3).count(), 3, "{name}");
        assert_eq!(child.0.try_wait()?, None, "{name}: it goes on");
        drop(looks);
    }
    done()
}

/// As with `| head -1`.
fn a_closed_pipe_ends_it_quietly() -> Outcome {
    // More than a pipe holds.
    let load = workload("--rings 2 --bufs 5000 --len 1");
    for extra in [&[][..], &["--watch", "1"]] {
        let mut command = Command::new(tool());
        command.args(["bufs", "--format", "json", "--pid", &load.pid().to_string()]);
        command
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        assert!(line.contains("\"type\":\"ring\""), "{line}");
        // The reader was dropped: the next write meets a closed pipe.
        let status = wait(&mut child).expect("it ends");
        let said = std::io::read_to_string(child.stderr.take().expect("piped"))?;
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(said, "");
    }
    done()
}
