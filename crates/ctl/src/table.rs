//! Columns as `kubectl` prints them: left-aligned, two spaces apart, no borders.

/// What a cell's colour says, where colours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// On its way, or worth a look.
    Uneasy,
}

/// Text and its tone.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.to_string(),
            tone: Tone::Plain,
        }
    }
}

/// Makes a row of anything that can be shown.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($crate::table::Cell::from($cell)),*] };
}
pub(crate) use row;

/// A header and rows of the same length.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// Lines of text. An empty cell shows as `-`, so that columns can be counted by programs.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut widths: Vec<usize> = self
            .header
            .iter()
            .map(|title| title.chars().count())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count().max(1));
            }
        }
        let mut out = String::new();
        let header = self.header.iter().map(|title| (*title, Tone::Plain));
        line(&mut out, &widths, header, false);
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                (
                    if cell.text.is_empty() {
                        "-"
                    } else {
                        cell.text.as_str()
                    },
                    cell.tone,
                )
            });
            line(&mut out, &widths, cells, colour);
        }
        out
    }
}

fn line<'a>(
    out: &mut String,
    widths: &[usize],
    cells: impl Iterator<Item = (&'a str, Tone)>,
    colour: bool,
) {
    let mut gap = 0;
    for (width, (text, tone)) in widths.iter().zip(cells) {
        out.extend(std::iter::repeat_n(' ', gap));
        out.push_str(&paint(text, tone, colour));
        // Nothing to the right of the last cell: a long error shouldn't wrap for the sake of blanks.
        gap = width.saturating_sub(text.chars().count()) + 2;
    }
    out.push('\n');
}

/// Text in its tone's colour (ECMA-48 SGR).
pub(crate) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Good => 32,
        Tone::Bad => 31,
        Tone::Uneasy => 33,
        Tone::Plain => return text.to_owned(),
    };
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_align_and_empty_cells_show() {
        let mut table = Table::new(&["NAME", "STATE", "WHY"]);
        table.push(row!["a-long-name", Cell::toned("up", Tone::Good), ""]);
        table.push(row!["ß", Cell::toned("down", Tone::Bad), "because"]);
        expect![[r"
            NAME         STATE  WHY
            a-long-name  up     -
            ß            down   because
        "]]
        .assert_eq(&table.render(false));
        expect!["\u{1b}[32mup\u{1b}[0m     -"].assert_eq(
            table
                .render(true)
                .lines()
                .nth(1)
                .unwrap()
                .trim_start_matches("a-long-name  "),
        );
    }
}
