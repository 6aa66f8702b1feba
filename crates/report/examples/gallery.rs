//! Draws heat maps of many shapes into a directory, as SVG and PNG, to look at:
//! `cargo run -p causalcone-report --example gallery -- /tmp/figures`.

use causalcone_files::write_whole;
use causalcone_report::terminal::{Colour, Style, render};
use causalcone_report::{Axis, Centre, Facet, HeatMap, Scale, Tick, text};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("which directory?")?);
    std::fs::create_dir_all(&directory)?;
    for (name, map) in gallery() {
        let (svg, png) = (map.to_svg()?, map.to_png(1.5)?);
        write_whole(directory.join(format!("{name}.svg")), |w| w.write_all(svg.as_bytes()))?;
        write_whole(directory.join(format!("{name}.png")), |w| w.write_all(&png))?;
        for (kind, colour) in [("plain", Colour::None), ("256", Colour::Ansi256), ("true", Colour::TrueColor)]
        {
            let style = Style { colour, width: 100, max_rows: Some(48) };
            let shown = render(&map, &style)?;
            write_whole(directory.join(format!("{name}.{kind}.txt")), |w| w.write_all(shown.as_bytes()))?;
        }
    }
    Ok(())
}

fn gallery() -> Vec<(&'static str, HeatMap)> {
    let spain = ["The", " capital", " of", " Spain", " is"];
    let text = "When Mary and John went to the store after the concert, John gave a bottle of milk to Mary because \
                she had asked him for one in the morning before they left the house together on their way to the \
                old market square by the river, and then they all walked home, singing internationalisation songs";
    let words: Vec<String> = text
        .split_inclusive(' ')
        .scan(String::new(), |space, word| {
            let token = format!("{space}{}", word.trim_end());
            " ".clone_into(space);
            Some(token)
        })
        .collect();
    let long: Vec<&str> = words.iter().map(String::as_str).cycle().take(60).collect();
    let mut three = map(
        "The Eiffel Tower is in the city of Paris, and the Colosseum is in",
        80,
        &long[..15],
        &[" Rome", " Paris", " London"],
    );
    three.scale = Scale::Diverging(Centre::ZERO);
    three.value_label = "logit difference".to_owned();
    for (index, facet) in three.facets.iter_mut().enumerate() {
        for value in facet.values.iter_mut().flatten() {
            *value = (*value - 0.12) * [9.0, -6.0, 3.0][index];
        }
    }
    let odd = [
        " ",
        "\n\n",
        "\t",
        "<script>&\"",
        "\u{1b}[31mred",
        " a very long token indeed",
        "é",
        "漢字",
        "🙂",
        "\u{202e}",
    ];
    let mut holes = map(
        "Odd tokens, and cells without a value: a title that is much too long for such a small figure and is wrapped",
        12,
        &odd,
        &[" <b>&"],
    );
    for (index, value) in holes.facets[0].values.iter_mut().enumerate() {
        if index % 7 == 3 || index < 20 {
            *value = None;
        }
    }
    let many: Vec<&str> = long.iter().copied().cycle().take(1000).collect();
    let mut wide = map("One thousand positions", 4, &many, &[" the"]);
    wide.subtitle = None;
    let facets = [" Rome", " Paris", " London", " Madrid", " Berlin", " Lisbon", " Vienna"];
    let mut tiny = map("Tiny", 1, &spain[..3], &[" Rome"]);
    tiny.subtitle = None;
    let mut one = map("One cell", 1, &spain[..1], &[" Rome"]);
    one.y.ticks.truncate(1);
    one.facets[0].values = vec![Some(0.5)];
    let mut ones = map("Numbered positions", 12, &long[..30], &[" Rome"]);
    for tick in &mut ones.x.ticks {
        tick.token = None;
    }
    vec![
        ("spain", map("The capital of Spain is", 30, &spain, &[" Rome", " Madrid"])),
        ("long", map("When Mary and John went to the store", 12, &long, &[" Mary"])),
        ("three", three),
        ("tiny", tiny),
        ("one", one),
        ("odd", holes),
        ("wide", wide),
        ("facets", map("Seven facets", 12, &spain, &facets)),
        ("numbered", ones),
    ]
}

/// Something like a patching sweep of two sites a layer.
fn map(title: &str, layers: usize, tokens: &[&str], facets: &[&str]) -> HeatMap {
    let rows: Vec<String> =
        (0..layers).flat_map(|layer| [format!("attn_o{layer}"), format!("mlp_o{layer}")]).collect();
    let value = |facet: usize, row: usize, column: usize| {
        let depth = row as f64 / rows.len() as f64;
        let place = (column as f64 + 0.5) / tokens.len() as f64;
        let bump =
            (-((depth - 0.3 - 0.2 * facet as f64).powi(2) * 18.0 + (place - 0.7).powi(2) * 30.0)).exp();
        let last = if column + 1 == tokens.len() { (depth - 0.5).max(0.0) } else { 0.0 };
        let stripe = if row.is_multiple_of(2) { 0.75 } else { 1.0 };
        Some((0.4 * bump * stripe + last + 0.01).min(0.62))
    };
    let values = |facet| {
        let cells = (0..rows.len()).flat_map(|row| (0..tokens.len()).map(move |column| (row, column)));
        cells.map(|(row, column)| value(facet, row, column)).collect()
    };
    HeatMap {
        title: title.to_owned(),
        subtitle: Some(
            "smollm2 · attention_output and mlp_output replaced by those of “The capital of Italy is”"
                .to_owned(),
        ),
        x: Axis {
            label: "position".to_owned(),
            ticks: tokens.iter().enumerate().map(|(i, token)| Tick::token(i.to_string(), *token)).collect(),
        },
        y: Axis { label: "site and layer".to_owned(), ticks: rows.iter().map(Tick::new).collect() },
        facets: facets
            .iter()
            .enumerate()
            .map(|(i, title)| Facet { title: text::token(title), values: values(i), ..Facet::default() })
            .collect(),
        value_label: "probability".to_owned(),
        scale: Scale::FromZero,
    }
}
