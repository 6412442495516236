//! JSON output: one object a line.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// A line: `type` first, then the keys of its parts, which have none in common.
pub(crate) struct Line(Vec<u8>);

impl Line {
    pub(crate) fn new(kind: &str) -> Self {
        Self(format!(r#"{{"type":"{kind}""#).into())
    }

    /// Adds the keys of a part.
    pub(crate) fn with(mut self, part: impl Serialize) -> io::Result<Self> {
        self.add(part)?;
        Ok(self)
    }

    pub(crate) fn print(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.end(out)
    }

    /// Prints it with the keys of one more part; the next line begins as it did.
    pub(crate) fn print_with(
        &mut self,
        part: impl Serialize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let begun = self.0.len();
        let printed = self.add(part).and_then(|()| self.end(out));
        self.0.truncate(begun);
        printed
    }

    /// The keys of the object that a part is, without what encloses them.
    fn add(&mut self, part: impl Serialize) -> io::Result<()> {
        let at = self.0.len();
        serde_json::to_writer(&mut self.0, &part)?;
        match &mut self.0[at..] {
            [b'{', b'}'] => self.0.truncate(at),
            [open @ b'{', .., b'}'] => {
                *open = b',';
                self.0.pop();
            }
            _ => return Err(io::Error::other("a part of a line is not a JSON object")),
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.0.extend_from_slice(b"}\n");
        out.write_all(&self.0)
    }
}

/// Milliseconds since 1970.
pub(crate) fn time_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_the_keys_of_all_its_parts() {
        let mut out = Vec::new();
        let mut line = Line::new("a").with(json!({"b": [1, {}]})).unwrap();
        line.print_with(json!({"c": "}"}), &mut out).unwrap();
        line.print_with(json!({}), &mut out).unwrap();
        line.with(json!({"d": {}}))
            .unwrap()
            .print(&mut out)
            .unwrap();
        let lines = [
            r#"{"type":"a","b":[1,{}],"c":"}"}"#,
            r#"{"type":"a","b":[1,{}]}"#,
            r#"{"type":"a","b":[1,{}],"d":{}}"#,
        ];
        let lines = lines.map(|line| format!("{line}\n")).concat();
        assert_eq!(String::from_utf8(out).unwrap(), lines);
    }

    #[test]
    fn what_is_no_object_is_no_part() {
        let mut line = Line::new("a");
        for part in [json!([1]), json!("{}"), json!(null)] {
            assert!(line.print_with(part, &mut io::sink()).is_err());
        }
    }
}
