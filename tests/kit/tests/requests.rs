//! One request through each kind of ring, and its completion in time.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use uring_testkit::{BufSpec, Request, RingBuilder};

const LIMIT: Duration = Duration::from_secs(10);

fn kinds() -> [(&'static str, RingBuilder); 8] {
    let base = RingBuilder::new(8);
    [
        ("plain", base),
        ("COOP_TASKRUN", base.coop_taskrun()),
        ("SINGLE_ISSUER", base.single_issuer()),
        ("DEFER_TASKRUN", base.defer_taskrun()),
        ("SQPOLL", base.sqpoll(Duration::from_millis(5))),
        ("SQE128", base.sqe128()),
        ("CQE32", base.cqe32()),
        ("IOPOLL", base.iopoll()),
    ]
}

#[test]
fn a_read_through_every_kind_of_ring() {
    for (name, builder) in kinds() {
        let mut ring = builder.build().unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = File::open("/proc/self/exe").expect("open");
        // More than the queue has room for, so that it goes around.
        for turn in 0..20 {
            let request = Request::read(&file, 8).expect("memory");
            let request = if turn % 2 == 1 {
                request.by_worker()
            } else {
                request
            };
            let done = ring
                .run(request, LIMIT)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            if name == "IOPOLL" {
                // No direct I/O: nothing to poll for.
                assert!(
                    done.res == -libc::EOPNOTSUPP || done.res == -libc::EINVAL,
                    "{done:?}"
                );
                continue;
            }
            assert_eq!(done.res, 8, "{name}, turn {turn}");
            if turn == 0 {
                assert_eq!(done.bytes[..4], *b"\x7fELF", "{name}");
            }
        }
    }
}

#[test]
fn an_error_is_a_result() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    let directory = File::open("/").expect("open");
    let done = ring
        .run(Request::read(&directory, 8).expect("memory"), LIMIT)
        .expect("completion");
    assert_eq!(done.res, -libc::EISDIR);
    assert_eq!(
        done.result().unwrap_err().raw_os_error(),
        Some(libc::EISDIR)
    );
    assert!(done.bytes.is_empty());
}

#[test]
fn what_waits_is_given_up_in_time_and_comes_later() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    let ours = OwnedFd::from(ours);
    let start = Instant::now();
    let pending = ring
        .submit(Request::read(&ours, 4).expect("memory"))
        .expect("submit");
    let error = ring.wait(pending, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() < LIMIT);
    // The one given up is served too, in any order; its completion is passed over.
    let pending = ring
        .submit(Request::read(&ours, 4).expect("memory"))
        .expect("submit");
    theirs.write_all(b"onceonce").expect("write");
    let done = ring.wait(pending, LIMIT).expect("completion");
    assert_eq!(done.bytes, b"once");
}

#[test]
fn a_buffer_is_in_use_while_a_request_waits() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&[BufSpec::new(4096)]).expect("register");
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    let buf = ring.expected()[0].expect("filled");
    let pending = ring
        .submit(Request::read_fixed(&ours, 0, buf.addr, 16))
        .expect("submit");
    theirs.write_all(b"x").expect("write");
    assert_eq!(ring.wait(pending, LIMIT).expect("completion").res, 1);
    let outside = Request::read_fixed(&ours, 0, buf.addr + 1, 4096);
    let done = ring.run(outside, LIMIT).expect("completion");
    assert_eq!(
        done.res,
        -libc::EFAULT,
        "the kernel guards what is not registered"
    );
}
