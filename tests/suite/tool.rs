//! What `uringctl bufs` and `uringctl list` print as JSON, against the report of the
//! process that made the rings.

use std::process::Command;

use serde_json::{json, Value};
use uring_testkit::{RingReport, Workload};

use super::oracle::{pages, pinned_bytes, Way};
use super::run::{output, tool, workload, Output};
use super::{done, Outcome};

trials![
    bufs_prints_what_was_registered,
    bufs_shows_empty_slots_when_asked,
    bufs_by_every_backend,
    list_prints_every_ring,
    rings_without_a_descriptor,
];

const BUF_KEYS: [&str; 17] = [
    "type",
    "pid",
    "fd",
    "ring",
    "index",
    "empty",
    "addr",
    "len",
    "tag",
    "nr_pages",
    "pinned_pages",
    "acct_pages",
    "nr_bvecs",
    "bvec_shift",
    "refs",
    "kernel",
    "direction",
];
const RING_KEYS: [&str; 23] = [
    "type",
    "ring",
    "holders",
    "creator_uid",
    "flags",
    "flag_names",
    "sq_entries",
    "sq_head",
    "sq_tail",
    "cq_entries",
    "cq_head",
    "cq_tail",
    "sqpoll",
    "nr_slots",
    "nr_bufs",
    "nr_files",
    "nr_file_slots",
    "nr_files_filled",
    "pinned_bytes",
    "acct_bytes",
    "charged_uid",
    "user_locked_bytes",
    "consistency",
];
const HOLDER_KEYS: [&str; 7] = ["pid", "tid", "fd", "via", "registered_index", "uid", "name"];

/// Runs a subcommand of `uringctl`.
pub(super) fn run(command: &str, args: &str) -> Output {
    let words = args.split_whitespace();
    output(Command::new(tool()).arg(command).args(words))
}

/// The records of a run that went well: every line of stdout is one.
#[track_caller]
pub(super) fn records(command: &str, args: &str) -> Vec<Value> {
    let ran = run(command, &format!("{args} --format json"));
    assert!(ran.status.success(), "{args}: {ran:?}");
    assert_eq!(ran.stderr, "", "{args}");
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn of_type<'a>(records: &'a [Value], kind: &str, ring: &RingReport) -> Vec<&'a Value> {
    let inode = json!(ring.inode.expect("an inode"));
    let all = records.iter();
    all.filter(|r| r["type"] == kind && r["ring"] == inode)
        .collect()
}

#[track_caller]
fn assert_keys(record: &Value, keys: &[&str]) {
    for key in keys {
        assert!(record.get(key).is_some(), "{key} is missing: {record}");
    }
}

/// The slots of one ring, with or without the empty ones.
#[track_caller]
fn assert_bufs(records: &[Value], pid: u32, ring: &RingReport, all_slots: bool, way: Way) {
    let bufs = of_type(records, "buf", ring);
    let expected = ring.expected();
    let shown: Vec<_> = (expected.iter().enumerate())
        .filter(|(_, slot)| all_slots || slot.is_some())
        .collect();
    assert_eq!(bufs.len(), shown.len());
    for (buf, (index, want)) in bufs.into_iter().zip(shown) {
        assert_keys(buf, &BUF_KEYS);
        assert_eq!(buf["pid"], pid);
        assert_eq!(buf["fd"], json!(ring.fd));
        assert_eq!(buf["index"], index);
        assert_eq!(buf["empty"], want.is_none());
        let Some(want) = want else {
            assert_eq!((&buf["addr"], &buf["len"]), (&json!(0), &json!(0)));
            continue;
        };
        assert_eq!(buf["addr"], want.addr);
        assert_eq!(buf["len"], want.len);
        assert_eq!(buf["nr_pages"], pages(want));
        assert_eq!(buf["pinned_pages"], pages(want));
        if way == Way::Fdinfo {
            assert_eq!((&buf["tag"], &buf["refs"]), (&Value::Null, &Value::Null));
            continue;
        }
        assert_eq!(buf["tag"], want.tag);
        assert_eq!((&buf["refs"], &buf["kernel"]), (&json!(1), &json!(false)));
        assert_eq!(buf["direction"], "dest|source");
    }
}

#[track_caller]
fn assert_ring(record: &Value, pid: u32, ring: &RingReport, way: Way) {
    assert_keys(record, &RING_KEYS);
    let [holder] = &record["holders"].as_array().expect("holders")[..] else {
        panic!("{record}");
    };
    assert_keys(holder, &HOLDER_KEYS);
    assert_eq!(
        (&holder["pid"], &holder["fd"]),
        (&json!(pid), &json!(ring.fd))
    );
    assert_eq!(
        (&holder["name"], &holder["uid"]),
        (&json!("workload"), &json!(0))
    );
    assert_eq!(record["sq_entries"], ring.sq_entries);
    assert_eq!(record["cq_entries"], ring.cq_entries);
    assert_eq!(record["nr_slots"], ring.bufs.len());
    assert_eq!(record["nr_bufs"], ring.bufs.iter().flatten().count());
    assert_eq!(record["nr_files"], ring.nr_files);
    assert_eq!(record["nr_file_slots"], ring.nr_files);
    assert_eq!(record["pinned_bytes"], pinned_bytes(&ring.expected()));
    if way != Way::Fdinfo {
        assert_eq!(record["flags"], ring.flags);
        assert_eq!(record["creator_uid"], 0);
        assert_eq!(record["charged_uid"], Value::Null, "root is exempt");
    }
}

fn bufs_prints_what_was_registered() -> Outcome {
    let load = workload("--rings 3 --bufs 40 --len 4097 --offset 4000 --tag 123456 --files 2");
    for (option, label) in [("", "verified"), ("--locked", "locked"), ("--raw", "raw")] {
        if option == "--locked" && super::oracle::kernel() < (6, 13) {
            continue;
        }
        let args = format!("--pid {} --backend task-file {option}", load.pid());
        let all = records("bufs", &args);
        assert_eq!(all.len(), 3 * (1 + 40));
        for ring in &load.report().rings {
            let [head] = of_type(&all, "ring", ring)[..] else {
                panic!("one head a ring");
            };
            assert_eq!(head["consistency"], label);
            assert_eq!(head["backend"], "task-file");
            assert_ring(head, load.pid(), ring, Way::TaskFile);
            assert_bufs(&all, load.pid(), ring, false, Way::TaskFile);
        }
    }
    // One descriptor alone.
    let ring = &load.report().rings[1];
    let args = format!("--pid {} --fd {}", load.pid(), ring.fd.unwrap());
    let one = records("bufs", &args);
    assert_eq!(one.len(), 1 + 40);
    assert_bufs(&one, load.pid(), ring, false, Way::TaskFile);
    // And no option: all of the machine, this one among them.
    let ran = run("bufs", "--format json");
    let machine: Vec<Value> = ran
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_bufs(&machine, load.pid(), ring, false, Way::TaskFile);
    done()
}

fn bufs_shows_empty_slots_when_asked() -> Outcome {
    let load = workload("--rings 2 --sparse 100 --bufs 7 --len 50");
    for (option, all_slots) in [("", false), ("--all-slots", true)] {
        let args = format!("--pid {} --backend task-file {option}", load.pid());
        let all = records("bufs", &args);
        for ring in &load.report().rings {
            assert_bufs(&all, load.pid(), ring, all_slots, Way::TaskFile);
            assert_ring(
                of_type(&all, "ring", ring)[0],
                load.pid(),
                ring,
                Way::TaskFile,
            );
        }
    }
    done()
}

fn bufs_by_every_backend() -> Outcome {
    let load = workload("--rings 2 --bufs 5 --len 100 --offset 4090 --tag 8");
    for (backend, way) in [("task-file", Way::TaskFile), ("fdinfo", Way::Fdinfo)] {
        for (command, bufs) in [("bufs", 5), ("list", 0)] {
            let all = records(
                command,
                &format!("--pid {} --backend {backend}", load.pid()),
            );
            assert_eq!(all.len(), 2 * (1 + bufs));
            for ring in &load.report().rings {
                assert_ring(of_type(&all, "ring", ring)[0], load.pid(), ring, way);
                if bufs > 0 {
                    assert_bufs(&all, load.pid(), ring, false, way);
                }
            }
        }
    }
    done()
}

fn list_prints_every_ring() -> Outcome {
    let loads = [
        workload("--rings 3 --bufs 2 --len 9000 --files 4"),
        workload("--rings 2 --setup defer-taskrun --sparse 50 --bufs 5"),
    ];
    let check = |all: &[Value], load: &Workload| {
        for ring in &load.report().rings {
            let [record] = of_type(all, "ring", ring)[..] else {
                panic!("one line a ring");
            };
            assert_ring(record, load.pid(), ring, Way::TaskFile);
        }
    };
    for load in &loads {
        let all = records("list", &format!("--pid {}", load.pid()));
        assert_eq!(all.len(), load.report().rings.len());
        check(&all, load);
    }
    let ran = run("list", "--format json");
    assert!(ran.status.success(), "{ran:?}");
    let all: Vec<Value> = ran
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(all.iter().all(|record| record["type"] == "ring"));
    loads.iter().for_each(|load| check(&all, load));
    done()
}

/// `fd` is null, and the holder says how it holds the ring.
fn rings_without_a_descriptor() -> Outcome {
    for (option, via) in [("--no-fd", "registered"), ("--mapping-only", "mapping")] {
        let load = workload(&format!("--rings 1 --bufs 4 --len 10 --tag 6 {option}"));
        let report = &load.report().rings[0];
        let all = records("bufs", &format!("--pid {}", load.pid()));
        assert_eq!(all.len(), 1 + 4);
        let holder = &all[0]["holders"][0];
        assert_eq!(holder["via"], via);
        assert_eq!(holder["registered_index"], json!(report.registered_index));
        for (buf, want) in all[1..].iter().zip(report.expected().iter().flatten()) {
            assert_eq!(
                (&buf["pid"], &buf["fd"]),
                (&json!(load.pid()), &Value::Null)
            );
            assert_eq!(
                (&buf["addr"], &buf["tag"]),
                (&json!(want.addr), &json!(want.tag))
            );
        }
    }
    done()
}
