//! Chooses a backend: tries each in turn and keeps what each one lacked.

use crate::choice::{Backend, Reason, Refusal, Selection};
use crate::error::{Error, Result};

/// Why a candidate did not open: it cannot serve here, or something else
/// went wrong that no other backend would mend.
pub enum NotOpened {
    Refused(Reason),
    Failed(Error),
}

impl NotOpened {
    /// The error, where only this backend may serve.
    pub(crate) fn of(self, backend: Backend) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Refused(reason) => Error::NoBackend {
                refusals: vec![Refusal { backend, reason }],
            },
        }
    }
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Opens the backend that was asked for, or the first that can serve.
pub(crate) fn select<T>(
    wanted: Backend,
    mut open: impl FnMut(Backend) -> Result<T, NotOpened>,
) -> Result<(T, Selection)> {
    let order: &[Backend] = match &wanted {
        Backend::Auto => &[Backend::Native, Backend::TaskFile, Backend::Fdinfo],
        one => std::slice::from_ref(one),
    };
    let mut refused = Vec::new();
    for &backend in order {
        match open(backend) {
            Ok(opened) => return Ok((opened, Selection { backend, refused })),
            Err(NotOpened::Refused(reason)) => refused.push(Refusal { backend, reason }),
            Err(NotOpened::Failed(error)) => return Err(error),
        }
    }
    Err(Error::NoBackend { refusals: refused })
}

/// Fdinfo needs a /proc that shows our own pid namespace.
pub(crate) fn check_proc() -> Result<(), Reason> {
    let own = std::process::id().to_string();
    match std::fs::read_link("/proc/self") {
        Ok(shown) if shown.as_os_str() == own.as_str() => Ok(()),
        _ => Err(Reason::WrongProc),
    }
}

#[cfg(not(feature = "bpf"))]
pub(crate) fn refuse_bpf() -> Reason {
    Reason::NotBuilt("this build has the feature `bpf` switched off")
}

/// What BPF needs, looked at before anything is loaded, so that each lack is
/// told apart. EPERM from the kernel is never taken for "not supported".
#[cfg(feature = "bpf")]
pub(crate) fn check_bpf() -> Result<(), Reason> {
    use rustix::thread::CapabilitySet;

    let have = rustix::thread::capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or(CapabilitySet::empty());
    if !have.contains(CapabilitySet::SYS_ADMIN) {
        let missing: Vec<&str> = [
            (CapabilitySet::BPF, "CAP_BPF"),
            (CapabilitySet::PERFMON, "CAP_PERFMON"),
        ]
        .into_iter()
        .filter(|(cap, _)| !have.contains(*cap))
        .map(|(_, name)| name)
        .collect();
        if !missing.is_empty() {
            return Err(Reason::MissingCapability(missing.join(" and ")));
        }
    }
    if !std::path::Path::new(crate::choice::BTF).exists() {
        return Err(Reason::MissingBtf);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(backend: Backend) -> Result<Backend, NotOpened> {
        match backend {
            Backend::Fdinfo => Ok(backend),
            _ => Err(NotOpened::Refused(Reason::MissingBtf)),
        }
    }

    #[test]
    fn auto_takes_the_best_that_works_and_says_why() {
        let (opened, selection) = select(Backend::Auto, refuse).unwrap();
        assert_eq!(opened, Backend::Fdinfo);
        assert_eq!(selection.backend, Backend::Fdinfo);
        let refused: Vec<_> = selection.refused.iter().map(|r| r.backend).collect();
        assert_eq!(refused, [Backend::Native, Backend::TaskFile]);
    }

    #[test]
    fn a_backend_asked_for_by_name_has_no_stand_in() {
        let error = select(Backend::TaskFile, refuse).unwrap_err();
        let Error::NoBackend { refusals } = &error else {
            panic!("{error}");
        };
        assert_eq!(refusals.len(), 1);
        assert!(
            error.to_string().contains("CONFIG_DEBUG_INFO_BTF"),
            "{error}"
        );
    }

    #[test]
    fn a_failure_is_not_taken_for_a_refusal() {
        let error = select::<()>(Backend::Auto, |_| {
            Err(NotOpened::Failed(Error::NoSuchProcess { pid: 7 }))
        })
        .unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { pid: 7 }), "{error}");
    }
}
