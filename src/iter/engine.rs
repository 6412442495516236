//! Who reads the table for an iterator, and how each is asked.

use crate::backend::{fdinfo, ReadText};
use crate::choice::Backend;
use crate::error::Result;
use crate::record::Dumped;
use crate::record::Snapshot;
use crate::retry::Retry;

#[cfg(feature = "bpf")]
use crate::backend::locked::Locked;
#[cfg(feature = "bpf")]
use crate::backend::native::Native;
#[cfg(feature = "bpf")]
use crate::backend::task_file::{owner, Walker};
#[cfg(feature = "bpf")]
use crate::error::{Contention, Error};
#[cfg(feature = "bpf")]
use crate::record::Consistency;
#[cfg(feature = "bpf")]
use crate::record::{wire::Mode, BufFields};

pub(super) enum Engine<R: Dumped> {
    /// The walker is opened when a look without the lock is wanted.
    #[cfg(feature = "bpf")]
    Native(Box<(Native<R>, Option<Walker<R>>)>),
    #[cfg(feature = "bpf")]
    TaskFile(Box<(Walker<R>, Locked<R>)>),
    Fdinfo(Box<dyn ReadText<R>>),
}

#[cfg(feature = "bpf")]
pub(super) fn walk<R: Dumped>(
    walker: &mut Walker<R>,
    retry: Retry,
    mode: Mode,
    which: u64,
) -> Result<Snapshot<'_, R>> {
    let name = walker.address().name();
    let (nr, attempts) = retry.run(&name, || {
        let walked = walker.walk(mode, which)?;
        // Without the lock it may come upon memory that was freed and used anew.
        let torn = |nr: usize| mode == Mode::Raw && walker.records(nr).is_err();
        Ok(match walked {
            Ok(nr) if torn(nr) => Err(Contention::Changed),
            walked => walked,
        })
    })?;
    Ok(Snapshot {
        records: walker.records(nr)?,
        consistency: match mode {
            Mode::Raw => Consistency::Raw,
            _ => Consistency::Verified,
        },
        backend: Backend::TaskFile,
        unknown: BufFields::empty(),
        attempts,
    })
}

/// For what the native iterator cannot do.
#[cfg(feature = "bpf")]
pub(super) fn walker_of<R: Dumped>(
    (native, walker): &mut (Native<R>, Option<Walker<R>>),
) -> Result<&mut Walker<R>> {
    Ok(match walker {
        Some(walker) => walker,
        None => {
            let opened = Walker::open(native.address().clone());
            walker.insert(opened.map_err(|e| e.of(Backend::TaskFile))?)
        }
    })
}

#[cfg(feature = "bpf")]
pub(super) fn read_native<R: Dumped>(
    engine: &mut (Native<R>, Option<Walker<R>>),
    retry: Retry,
    which: u64,
) -> Result<Snapshot<'_, R>> {
    let name = engine.0.address().name();
    match retry.run(&name, || engine.0.read(which)) {
        Ok((nr, attempts)) => Ok(Snapshot {
            records: engine.0.records(nr)?,
            consistency: Consistency::Locked,
            backend: Backend::Native,
            unknown: BufFields::empty(),
            attempts,
        }),
        Err(mut error) => {
            // EDEADLK does not say by whom. Who cannot be asked stays unnamed.
            if let Error::Contended {
                why: why @ Contention::LockHeldUnseen,
                ..
            } = &mut error
            {
                let look = walker_of(engine).and_then(|walker| walker.look(Mode::Peek, which));
                if let Ok(reply) = look {
                    *why = Contention::LockHeld(owner(&reply));
                }
            }
            Err(error)
        }
    }
}

pub(super) fn read_text<R>(reader: &mut dyn ReadText<R>, retry: Retry) -> Result<Snapshot<'_, R>> {
    let (consistency, attempts) = retry.run(&reader.name(), || reader.read())?;
    Ok(Snapshot {
        records: reader.records(),
        consistency,
        backend: Backend::Fdinfo,
        unknown: fdinfo::UNKNOWN,
        attempts,
    })
}
