//! What the types promise to the compiler.

use std::error;
use std::fmt;

use uring_bpf_iter::{
    Backend, BufFields, BufPages, Charged, Consistency, Contention, Descriptors, Direction,
    EpollEvents, EpollItem, EpollIter, Error, FileIdentity, FileKind, Holder, Link, LinkInfo,
    LockOwner, Options, Pinned, Queue, Reason, Records, Refusal, RegisteredBuf, RegisteredFile,
    Retry, Ring, RingFinder, Segment, Selection, SetupFlags, Snapshot, SqPoll, Survey, Unseen,
    UringBufIter, UringFileIter, Via,
};

use super::{done, Outcome};

trials![send_and_sync, an_iterator_goes_to_another_thread];

fn send_sync_debug<T: Send + Sync + fmt::Debug>() {}
fn source<T: error::Error + Send + Sync + 'static>() {}

fn send_and_sync() -> Outcome {
    send_sync_debug::<UringBufIter>();
    send_sync_debug::<(UringFileIter, Descriptors, RegisteredFile)>();
    send_sync_debug::<(FileIdentity, FileKind)>();
    send_sync_debug::<(Link<RegisteredBuf>, LinkInfo, Records<RegisteredBuf>)>();
    send_sync_debug::<EpollIter>();
    send_sync_debug::<(EpollItem, EpollEvents, Snapshot<'_, EpollItem>)>();
    send_sync_debug::<(Link<EpollItem>, Options<EpollItem>)>();
    send_sync_debug::<(BufPages, Segment, Snapshot<'_, Segment>)>();
    send_sync_debug::<RingFinder>();
    send_sync_debug::<Options>();
    send_sync_debug::<Snapshot<'_>>();
    send_sync_debug::<(RegisteredBuf, BufFields, Direction, Consistency)>();
    send_sync_debug::<(Ring, Holder, Via, Queue, SqPoll, Pinned, Charged)>();
    send_sync_debug::<(SetupFlags, Survey, Unseen)>();
    send_sync_debug::<(Backend, Reason, Refusal, Selection)>();
    send_sync_debug::<(Error, Contention, LockOwner, Retry)>();
    source::<Error>();
    done()
}

/// What the compiler takes, the kernel takes too.
fn an_iterator_goes_to_another_thread() -> Outcome {
    let mut ring = uring_testkit::RingBuilder::new(8).build()?;
    ring.register(&[uring_testkit::BufSpec::new(10); 20])?;
    for way in super::oracle::Way::all() {
        let mut iter = super::oracle::attach(way, std::process::id(), ring.raw_fd());
        std::thread::scope(|scope| {
            scope.spawn(|| super::oracle::assert_reads(way, &mut iter, ring.expected()));
        });
        super::oracle::assert_reads(way, &mut iter, ring.expected());
    }
    done()
}
