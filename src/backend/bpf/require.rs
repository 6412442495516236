//! The needs of BPF, checked before anything is loaded, so that each lack is told
//! apart. EPERM from the kernel is never taken for "not supported".

use std::path::Path;

use rustix::thread::{capabilities, CapabilitySet};

use crate::backend::bpf::btf;
use crate::backend::bpf::table::Table;
use crate::backend::select::NotOpened;
use crate::choice::{Capability, Reason, BTF};
use crate::error::Error;

/// The needs of every program of ours.
pub(crate) fn bpf() -> Result<(), NotOpened> {
    let have = capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or(CapabilitySet::empty());
    if !have.contains(CapabilitySet::SYS_ADMIN) {
        let mut missing = vec![
            (CapabilitySet::BPF, Capability::Bpf),
            (CapabilitySet::PERFMON, Capability::Perfmon),
        ];
        missing.retain(|(bit, _)| !have.contains(*bit));
        if !missing.is_empty() {
            let names = missing.into_iter().map(|(_, name)| name).collect();
            return Err(NotOpened::Refused(Reason::MissingCapability(names)));
        }
    }
    if !Path::new(BTF).exists() {
        return Err(NotOpened::Refused(Reason::MissingBtf));
    }
    Ok(())
}

/// The needs of the native iterator of a table.
pub(crate) fn native<R>(table: &Table<R>) -> Result<(), NotOpened> {
    bpf()?;
    match btf::has_target(table.target) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotOpened::Refused(Reason::MissingTarget(
            table.target.to_str().unwrap_or("?"),
        ))),
        Err(e) => Err(match e.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                NotOpened::Failed(Error::os("read the kernel's BTF", e))
            }
            // Hidden, or not there: another backend may do without it.
            _ => NotOpened::Refused(Reason::UnreadableBtf(e)),
        }),
    }
}
