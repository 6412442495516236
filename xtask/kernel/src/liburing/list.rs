//! kernel/liburing: which source package it is, and which of its programs are
//! left out.

use std::fs;

use anyhow::{bail, Context as _, Result};

pub(super) const LIST: &str = "kernel/liburing";

/// What the file says.
#[derive(Debug)]
pub(super) struct List {
    pub(super) source: Source,
    /// Names and reasons.
    pub(super) without: Vec<(String, String)>,
}

/// A source package of Debian's.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) suite: String,
    pub(super) package: String,
    pub(super) version: String,
    /// Of its .dsc file, which holds those of the others.
    pub(super) sha256: String,
}

impl List {
    pub(super) fn read() -> Result<Self> {
        parse(&fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?)
    }
}

fn parse(text: &str) -> Result<List> {
    let lines = text.lines().map(str::trim);
    let (mut source, mut without) = (None, Vec::new());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["source", suite, package, version, sha256] if source.is_none() => {
                source = Some(Source {
                    suite: suite.to_owned(),
                    package: package.to_owned(),
                    version: version.to_owned(),
                    sha256: sha256.to_owned(),
                });
            }
            ["without", name, ref why @ ..] if !why.is_empty() => {
                without.push((name.to_owned(), why.join(" ")));
            }
            _ => bail!("{LIST}: neither the one source nor a program with a reason: {line}"),
        }
    }
    let source = source.with_context(|| format!("{LIST} names no source"))?;
    Ok(List { source, without })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_source_and_programs_with_reasons() {
        let list = parse("# x\nsource sid a 1-1 ab\n\nwithout b no  such device\n").unwrap();
        assert_eq!(list.source.version, "1-1");
        assert_eq!(list.without, [("b".into(), "no such device".into())]);
        for wrong in [
            "",
            "source sid a 1-1",
            "source s a 1 b\nwithout c",
            "with c d",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
