//! Tables without lines, for a terminal and for awk.

use std::io::{self, Write};

use comfy_table::{presets, CellAlignment, ColumnConstraint, ContentArrangement};

pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns, those in `right` aligned to the right.
    pub(crate) fn new<const N: usize>(header: [&str; N], right: &[usize]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header);
        for &column in right {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    pub(crate) fn add(&mut self, row: impl Into<comfy_table::Row>) {
        self.0.add_row(row);
    }

    pub(crate) fn hide(&mut self, column: usize) {
        if let Some(column) = self.0.column_mut(column) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.0.trim_fmt())
    }

    /// Prints it below the line that says what it belongs to.
    pub(crate) fn print_indented(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.0.trim_fmt().lines() {
            writeln!(out, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}
