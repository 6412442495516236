//! The pages of registered buffers: `uringctl bufs --pages`.

use std::io::Write;

use serde::Serialize;
use serde_json::json;
use uring_bpf_iter::{BufPages, Error, RegisteredBuf, Ring, Segment};

use crate::args::{Format, Rings};
use crate::exit::Stop;
use crate::json::Line;
use crate::rings::{RingKey, LOCK_LIMIT};
use crate::run::Run;
use crate::table::Table;
use crate::text::{count, human, or_unknown};

/// Reads the pages of one ring's buffers after the other's.
#[derive(Default)]
pub(crate) struct Pages {
    iter: Option<BufPages>,
}

impl Pages {
    /// Attaches to this ring. A loaded program also serves the next ring,
    /// where it can.
    pub(crate) fn of<'a>(
        &'a mut self,
        args: &'a Rings,
        ring: &Ring,
    ) -> Result<RingPages<'a>, Error> {
        let loaded = self.iter.take();
        let turned = loaded.and_then(|mut iter| iter.reattach(ring).is_ok().then_some(iter));
        let options = BufPages::options().backend(args.common.backend());
        let iter = turned.map_or_else(|| options.attach_ring(ring), Ok)?;
        Ok(RingPages {
            args,
            key: args.key(ring),
            iter: self.iter.insert(iter),
        })
    }
}

/// The pages of the buffers of one ring.
pub(crate) struct RingPages<'a> {
    args: &'a Rings,
    key: RingKey,
    iter: &'a mut BufPages,
}

impl RingPages<'_> {
    /// Prints those of one buffer.
    pub(crate) fn print(
        &mut self,
        run: &mut Run,
        buf: &RegisteredBuf,
        out: &mut dyn Write,
    ) -> Result<(), Stop> {
        let segments = if self.args.locked {
            self.iter.segments_locked(buf.index(), LOCK_LIMIT)
        } else if self.args.common.raw {
            self.iter.segments_raw(buf.index())
        } else {
            self.iter.segments(buf.index())
        };
        let Some(segments) = run.noted(segments) else {
            return Ok(());
        };
        match self.args.common.format {
            Format::Json => print_json(self.key, buf, &segments, out),
            Format::Table => print_table(buf, &segments, out),
        }
    }
}

fn print_json(
    key: RingKey,
    buf: &RegisteredBuf,
    segments: &[Segment],
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let line = Line::new("segment").with(key)?;
    let mut line = line.with(json!({"index": buf.index()}))?;
    for (number, segment) in segments.iter().enumerate() {
        line.print_with(Numbered { number, segment }, out)?;
    }
    Ok(())
}

/// The keys of a segment.
#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(rename = "segment")]
    number: usize,
    #[serde(flatten)]
    segment: &'a Segment,
}

fn print_table(buf: &RegisteredBuf, segments: &[Segment], out: &mut dyn Write) -> Result<(), Stop> {
    let runs = contiguous(segments, buf.page_size());
    let pages = runs.iter().map(|run| run.pages).sum::<u64>() as usize;
    writeln!(
        out,
        "  buffer {}: {} in {}",
        buf.index(),
        count(pages, "page"),
        count(runs.len(), "run"),
    )?;
    let mut table = Table::new(["PFN", "PAGES", "OFFSET", "LENGTH"], &[0, 1, 2, 3]);
    for run in &runs {
        table.add([
            or_unknown(run.pfn.map(|pfn| format!("{pfn:#x}"))),
            run.pages.to_string(),
            run.offset.to_string(),
            human(run.len),
        ]);
    }
    Ok(table.print_indented(out)?)
}

/// Segments that follow one another in memory.
struct Contiguous {
    pfn: Option<u64>,
    pages: u64,
    offset: u32,
    len: u64,
}

/// Where page frame numbers are not shown, all is one run.
fn contiguous(segments: &[Segment], page_size: u64) -> Vec<Contiguous> {
    let mut runs: Vec<Contiguous> = Vec::new();
    for segment in segments {
        match runs.last_mut() {
            Some(run)
                if segment.pfn() == run.pfn.map(|pfn| pfn + run.pages)
                    && u64::from(run.offset) + run.len == run.pages * page_size
                    && segment.offset() == 0 =>
            {
                run.pages += segment.nr_pages();
                run.len += u64::from(segment.len());
            }
            _ => runs.push(Contiguous {
                pfn: segment.pfn(),
                pages: segment.nr_pages(),
                offset: segment.offset(),
                len: segment.len().into(),
            }),
        }
    }
    runs
}
