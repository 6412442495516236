//! The report: what criterion has measured in this run, as one table in Markdown,
//! and what was told beside. It is printed, and written to a file with the plot.

use std::fmt::Write as _;
use std::fs;

use crate::bench::{Bench, Measured, Result, Table};
use crate::median::Median;
use crate::plot;

pub(crate) fn finish(bench: &Bench) -> Result<()> {
    if bench.once {
        for line in &bench.left_out {
            println!("left out: {line}");
        }
        println!("each was right, and ran once: nothing was measured");
        return Ok(());
    }
    let medians = bench
        .measured
        .iter()
        .map(|of| Median::read(of, &bench.home))
        .collect::<Result<Vec<_>>>()?;
    fs::create_dir_all(&bench.folder)?;
    let file = |extension: &str| {
        bench
            .folder
            .join(format!("{}.{extension}", bench.machine.kernel))
    };
    let plotted = plot::draw(&medians, &bench.machine, &file("svg"))?;
    let mut text = head(bench);
    if !medians.is_empty() {
        write_rows(&mut text, &rows(&medians))?;
    }
    if plotted {
        let kernel = &bench.machine.kernel;
        writeln!(text, "\n![time against number]({kernel}.svg)")?;
    }
    for Table { title, rows } in &bench.tables {
        writeln!(text, "\n{title}:\n")?;
        write_rows(&mut text, rows)?;
    }
    for (title, lines) in [("Peers", &bench.notes), ("Left out", &bench.left_out)] {
        if !lines.is_empty() {
            writeln!(text, "\n{title}:\n")?;
        }
        for line in lines {
            writeln!(text, "- {line}")?;
        }
    }
    fs::write(file("md"), &text)?;
    println!(
        "\n{text}\nwritten to {}",
        file("md").canonicalize()?.display()
    );
    Ok(())
}

fn head(bench: &Bench) -> String {
    let machine = &bench.machine;
    let emulated = match machine.is_emulated() {
        true => " The processor is emulated: times say little, ratios something.",
        false => "",
    };
    format!(
        "Linux {}, {}, {} processors, load {} at the start.{emulated} \
         Medians of one run, and how many times as fast as the peer:\n\n",
        machine.kernel, machine.cpu, machine.cpus, machine.load
    )
}

fn rows(medians: &[Median<'_>]) -> Vec<Vec<String>> {
    let words = [
        "what",
        "number",
        "by",
        "median",
        "peer",
        "its median",
        "times as fast",
    ];
    let mut rows = vec![words.map(str::to_owned).to_vec()];
    for median in medians {
        let Measured { case, name, peer } = median.of;
        if name == peer {
            continue;
        }
        let same = |other: &&Median<'_>| {
            let of = other.of;
            (of.case.group, of.case.items, of.name) == (case.group, case.items, peer)
        };
        let unit = match case.each {
            true => format!("/{}", case.item),
            false => String::new(),
        };
        let told = |median: &Median<'_>| format!("{}{unit}", time(median.told()));
        let mut row = vec![
            case.group.to_owned(),
            format!("{} {}", case.items, plural(case.item, case.items)),
            (*name).to_owned(),
            told(median),
            (*peer).to_owned(),
        ];
        // A filter may have left it out.
        row.extend(match medians.iter().find(same) {
            Some(other) => [told(other), ratio(other.ns / median.ns)],
            None => ["not measured".to_owned(), String::new()],
        });
        rows.push(row);
    }
    rows
}

/// A table whose columns line up also where nobody renders it. The first row is
/// the heading.
fn write_rows(text: &mut String, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (i, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "| {cell:<width$} ")?;
        }
        text.push_str("|\n");
        if i == 0 {
            for width in &widths {
                write!(text, "|{:-<1$}", "", width + 2)?;
            }
            text.push_str("|\n");
        }
    }
    Ok(())
}

fn plural(item: &str, number: usize) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{item}{s}")
}

fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 0.1 => format!("{ratio:.4}"),
        ratio if ratio < 10.0 => format!("{ratio:.2}"),
        ratio => format!("{ratio:.1}"),
    }
}

/// Three digits, in the unit that they fit.
fn time(ns: f64) -> String {
    match ns {
        ns if ns < 100.0 => format!("{ns:.1} ns"),
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
