use super::*;
use crate::colour::{DIVERGING, SEQUENTIAL};
use crate::{Axis, Centre, Tick};
use proptest::prelude::*;

/// A map with as many rows and columns; the values rise from 0 to 1.
fn map(rows: usize, columns: usize, facets: &[&str]) -> HeatMap {
    let most = (rows * columns - 1).max(1) as f64;
    let values: Vec<Option<f64>> = (0..rows * columns).map(|cell| Some(cell as f64 / most)).collect();
    let facet =
        |title: &&str| Facet { title: (*title).to_owned(), values: values.clone(), ..Facet::default() };
    HeatMap {
        title: String::new(),
        subtitle: None,
        x: Axis { label: String::new(), ticks: (0..columns).map(|i| Tick::new(i.to_string())).collect() },
        y: Axis { label: "site".to_owned(), ticks: (0..rows).map(|i| Tick::new(format!("r{i}"))).collect() },
        facets: facets.iter().map(facet).collect(),
        value_label: "prob".to_owned(),
        scale: Scale::FromZero,
    }
}

fn shown(map: &HeatMap, colour: Colour, width: usize) -> String {
    render(map, &Style { colour, width, max_rows: None }).unwrap()
}

#[test]
fn the_environment_chooses_the_colours() {
    use Colour::{Ansi256, None, TrueColor};
    type Variables = &'static [(&'static str, &'static str)];
    let cases: [(bool, Variables, Colour); 14] = [
        (true, &[], Ansi256),
        (false, &[], None),
        (true, &[("NO_COLOR", "1")], None),
        (true, &[("NO_COLOR", "")], Ansi256),
        (true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], None),
        (false, &[("CLICOLOR_FORCE", "1")], Ansi256),
        (false, &[("CLICOLOR_FORCE", "0")], None),
        (true, &[("CLICOLOR", "0")], None),
        (true, &[("TERM", "dumb"), ("COLORTERM", "truecolor")], None),
        (true, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], Ansi256),
        (true, &[("TERM", "xterm"), ("COLORTERM", "truecolor")], TrueColor),
        (true, &[("COLORTERM", "24bit")], TrueColor),
        (true, &[("COLORTERM", "yes")], Ansi256),
        (false, &[("COLORTERM", "truecolor")], None),
    ];
    for (is_terminal, variables, expected) in cases {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(Colour::from_env(is_terminal, lookup), expected, "{is_terminal} {variables:?}");
    }
}

#[test]
fn numbers_stand_in_for_colours() {
    let mut map = map(2, 2, &["a", "b"]);
    map.facets[1].values = vec![Some(-0.004), Some(-0.25), None, Some(12.5)];
    let text = "\
\u{20}  a              b
r1    .67  1.00        · 12.50
r0    .00   .33      .00  -.25
        0     1        0     1

rows: site
prob: -0.25 to 12.5
· no value
";
    assert_eq!(shown(&map, Colour::None, 80), text);
}

#[test]
fn shades_stand_in_where_numbers_are_too_wide() {
    let map = map(1, 16, &["a"]);
    let text = "   a\nr0       ░░░░░░▒▒▒▒▒▒▓▓▓▓▓▓████████\n   0 1 2 3 4 5 6 7 8 9 10  12  14\n\n";
    assert!(shown(&map, Colour::None, 40).starts_with(text), "{}", shown(&map, Colour::None, 40));
}

#[test]
fn shades_of_a_diverging_scale_tell_the_signs_apart() {
    let shades = [0.0, 0.3, 0.5, 0.7, 1.0].map(|fraction| shade(Scale::Diverging(Centre::ZERO), fraction));
    assert_eq!(shades, ['=', '-', ' ', '+', '#']);
}

#[test]
fn cells_have_the_colours_of_the_picture() {
    let mut map = map(1, 2, &[""]);
    map.facets[0].values = vec![Some(1.0), None];
    let [red, green, blue] = SEQUENTIAL.at(1.0).0;
    let line = format!("r0 \x1b[48;2;{red};{green};{blue}m  \x1b[0m· \x1b[0m\n   0 1\n");
    assert!(shown(&map, Colour::TrueColor, 80).starts_with(&line));
    map.scale = Scale::Diverging(Centre::ZERO);
    let line = format!("r0 \x1b[48;5;{}m  \x1b[0m· \x1b[0m\n", DIVERGING.xterm_at(1.0));
    assert!(shown(&map, Colour::Ansi256, 80).starts_with(&line));
}

#[test]
fn the_middle_of_a_diverging_scale_is_in_the_notes() {
    let mut map = map(1, 2, &[""]);
    map.scale = Scale::Diverging(Centre { value: 0.75, name: "unedited" });
    let text = shown(&map, Colour::None, 80);
    assert!(text.contains("\nprob: 0 to 1.5\nunedited: 0.75, the middle of the scale\n"), "{text}");
}

#[test]
fn facets_stand_beside_each_other_where_there_is_room() {
    let map = map(1, 4, &["a", "b", "c"]);
    let titles = |width| {
        let text = shown(&map, Colour::Ansi256, width);
        text.lines().filter(|line| line.starts_with("   ") && line.contains(['a', 'b', 'c'])).count()
    };
    assert_eq!([33, 32].map(titles), [1, 2]); // 3 for labels, 3 × 8 for cells, 2 × 3 between them
}

#[test]
fn columns_that_do_not_fit_go_on_below() {
    let map = map(2, 100, &["a"]);
    let text = shown(&map, Colour::Ansi256, 60);
    let cells: usize = text
        .lines()
        .filter(|line| line.starts_with("r0 ") || line.starts_with("r1 "))
        .map(|line| shown_columns(line) - 3)
        .sum();
    assert_eq!(cells, 200);
    assert_eq!(text.lines().filter(|line| line.starts_with("r1 ")).count(), 2);
    let painted = text.matches("48;5;").count() - 20; // less the bar's
    assert_eq!(painted, 200);
}

#[test]
fn rows_are_thinned_on_demand() {
    let style = Style { colour: Colour::None, width: 80, max_rows: Some(5) };
    let text = render(&map(10, 1, &[""]), &style).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with('r') && !line.starts_with("rows"))
        .map(|line| &line[..2])
        .collect();
    assert_eq!(rows, ["r9", "r6", "r3", "r0"]); // every third: every second would show one of two sites
    assert!(text.ends_with("4 of 10 rows are shown\n"));
}

#[test]
fn short_numbers() {
    for (value, text) in [
        (0.0, ".00"),
        (0.375, ".38"),
        (-0.375, "-.38"),
        (-0.001, ".00"),
        (0.999, "1.00"),
        (-1.5, "-1.50"),
        (1234.5, "1234.50"),
        (1e9, "1e9"),
    ] {
        assert_eq!(short_number(value), text, "{value}");
    }
}

#[test]
fn a_figure_that_cannot_be_drawn_is_refused() {
    let style = Style { colour: Colour::None, width: 80, max_rows: None };
    assert!(matches!(render(&map(1, 1, &[]), &style), Err(Error::EmptyFigure { .. })));
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z 漢🙂\\x1b\\n]{0,40}", any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_map_fits_and_sends_only_colours(
        (rows, columns, facets) in (1..20_usize, 1..90_usize, 1..4_usize),
        labels in prop::collection::vec(label(), 6),
        magnitude in prop::sample::select(vec![1.0, -1.0, 1e-300, 1e300]),
        colour in prop::sample::select(vec![Colour::None, Colour::Ansi256, Colour::TrueColor]),
        width in 0..130_usize,
    ) {
        let mut map = map(rows, columns, &vec![labels[0].as_str(); facets]);
        map.title = labels[1].clone();
        map.subtitle = Some(labels[2].clone());
        map.value_label = labels[3].clone();
        map.x.label = labels[4].clone();
        map.x.ticks[columns / 2] = Tick::token(labels[5].clone(), labels[0].clone());
        map.y.ticks[rows / 2] = Tick::token(labels[4].clone(), labels[5].clone());
        map.facets[0].values.iter_mut().flatten().for_each(|value| *value *= magnitude);
        map.facets[0].values[0] = None;
        let text = shown(&map, colour, width);
        for line in text.lines() {
            prop_assert!(shown_columns(line) <= width.max(MIN_WIDTH), "{line:?}");
            for piece in line.split('\x1b').skip(1) {
                let (code, _) = piece.split_once('m').unwrap();
                prop_assert!(code == "[0" || code.starts_with("[48;"), "{line:?}");
            }
        }
        let controls = text.chars().filter(|c| c.is_control() && *c != '\n');
        prop_assert!(controls.into_iter().all(|c| c == '\x1b' && colour != Colour::None));
    }
}
