//! Chooses a backend: tries each in turn and keeps what each one lacked.

use crate::choice::{in_order, Backend, Reason, Refusal, Selection};
use crate::error::{Error, Result};

/// Why a candidate did not open: it cannot serve here, or something failed that
/// would fail with every backend.
#[derive(Debug)]
pub(crate) enum NotOpened {
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
    wanted: Option<Backend>,
    mut open: impl FnMut(Backend) -> Result<T, NotOpened>,
) -> Result<(T, Selection)> {
    let mut refused = Vec::new();
    for &backend in in_order(&wanted) {
        match open(backend) {
            Ok(opened) => return Ok((opened, Selection { backend, refused })),
            Err(NotOpened::Refused(reason)) => refused.push(Refusal { backend, reason }),
            Err(NotOpened::Failed(error)) => return Err(error),
        }
    }
    Err(Error::NoBackend { refusals: refused })
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
    fn without_a_wish_it_takes_the_best_that_works_and_says_why() {
        let (opened, selection) = select(None, refuse).unwrap();
        assert_eq!(opened, Backend::Fdinfo);
        assert_eq!(selection.backend, Backend::Fdinfo);
        let refused: Vec<_> = selection.refused.iter().map(|r| r.backend).collect();
        assert_eq!(refused, [Backend::Native, Backend::TaskFile]);
    }

    #[test]
    fn a_backend_that_was_asked_for_has_no_stand_in() {
        let error = select(Some(Backend::TaskFile), refuse).unwrap_err();
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
        let error = select::<()>(None, |_| {
            Err(NotOpened::Failed(Error::NoSuchProcess { pid: 7 }))
        })
        .unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { pid: 7 }), "{error}");
    }
}
