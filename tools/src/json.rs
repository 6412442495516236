//! JSON output: one object a line.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

/// One line: `type` first, then the keys of its parts.
pub(crate) struct Line(Map<String, Value>);

impl Line {
    pub(crate) fn new(kind: &str) -> Self {
        Self(Map::from_iter([("type".into(), kind.into())]))
    }

    /// Adds the keys of a part; those that are there already stay as they are.
    pub(crate) fn with(mut self, part: impl Serialize) -> io::Result<Self> {
        if let Value::Object(keys) = serde_json::to_value(part)? {
            for (key, value) in keys {
                self.0.entry(key).or_insert(value);
            }
        }
        Ok(self)
    }

    pub(crate) fn print(self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", Value::Object(self.0))
    }
}

/// Milliseconds since 1970.
pub(crate) fn time_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
