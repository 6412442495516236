//! Reads the tables of one kind of ring after ring, or of epoll set after epoll set.

use crate::backend::select::NotOpened;
use crate::backend::{self, How, Reader, Record};
use crate::choice::{in_order, Backend, Refusal};
use crate::error::{Error, Result};
use crate::iter::options::Options;
use crate::locator::{Kind, Locator};
use crate::record::Snapshot;

/// The readers that were opened, by backend, each of which turns from one table to the
/// next.
pub(super) struct Tables<R: Record> {
    options: Options<R>,
    /// Those that were opened.
    readers: Vec<Box<dyn Reader<R>>>,
    /// Those that cannot serve, whatever is to be read.
    refused: Vec<Refusal>,
}

impl<R: Record> Tables<R> {
    pub(super) fn new(options: Options<R>) -> Self {
        Self {
            options,
            readers: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn options(&self) -> &Options<R> {
        &self.options
    }

    pub(super) fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// Reads one, by the best backend that can serve it.
    pub(super) fn read(&mut self, locator: Locator, how: How) -> Result<Snapshot<'_, R>> {
        let at = self.attach(locator)?;
        self.readers[at].read(how, 0, &self.options.retry)
    }

    /// The best reader for it, attached to it.
    fn attach(&mut self, locator: Locator) -> Result<usize> {
        let mut refused_it = Vec::new();
        let wanted = self.options.backend;
        for &backend in in_order(&wanted) {
            if self.refused.iter().any(|known| known.backend == backend) {
                continue;
            }
            match self.attach_by(backend, &locator) {
                Ok(at) => return Ok(at),
                Err(NotOpened::Failed(error)) => return Err(error),
                Err(NotOpened::Refused(reason)) => {
                    let of_it = backend == Backend::Native && reason.is_of_one_ring();
                    let list = match of_it {
                        true => &mut refused_it,
                        false => &mut self.refused,
                    };
                    list.push(Refusal { backend, reason });
                }
            }
        }
        let mut refusals = std::mem::take(&mut self.refused);
        refusals.append(&mut refused_it);
        Err(Error::NoBackend { refusals })
    }

    fn attach_by(&mut self, backend: Backend, locator: &Locator) -> Result<usize, NotOpened> {
        let known = self
            .readers
            .iter()
            .position(|reader| reader.backend() == backend);
        match known {
            // The same words may mean another epoll set by now.
            Some(at) if locator.kind == Kind::Ring && self.readers[at].locator() == locator => {
                Ok(at)
            }
            Some(at) => self.readers[at].attach(locator.clone()).map(|()| at),
            None => {
                let reader = backend::open(R::TABLE, backend, locator.clone())?;
                self.readers.push(reader);
                Ok(self.readers.len() - 1)
            }
        }
    }
}
