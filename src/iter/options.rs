//! The choices for an iterator, before it is attached.

use std::fmt;
use std::marker::PhantomData;

use crate::backend::{self, select, Reader, Table};
use crate::choice::{Backend, Selection};
use crate::error::Result;
use crate::locator::Locator;
use crate::record::{Plain, RegisteredBuf};
use crate::retry::Retry;

/// The choices for an iterator over records `R`, before it is attached.
#[derive(PartialEq, Eq, Hash)]
#[must_use]
pub struct Options<R = RegisteredBuf> {
    pub(super) backend: Option<Backend>,
    pub(super) retry: Retry,
    _record: PhantomData<fn() -> R>,
}

impl<R> Options<R> {
    pub(crate) fn new() -> Self {
        Self {
            backend: None,
            retry: Retry::default(),
            _record: PhantomData,
        }
    }

    /// Sets the backend; `None`, the default, is the best that works here.
    pub fn backend(self, backend: impl Into<Option<Backend>>) -> Self {
        Self {
            backend: backend.into(),
            ..self
        }
    }

    /// Sets the bounds of trying for a consistent view.
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Opens a reader of this table, as it was chosen.
    pub(super) fn open(
        self,
        table: &'static Table<R>,
        locator: Locator,
    ) -> Result<(Box<dyn Reader<R>>, Selection, Retry)>
    where
        R: Plain,
    {
        let open = |backend| backend::open(table, backend, locator.clone());
        let (reader, selection) = select::select(self.backend, open)?;
        Ok((reader, selection, self.retry))
    }
}

// Not derived: that would ask the same of `R`.
impl<R> Clone for Options<R> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<R> fmt::Debug for Options<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("backend", &self.backend)
            .field("retry", &self.retry)
            .finish()
    }
}
