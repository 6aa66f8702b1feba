//! A page of results: figures, tables and texts in one HTML file that needs no other and runs nothing.
//!
//! Every text on it is escaped, and what a terminal or a browser would obey is written out.
//!
//! ```
//! use causalcone_report::page::{Page, PagePart, Passage, Piece, Section};
//!
//! let said = Passage {
//!     name: "scale 2".to_owned(),
//!     lead: "The capital of Spain is".to_owned(),
//!     pieces: vec![Piece { text: " Rome <b>".to_owned(), shade: 0.8, hint: "KL 3.1".to_owned() }],
//!     ..Passage::default()
//! };
//! let page = Page {
//!     title: "Steered texts".to_owned(),
//!     subtitle: None,
//!     sections: vec![Section { title: String::new(), parts: vec![PagePart::Passage(said)] }],
//! };
//! assert!(page.to_html()?.contains(" Rome &lt;b&gt;"));
//! # Ok::<(), causalcone_report::Error>(())
//! ```

use crate::{Error, text};
use minijinja::Environment;
use serde::{Serialize, Serializer};

/// A page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// What it is of.
    pub title: String,
    /// More about it.
    pub subtitle: Option<String>,
    /// Its parts under headings.
    pub sections: Vec<Section>,
}

/// Parts under a heading.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Section {
    /// The heading; none where it is empty.
    pub title: String,
    /// What is under it.
    pub parts: Vec<PagePart>,
}

/// One thing on a page.
#[derive(Debug, Clone, Serialize)]
pub enum PagePart {
    /// A paragraph.
    Note(String),
    /// An SVG document, as [`Chart::to_svg`](crate::Chart::to_svg) and [`HeatMap::to_svg`](crate::HeatMap::to_svg)
    /// make it: the one thing that is not escaped.
    Figure(String),
    /// A table.
    Grid(Grid),
    /// A text.
    Passage(Passage),
}

/// A table of texts; all but the first column are numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Grid {
    /// The names of its columns.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// A text beside what it is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Passage {
    /// What it is.
    pub name: String,
    /// More about it, line by line.
    pub about: Vec<String>,
    /// What it follows, in grey.
    pub lead: String,
    /// The text.
    pub pieces: Vec<Piece>,
    /// What comes after it, in grey.
    pub end: String,
}

/// PagePart of a text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Piece {
    /// What it says.
    pub text: String,
    /// How much it is marked, from 0 to 1; what is no number is not.
    #[serde(rename = "alpha", serialize_with = "alpha")]
    pub shade: f64,
    /// What is shown of it when it is pointed at.
    pub hint: String,
}

impl Page {
    /// The page as an HTML document, the same every time.
    ///
    /// # Errors
    /// [`Error::Picture`] if the page cannot be filled in, which is a defect.
    pub fn to_html(&self) -> Result<String, Error> {
        let defect = |e: minijinja::Error| Error::Picture { message: e.to_string() };
        // The name says that what is filled in is escaped.
        let mut environment = Environment::new();
        environment.add_template("page.html", include_str!("page.html")).map_err(defect)?;
        let page =
            environment.get_template("page.html").and_then(|page| page.render(self)).map_err(defect)?;
        Ok(page.split('\n').map(text::prose).collect::<Vec<_>>().join("\n"))
    }
}

/// Two digits, or nothing where they are zeros.
fn alpha<S: Serializer>(shade: &f64, to: S) -> Result<S::Ok, S::Error> {
    let shown = format!("{:.2}", if shade.is_nan() { 0.0 } else { shade.clamp(0.0, 1.0) });
    to.serialize_str(if shown == "0.00" { "" } else { &shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chart, Panel, Series};

    #[test]
    fn a_page_shows_all_of_its_parts() {
        let points = vec![(0.0, 1.0), (1.0, 2.0)];
        let panel = Panel { series: vec![Series { name: "kl".into(), points }], ..Panel::default() };
        let figure =
            Chart { title: "moved".into(), panels: vec![panel], ..Chart::default() }.to_svg().unwrap();
        let page = Page {
            title: "Steering & more".into(),
            subtitle: Some("smollm2".into()),
            sections: vec![
                Section {
                    title: "Numbers".into(),
                    parts: vec![
                        PagePart::Note("A note.".into()),
                        PagePart::Figure(figure.clone()),
                        PagePart::Grid(Grid { head: vec!["scale".into()], rows: vec![vec!["2".into()]] }),
                    ],
                },
                Section {
                    title: "Texts\nof two lines".into(),
                    parts: vec![PagePart::Passage(Passage {
                        name: "scale 2".into(),
                        about: vec!["perplexity 8".into()],
                        lead: "The".into(),
                        pieces: vec![
                            Piece { text: " end\n".into(), shade: 0.256, hint: "a \"hint\"".into() },
                            Piece { text: ".".into(), shade: f64::NAN, hint: String::new() },
                        ],
                        end: "[2 tokens]".into(),
                    })],
                },
            ],
        };
        let html = page.to_html().unwrap();
        assert_eq!(html, page.to_html().unwrap());
        for shown in [
            "<title>Steering &amp; more</title>",
            "<p class=\"under\">smollm2</p>",
            "<h2>Numbers</h2>",
            "<p>A note.</p>",
            figure.as_str(),
            "<tr><th>scale</th></tr>",
            "<tr><td>2</td></tr>",
            "<h2>Texts\nof two lines</h2>",
            "<b>scale 2</b><br>perplexity 8",
            "<span class=\"lead\">The</span>",
            "<span style=\"background:rgba(213,94,0,0.26)\" title=\"a &quot;hint&quot;\"> end\n</span>",
            "<span>.</span>",
            "<span class=\"end\">[2 tokens]</span>",
        ] {
            assert!(html.contains(shown), "no {shown:?} in {html}");
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let bad = "</span><script>alert('1')</script>\"&\u{1b}\u{0}{{ title }}";
        let passage = Passage {
            name: bad.into(),
            about: vec![bad.into()],
            lead: bad.into(),
            pieces: vec![Piece { text: bad.into(), shade: 1.0, hint: bad.into() }],
            end: bad.into(),
        };
        let grid = Grid { head: vec![bad.into()], rows: vec![vec![bad.into()]] };
        let parts = vec![PagePart::Note(bad.into()), PagePart::Grid(grid), PagePart::Passage(passage)];
        let page = Page {
            title: bad.into(),
            subtitle: Some(bad.into()),
            sections: vec![Section { title: bad.into(), parts }],
        };
        let html = page.to_html().unwrap();
        assert!(!html.contains("<script") && !html.contains('\u{1b}') && !html.contains('\u{0}'), "{html}");
        assert!(!html.contains("alert('"), "an attribute may end early: {html}");
    }
}
