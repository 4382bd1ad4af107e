//! Columns of text.

use comfy_table::{ContentArrangement, presets};

/// A heading and rows; columns are as wide as their widest cell, two spaces apart, and never wrapped, so that each
/// row is one line for grep.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(headings);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    /// Adds a row. Control characters would break the line, or worse the terminal: they become `?`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells.map(|cell| printable(&cell)));
    }

    /// The lines, each with its end.
    pub(crate) fn render(&self) -> String {
        self.0
            .lines()
            .map(|line| line.trim_end().to_string() + "\n")
            .collect()
    }
}

/// A text that cannot move the cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
