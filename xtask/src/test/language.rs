//! The step that keeps texts in plain English: what users read is searched for forms
//! that a native reader stumbles over. The forms are in `language/forms.rs`.

mod forms;
mod texts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use regex_lite::Regex;
use xtask_base::workspace;

use super::Outcome::{self, Passed};
use forms::{Form, Where, FORMS};
use texts::{Kind, Text};

/// Markdown that is read, where it is there.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "kernel/README.md",
    "benches/seen/README.md",
    "tools/README.md",
    "checkpoint/README.md",
];

/// Folders whose Rust sources are read, where they are there: their documentation and
/// their string literals.
const SOURCES: [&str; 4] = ["src", "tools", "examples", "checkpoint"];

pub(super) fn check() -> Result<Outcome> {
    let forms = compiled()?;
    let mut counts = BTreeMap::new();
    for (path, text) in all()? {
        for text in &text {
            for (line, found, form) in hits(&forms, text) {
                println!("{}:{line}: \"{found}\": {}", path.display(), form.hint);
                *counts.entry(path.clone()).or_insert(0_usize) += 1;
            }
        }
    }
    if counts.is_empty() {
        println!("{} forms, and none was found", FORMS.len());
        return Ok(Passed);
    }
    let lines = counts
        .iter()
        .map(|(path, count)| format!("{count:>5}  {}", path.display()));
    bail!(
        "{} places are not plain English:\n{}",
        counts.values().sum::<usize>(),
        lines.collect::<Vec<_>>().join("\n")
    );
}

/// All texts, file by file.
fn all() -> Result<Vec<(PathBuf, Vec<Text>)>> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut all = Vec::new();
    for path in DOCUMENTS.map(PathBuf::from) {
        if path.exists() {
            let text = texts::of_markdown(&read(&path)?);
            all.push((path, text));
        }
    }
    for folder in SOURCES.map(Path::new) {
        if folder.exists() {
            for path in workspace::sources_in(folder)? {
                let text = texts::of_rust(&read(&path)?);
                all.push((path, text));
            }
        }
    }
    Ok(all)
}

/// A form, with its patterns ready for use.
struct Compiled {
    form: &'static Form,
    find: Regex,
    allowed: Option<Regex>,
}

fn compiled() -> Result<Vec<Compiled>> {
    let forms = FORMS.iter().map(|form| {
        let begin = match form.place {
            Where::Anywhere => "",
            Where::SentenceStart => "(?:^|[.!?] )",
        };
        let cannot = || format!("not a pattern: {}", form.find);
        Ok(Compiled {
            form,
            find: Regex::new(&format!("{begin}(?:{})", form.find)).with_context(cannot)?,
            allowed: match form.allowed {
                "" => None,
                allowed => Some(Regex::new(allowed).with_context(cannot)?),
            },
        })
    });
    forms.collect()
}

/// Where a text has one of the forms: the line, the words, the form.
fn hits<'a>(forms: &'a [Compiled], text: &'a Text) -> Vec<(usize, &'a str, &'static Form)> {
    let mut hits = Vec::new();
    for Compiled {
        form,
        find,
        allowed,
    } in forms
    {
        if form.place == Where::SentenceStart && text.kind == Kind::Label {
            continue;
        }
        for found in find.find_iter(&text.words) {
            let words = found.as_str().trim_start_matches(['.', '!', '?', ' ']);
            if allowed
                .as_ref()
                .is_some_and(|allowed| allowed.is_match(words))
            {
                continue;
            }
            // A question may begin so.
            let rest = &text.words[found.end()..];
            let end = rest.find(['.', '!', '?']).map(|at| &rest[at..]);
            if form.place == Where::SentenceStart && end.is_some_and(|end| end.starts_with('?')) {
                continue;
            }
            hits.push((text.line_of(found.end() - 1), words, *form));
        }
    }
    hits.sort_by_key(|(line, ..)| *line);
    hits
}

#[cfg(test)]
mod tests {
    use super::{compiled, hits, texts, FORMS};

    /// The hints for a text.
    fn hints(text: &str) -> Vec<&'static str> {
        let forms = compiled().unwrap();
        let texts = texts::of_markdown(text);
        let found = texts.iter().flat_map(|text| {
            let hits = hits(&forms, text).into_iter();
            hits.map(|(_, _, form)| form.hint).collect::<Vec<_>>()
        });
        found.collect()
    }

    #[test]
    fn each_form_is_found_and_its_neighbour_is_not() {
        for form in FORMS {
            assert_eq!(hints(form.hit), [form.hint], "{}", form.hit);
            assert!(hints(form.passes).is_empty(), "{}", form.passes);
        }
    }

    #[test]
    fn questions_headings_and_code_are_free() {
        assert!(hints("What does it cost? Nothing.").is_empty());
        assert!(hints("## What it costs\n").is_empty());
        assert!(hints("| What it costs | Who pays |\n").is_empty());
        assert!(hints("```\nthis is no link\n```\n").is_empty());
        assert_eq!(hints("It ends. Who reads it waits.").len(), 1);
        assert_eq!(hints("The file is no\n`io_uring`.").len(), 1);
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let forms = compiled().unwrap();
        let lines = |text: &[texts::Text]| {
            let found = text.iter().flat_map(|text| hits(&forms, text));
            found.map(|(line, ..)| line).collect::<Vec<_>>()
        };
        let document = texts::of_markdown("a\n\nb c\nit is no link\n\n- it is\n  no link\n");
        assert_eq!(lines(&document), [4, 7]);
        let source = "//! a\n//! it is no link\n\nfn f() {\n    // it is no link\n    \
                      let a = 'x'; g(\"a \\\n      is no link\", r#\"is no link\"#);\n}\n\
                      #[cfg(test)]\nmod tests { const X: &str = \"is no link\"; }\n";
        assert_eq!(lines(&texts::of_rust(source)), [2, 7, 7]);
    }
}
