//! Reads the paths of a ring's registered files from its fdinfo.

use std::path::PathBuf;

use crate::backend::fdinfo::bufs::Source;
use crate::backend::fdinfo::proc::prints_under_lock;
use crate::backend::fdinfo::text::{paths, Text};
use crate::choice::Backend;
use crate::error::{Contention, Error, Limitation, Missed, Operation, Result};
use crate::locator::Locator;
use crate::retry::Retry;

/// One for each slot: `None` for an empty one, and for a file without a path.
pub(crate) fn of_ring(locator: Locator, retry: &Retry) -> Result<Vec<Option<PathBuf>>> {
    if !prints_under_lock() {
        return Err(Error::Unsupported {
            backend: Backend::Fdinfo,
            what: Operation::TellPath,
            why: Limitation::NamesOnly,
        });
    }
    let mut source = Source::open(locator).map_err(|e| e.of(Backend::Fdinfo))?;
    let name = source.locator.name();
    let (mut text, mut bufs) = (Vec::new(), Vec::new());
    let read = || match source.read(&mut text, std::mem::take(&mut bufs))? {
        Text::Bare { .. } => Err(Missed::Busy(Contention::LockHeldUnseen)),
        Text::Ring(ring) => {
            let list = paths(&text[ring.files], ring.nr_files);
            let wrong =
                || Error::malformed("the fdinfo of a ring", "a list of files of another form");
            Ok(list.ok_or_else(wrong)?)
        }
    };
    let (paths, _attempts) = retry.run(name, read)?;
    Ok(paths)
}
