//! An iterator of one who may not know page frame numbers, read by one who may: as a
//! set-user-ID program reads it that was given it as standard input.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::thread::{capabilities, CapabilitySet};
use uring_bpf_iter::BufPages;
use uring_testkit::{own_links, page_frames, BpfArray, BufSpec, IterLink, RingBuilder, TestRing};

use super::inner::{self, MODE};
use super::oracle::{status, Way};
use super::results::skip;
use super::run::{for_everyone, NOBODY};
use super::{done, Outcome};

trials![a_set_user_id_program_finds_no_frame_number];

/// Where the set-user-ID program lies, in a mount namespace of the trial.
const PROGRAM: &str = "/mnt/suite-as-root";

/// In a place where set-user-ID programs run as their owner, which $TMPDIR may not be: a
/// copy of this program that is root's. Then the rest of the arguments.
const SCRIPT: &str = r#"mount -t tmpfs -o mode=755 none /mnt
    cp "$1" "$0"; chmod 4755 "$0"; shift; exec "$@""#;

/// A user with the capabilities to load programs, and no other.
fn as_loader() -> Command {
    // CAP_PERFMON and CAP_BPF, include/uapi/linux/capability.h
    const CAPS: &str = "-all,+cap_38,+cap_39";
    let me = std::env::current_exe().expect("my own path");
    let nobody = NOBODY.to_string();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", SCRIPT, PROGRAM])
        .arg(&me)
        .args(["setpriv", "--reuid", &nobody, "--regid", &nobody])
        .args(["--clear-groups", "--inh-caps", CAPS])
        .args(["--ambient-caps", CAPS, "--"])
        .arg(for_everyone(&me))
        .current_dir("/")
        .env_remove(super::results::FILE);
    command
}

fn a_set_user_id_program_finds_no_frame_number() -> Outcome {
    if status(std::process::id(), "NoNewPrivs") == "1" {
        return skip("this run is such that set-user-ID programs have no effect (NoNewPrivs)");
    }
    let said = inner::expect_done(as_loader().env(MODE, "hands-on"));
    if said.contains("handed on: 0") {
        return skip(
            "this kernel's backends look by system calls, and there is nothing to hand on",
        );
    }
    print!("{said}");
    done()
}

/// The set-user-ID program.
pub(super) fn inside_reader() {
    assert!(rustix::process::geteuid().is_root());
    assert!(!rustix::process::getuid().is_root());
    let has = capabilities(None).expect("capabilities").effective;
    assert!(has.contains(CapabilitySet::SYS_ADMIN), "{has:?}");
    let mut read = Vec::new();
    match io::stdin().read_to_end(&mut read) {
        Ok(_) => {}
        // The program has put all into its map, and has the kernel stop.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        Err(e) => panic!("read: {e}"),
    }
    println!("root has read {} bytes", read.len());
}

/// The one link that is not among these.
fn new_link(before: &[u32]) -> Option<IterLink> {
    let mut links = own_links().expect("links").into_iter();
    let is_new = |link: &IterLink| !before.contains(&link.info().expect("info").id);
    links.find(is_new)
}

fn the_array(name: &str) -> BpfArray {
    let mut found = BpfArray::own(name).expect("maps");
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// `struct segment` in bpf/record.h: frame number and length.
fn segment(bytes: &[u8]) -> (u64, u32) {
    let pfn = u64::from_ne_bytes(bytes[8..16].try_into().expect("eight bytes"));
    let len = u32::from_ne_bytes(bytes[20..24].try_into().expect("four bytes"));
    (pfn, len)
}

/// The user.
pub(super) fn inside_loader() {
    const LEN: usize = 20_000;
    assert!(!rustix::process::geteuid().is_root());
    let ours = capabilities(None).expect("capabilities").effective;
    assert_eq!(ours, CapabilitySet::BPF | CapabilitySet::PERFMON);
    let mut ring = RingBuilder::new(8).build().expect("a ring");
    ring.register_sparse(1).expect("register");
    let buf = |ring: &mut TestRing, len| {
        let spec = BufSpec::new(len).at(100);
        ring.update(0, &[Some(spec)]).expect("update");
        ring.expected()[0].expect("a buffer")
    };
    let first = buf(&mut ring, LEN);
    page_frames(first.addr, first.len).expect_err("no frame numbers");
    let mut handed_on = 0;
    for way in Way::all().filter(|way| matches!(way, Way::Native | Way::TaskFile)) {
        buf(&mut ring, LEN);
        let before: Vec<u32> = own_links()
            .expect("links")
            .iter()
            .map(|link| link.info().expect("info").id)
            .collect();
        let options = BufPages::options().backend(way.backend());
        let mut pages = options.attach(&ring).expect("attach");
        let seen = pages.segments(0).expect("segments");
        let lens: u32 = seen.iter().map(|one| one.len()).sum();
        assert_eq!(lens as usize, LEN, "{way:?}");
        assert!(seen.iter().all(|one| one.pfn().is_none()), "{way:?}");
        let Some(link) = new_link(&before) else {
            // From 6.10 on it looks by a system call, without an iterator.
            assert_eq!(way, Way::TaskFile);
            continue;
        };
        // Another buffer, so that it is known who has read.
        buf(&mut ring, 2 * LEN);
        the_array(".bss.reply").clear(0).expect("clear");
        let session = link.open().expect("a session");
        let session: OwnedFd = session.as_fd().try_clone_to_owned().expect("dup");
        let mut reader = Command::new(PROGRAM);
        let reader = reader.env(MODE, "standard-input").stdin(session);
        let ran = reader.stdout(Stdio::piped()).output().expect("run");
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success() && said.contains("root has read 0 bytes"),
            "{ran:?}"
        );

        let (records, mut lens) = (the_array("records"), 0);
        for at in 0.. {
            let (pfn, len) = segment(&records.read(at).expect("a record"));
            assert_eq!(pfn, 0, "{way:?}: the frame of page {at}");
            lens += len as usize;
            if lens >= 2 * LEN {
                break;
            }
        }
        assert_eq!(lens, 2 * LEN, "{way:?}");
        handed_on += 1;
    }
    println!("handed on: {handed_on} iterators");
}
