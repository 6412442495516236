//! The programs in `examples/`, each against what it is to show.

use std::os::unix::fs::MetadataExt;
use std::process::{self, Command};

use serde_json::{json, Value};
use uring_testkit::{BufSpec, RingBuilder};

use super::oracle::pinned_bytes;
use super::run::{example, output, workload, Output};
use super::tool::records;
use super::{done, Outcome};

trials![
    dump_bufs_prints_the_json_of_the_tool,
    dump_bufs_prints_text,
    dump_bufs_says_why_not,
    own_ring_shows_what_it_registered,
    poll_rings_counts_its_rounds,
];

fn run(name: &str, args: &str) -> Output {
    output(Command::new(example(name)).args(args.split_whitespace()))
}

/// The lines of both, which differ in nothing but the time.
#[track_caller]
fn assert_same_as_tool(args: &str) -> Vec<Value> {
    let ran = run("dump_bufs", &format!("{args} --format json"));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let lines = ran.stdout.lines().map(serde_json::from_str);
    let mut own: Vec<Value> = lines.collect::<Result<_, _>>().expect("JSON");
    let mut tool = records("bufs", args);
    for ring in own.iter_mut().chain(&mut tool) {
        if ring["type"] == "ring" {
            assert!(ring["time_ms"].take().is_u64(), "{ring}");
            // The tool asks /proc for more.
            for holder in ring["holders"].as_array_mut().expect("holders") {
                let keys = holder.as_object_mut().expect("an object");
                keys.retain(|key, _| key != "ns_pid" && key != "cgroup");
            }
        }
    }
    for (own, tool) in own.iter().zip(&tool) {
        assert_eq!(own, tool, "{args}");
    }
    assert_eq!(own.len(), tool.len(), "{args}");
    own
}

fn dump_bufs_prints_the_json_of_the_tool() -> Outcome {
    let load = workload("--rings 2 --sparse 20 --bufs 3 --len 5000 --offset 99 --tag 7 --dup");
    let pid = load.pid();
    for backend in ["task-file", "fdinfo"] {
        let all = assert_same_as_tool(&format!("--pid {pid} --backend {backend}"));
        assert_eq!(all.len(), 2 * (1 + 3));
        let ring = &load.report().rings[1];
        // By its second descriptor, too.
        for fd in ring.fd.into_iter().chain(ring.dup_fds.iter().copied()) {
            let one = assert_same_as_tool(&format!("--pid {pid} --fd {fd} --backend {backend}"));
            assert_eq!(one.len(), 1 + 3);
            assert_eq!(one[0]["ring"], json!(ring.inode));
            assert_eq!(one[0]["pinned_bytes"], pinned_bytes(&ring.expected()));
            assert_eq!(one[1]["fd"], fd);
        }
    }
    // No option: all of the machine, and this one is of it. A ring of another trial may
    // go, or be busy, after it was found.
    let ran = run("dump_bufs", "--format json");
    assert!(
        ran.status.success() != ran.stderr.contains("dump_bufs: "),
        "{ran:?}"
    );
    for ring in &load.report().rings {
        let inode = format!("\"ring\":{},", ring.inode.expect("an inode"));
        let lines = ran.stdout.lines().filter(|line| line.contains(&inode));
        assert_eq!(lines.count(), 1 + 3);
    }
    done()
}

fn dump_bufs_prints_text() -> Outcome {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register_tagged(&[BufSpec::new(300).tagged(5), BufSpec::new(9000).at(1)])?;
    let args = format!("--pid {} --fd {}", process::id(), ring.raw_fd());
    let ran = run("dump_bufs", &args);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let expected = ring.expected();
    assert_eq!(lines.len(), 2 + expected.len(), "{ran:?}");
    let inode = ring.inode().expect("an inode").to_string();
    let named = format!("process {}, descriptor {}", process::id(), ring.raw_fd());
    assert!(
        lines[0].contains(&inode) && lines[0].ends_with(&named),
        "{ran:?}"
    );
    let sum = pinned_bytes(expected).to_string();
    assert!(lines[1].contains(&sum), "{ran:?}");
    for (line, buf) in lines[2..].iter().zip(expected.iter().flatten()) {
        let address = format!("{:x}", buf.addr);
        let len = format!("{} bytes", buf.len);
        assert!(line.contains(&address) && line.contains(&len), "{line}");
    }
    done()
}

fn dump_bufs_says_why_not() -> Outcome {
    for (args, says) in [
        ("--pid 4194305", "no process 4194305"),
        ("--backend none", "none"),
        ("--format xml", "--format xml"),
        ("--pid", "--pid needs a value"),
        ("--pid x", "invalid digit"),
    ] {
        let ran = run("dump_bufs", args);
        assert_eq!((ran.status.code(), &*ran.stdout), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(says), "{says}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
    done()
}

fn own_ring_shows_what_it_registered() -> Outcome {
    let ran = run("own_ring", "");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let [head, file, empty, socket, bufs] = &lines[..] else {
        panic!("{ran:?}");
    };
    let inode = std::fs::metadata(example("own_ring"))?.ino();
    assert!(head.starts_with("read by "), "{head}");
    let start = format!("file 0: regular, inode {inode}, descriptors [");
    assert!(file.starts_with(&start), "{file}");
    assert_eq!(*empty, "file 1: empty");
    assert!(socket.starts_with("file 2: socket, inode "), "{socket}");
    assert_eq!(*bufs, "buffers: 0 in 4 slots");
    done()
}

/// Other trials make rings and take them away meanwhile.
fn poll_rings_counts_its_rounds() -> Outcome {
    let load = workload("--rings 2 --bufs 2 --len 3000");
    let ran = run("poll_rings", "2");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let rounds: Vec<Vec<&str>> = (ran.stdout.split("round ").skip(1))
        .map(|round| round.lines().collect())
        .collect();
    assert_eq!(rounds.len(), 2, "{ran:?}");
    for ring in &load.report().rings {
        let start = format!("  ring {} of \"workload\"", ring.inode.expect("an inode"));
        let bytes = format!("{} bytes", pinned_bytes(&ring.expected()));
        for (round, end) in rounds.iter().zip([", new", ""]) {
            let line = round.iter().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_else(|| panic!("{start}: {ran:?}"));
            assert!(line.ends_with(&format!("{bytes}{end}")), "{line}");
        }
    }
    done()
}
