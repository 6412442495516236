//! The texts in a file: paragraphs of Markdown; of Rust, the documentation and the
//! string literals. Code in them is masked.

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sentences.
    Prose,
    /// A heading, or a row of a table.
    Label,
}

/// A paragraph, in one line.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) kind: Kind,
    pub(super) words: String,
    /// Where in the words each line of the file begins, and its number.
    lines: Vec<(usize, usize)>,
}

impl Text {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            words: String::new(),
            lines: Vec::new(),
        }
    }

    fn add(&mut self, number: usize, words: &str) {
        if !self.words.is_empty() {
            self.words.push(' ');
        }
        self.lines.push((self.words.len(), number));
        self.words.push_str(words);
    }

    /// The number of the line that has this byte.
    pub(super) fn line_of(&self, at: usize) -> usize {
        let before = self.lines.iter().take_while(|(start, _)| *start <= at);
        before.last().map_or(0, |(_, number)| *number)
    }

    /// The same with each `piece of code` as one long word.
    fn masked(mut self) -> Self {
        let mut inside = false;
        let mask = |c: char| {
            inside ^= c == '`';
            // As many bytes as before, for the numbers of lines.
            let x = "x".repeat(c.len_utf8());
            if inside || c == '`' {
                x
            } else {
                c.to_string()
            }
        };
        if self.words.matches('`').count() % 2 == 0 {
            self.words = self.words.chars().map(mask).collect();
        }
        self
    }
}

/// The texts of a document.
pub(super) fn of_markdown(text: &str) -> Vec<Text> {
    paragraphs((1..).zip(text.lines()))
}

/// Puts lines together to paragraphs, and leaves blocks of code out.
fn paragraphs<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Text> {
    let mut all = Vec::new();
    let mut fence = None;
    let mut now = Text::new(Kind::Prose);
    for (number, line) in lines {
        let line = line.trim();
        let is_fence = line.starts_with("```") || line.starts_with("~~~");
        match (&fence, is_fence) {
            (None, true) => fence = Some(&line[..3]),
            (Some(begin), true) if line.starts_with(begin) => fence = None,
            _ => {}
        }
        let is_label = line.starts_with('#') || line.starts_with('|');
        let (marker, rest) = line.split_once(' ').unwrap_or((line, ""));
        let is_item = ["-", "*", ">"].contains(&marker)
            || marker
                .strip_suffix('.')
                .is_some_and(|number| number.parse::<u32>().is_ok());
        let left_out = is_fence || fence.is_some() || line.starts_with("<!--");
        if line.is_empty() || is_label || is_item || left_out {
            all.push(std::mem::replace(&mut now, Text::new(Kind::Prose)));
        }
        match () {
            () if left_out => {}
            () if is_label => {
                let mut label = Text::new(Kind::Label);
                label.add(number, line);
                all.push(label);
            }
            () if is_item => now.add(number, rest.trim()),
            () if line.is_empty() => {}
            () => now.add(number, line),
        }
    }
    all.push(now);
    all.retain(|text| !text.words.is_empty());
    all.into_iter().map(Text::masked).collect()
}

/// The texts of a source, without its unit tests.
pub(super) fn of_rust(source: &str) -> Vec<Text> {
    let source = source
        .split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap_or(source);
    let mut all = Vec::new();
    let mut block = Vec::new();
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim();
        match line.strip_prefix("///").or(line.strip_prefix("//!")) {
            Some(text) if !text.starts_with('/') => block.push((number, text)),
            _ => all.extend(paragraphs(block.drain(..))),
        }
    }
    all.extend(paragraphs(block.drain(..)));
    all.extend(literals(source));
    all
}

/// The string literals of a source.
fn literals(source: &str) -> Vec<Text> {
    let mut all = Vec::new();
    let mut number = 1;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let literal = if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        } else if c == '"' {
            Some((&rest[1..], "\"".to_owned()))
        } else {
            raw(rest)
        };
        let Some((inside, close)) = literal else {
            // A quote as a character opens nothing.
            let step = match ["'\"'", "'\\\"'"].iter().find(|it| rest.starts_with(**it)) {
                Some(quote) => quote.len(),
                None => c.len_utf8(),
            };
            number += usize::from(c == '\n');
            rest = &rest[step..];
            continue;
        };
        let end = end_of(inside, &close);
        let literal = &inside[..end];
        let mut text = Text::new(Kind::Prose);
        for (number, line) in (number..).zip(literal.split('\n')) {
            let line = line.trim().trim_end_matches('\\').replace("\\n", " ");
            text.add(number, line.replace("\\\"", "\"").trim());
        }
        all.push(text.masked());
        number += literal.matches('\n').count();
        rest = inside[end..].strip_prefix(&*close).unwrap_or_default();
    }
    all
}

/// What follows the opening of a raw string, and what closes it.
fn raw(rest: &str) -> Option<(&str, String)> {
    let hashes = rest.strip_prefix('r')?;
    let inside = hashes.trim_start_matches('#');
    let count = hashes.len() - inside.len();
    let inside = inside.strip_prefix('"')?;
    Some((inside, format!("\"{}", "#".repeat(count))))
}

/// Where a literal ends.
fn end_of(inside: &str, close: &str) -> usize {
    let mut from = 0;
    loop {
        let Some(at) = inside[from..].find(close) else {
            return inside.len();
        };
        let at = from + at;
        let escapes = inside[..at]
            .bytes()
            .rev()
            .take_while(|b| *b == b'\\')
            .count();
        if close.len() > 1 || escapes % 2 == 0 {
            return at;
        }
        from = at + 1;
    }
}
