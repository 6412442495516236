//! A median, as criterion has written it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bench::{Measured, Result};

/// A measured median.
pub(crate) struct Median<'a> {
    pub(crate) of: &'a Measured,
    /// Of one look.
    pub(crate) ns: f64,
}

impl<'a> Median<'a> {
    /// That of a candidate, from criterion's folder.
    pub(crate) fn read(of: &'a Measured, home: &Path) -> Result<Self> {
        let path = of.estimates(home);
        let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let estimates: Value = serde_json::from_slice(&text)?;
        let ns = estimates["median"]["point_estimate"].as_f64();
        let ns = ns.ok_or_else(|| format!("{} has no median", path.display()))?;
        Ok(Self { of, ns })
    }

    /// Of what is told: an item, or a look.
    pub(crate) fn told(&self) -> f64 {
        match self.of.case.each {
            true => self.ns / self.of.case.items as f64,
            false => self.ns,
        }
    }
}
