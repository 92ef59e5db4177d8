//! A table, for a terminal and for a page.

use std::fmt::Write as _;

/// Rows of text under a title.
#[derive(Clone, Debug)]
pub(super) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    note: String,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), note: String::new() }
    }

    /// Adds a row with as many cells as there are columns.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// What has to be known to read it; stands below.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.note = text.into();
    }

    /// For a terminal: columns as wide as their widest cell.
    pub(super) fn as_text(&self) -> String {
        let cells = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            cells().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in cells() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "  {cell:<width$}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "  ({})", self.note);
        }
        text
    }

    /// For a page, in Markdown.
    pub(super) fn as_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.columns.len()));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        let mut text = format!("## {}\n\n{}{rule}{rows}", self.title, line(&self.columns));
        if !self.note.is_empty() {
            let _ = write!(text, "\n{}.\n", self.note);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Sizes", &["MiB", "time"]);
        table.row(["1".to_owned(), "2.00".to_owned()]);
        table.row(["1024".to_owned(), "–".to_owned()]);
        table
    }

    #[test]
    fn columns_line_up_on_a_terminal() {
        assert_eq!(table().as_text(), "Sizes\n  MiB   time\n  1     2.00\n  1024  –\n");
    }

    #[test]
    fn a_page_gets_a_heading_a_rule_and_the_note() {
        let mut table = table();
        table.note("once");
        let expected = "## Sizes\n\n| MiB | time |\n|---|---|\n| 1 | 2.00 |\n| 1024 | – |\n\nonce.\n";
        assert_eq!(table.as_markdown(), expected);
    }
}
