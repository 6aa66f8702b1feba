use super::layout::{LABEL_SIZE, TICK_SIZE};
use super::*;
use crate::{Centre, Scale};
use proptest::prelude::*;
use resvg::tiny_skia::{Pixmap, Rect};
use resvg::usvg::{Group, Node};

/// A map with as many rows, columns and facets; the values rise from 0 by 1.
fn map(rows: usize, columns: usize, facets: usize) -> HeatMap {
    let tick = |column: usize| Tick::token(column.to_string(), [" Spain", "The", " capital"][column % 3]);
    let site = |row: usize| Tick::new(format!("{}_o{}", ["attn", "mlp"][row % 2], row / 2));
    let cells = rows * columns;
    let facet = |facet: usize| Facet {
        title: format!("facet {facet}"),
        values: (0..cells).map(|cell| Some((facet * cells + cell) as f64)).collect(),
        ..Facet::default()
    };
    HeatMap {
        title: "A title".to_owned(),
        subtitle: Some("and below it a longer line".to_owned()),
        x: Axis { label: "position".to_owned(), ticks: (0..columns).map(tick).collect() },
        y: Axis { label: "site".to_owned(), ticks: (0..rows).map(site).collect() },
        facets: (0..facets).map(facet).collect(),
        value_label: "probability".to_owned(),
        scale: Scale::FromZero,
    }
}

fn svg(map: &HeatMap) -> String {
    map.to_svg().unwrap()
}

/// The line of the SVG that draws the cell with this tooltip.
fn cell<'a>(svg: &'a str, tooltip: &str) -> &'a str {
    let title = format!("<title>{tooltip}</title>");
    svg.lines()
        .find(|line| line.starts_with("<rect") && line.contains(&title))
        .unwrap_or_else(|| panic!("{tooltip}"))
}

fn number_after(line: &str, attribute: &str) -> f64 {
    let (_, rest) = line.split_once(&format!(" {attribute}=\"")).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

/// The box of every text, and the width and height of the page.
fn texts(svg: &str) -> (Vec<Rect>, f32, f32) {
    fn collect(group: &Group, boxes: &mut Vec<Rect>) {
        for node in group.children() {
            match node {
                Node::Group(inner) => collect(inner, boxes),
                Node::Text(text) => boxes.push(text.abs_bounding_box()),
                _ => {}
            }
        }
    }
    let tree = png::parse(svg).unwrap();
    let mut boxes = Vec::new();
    collect(tree.root(), &mut boxes);
    (boxes, tree.size().width(), tree.size().height())
}

/// Whether two boxes overlap by more than lines set close to each other do.
fn overlap(a: &Rect, b: &Rect) -> bool {
    let slack = 1.5;
    a.left() + slack < b.right()
        && b.left() + slack < a.right()
        && a.top() + slack < b.bottom()
        && b.top() + slack < a.bottom()
}

fn assert_nothing_overlaps_or_is_clipped(map: &HeatMap) {
    let (boxes, width, height) = texts(&svg(map));
    for (index, a) in boxes.iter().enumerate() {
        let inside =
            a.left() >= 8.0 && a.top() >= 8.0 && a.right() <= width - 8.0 && a.bottom() <= height - 8.0;
        assert!(inside, "{a:?} leaves a page of {width} × {height}");
        for b in &boxes[..index] {
            assert!(!overlap(a, b), "{a:?} and {b:?}");
        }
    }
}

#[test]
fn cells_are_where_they_belong() {
    let svg = svg(&map(2, 3, 1));
    let low = cell(&svg, "attn_o0, 0 (_Spain): 0");
    let high = cell(&svg, "mlp_o0, 2 (_capital): 5");
    assert!(low.contains("fill=\"#440154\""), "{low}");
    assert!(high.contains("fill=\"#fde725\""), "{high}");
    assert_eq!(number_after(low, "y"), number_after(high, "y") + number_after(high, "height"));
    assert_eq!(number_after(high, "x"), 2.0 * number_after(high, "width"));
    assert_eq!(number_after(low, "x"), 0.0);
}

#[test]
fn facets_share_a_scale() {
    let svg = svg(&map(1, 2, 2)); // 0 1, 2 3
    assert!(cell(&svg, "attn_o0, 1 (The): 1").contains(&crate::colour::SEQUENTIAL.at(1.0 / 3.0).hex()));
    assert!(cell(&svg, "attn_o0, 1 (The): 3").contains("#fde725"));
}

#[test]
fn a_diverging_scale_is_symmetric() {
    let mut map = map(1, 3, 1);
    map.scale = Scale::Diverging(Centre::ZERO);
    map.facets[0].values = vec![Some(-1.0), Some(0.0), Some(4.0)];
    let svg = svg(&map);
    assert!(cell(&svg, "attn_o0, 1 (The): 0").contains("fill=\"#f7f7f7\""));
    assert!(cell(&svg, "attn_o0, 2 (_capital): 4").contains("fill=\"#67001f\""));
    assert!(cell(&svg, "attn_o0, 0 (_Spain): -1").contains(&crate::colour::DIVERGING.at(0.375).hex()));
    assert!(svg.contains(">-4</text>") && svg.contains(">4</text>"));
}

#[test]
fn a_centre_that_is_not_zero_is_white_and_in_the_legend() {
    let mut map = map(1, 3, 1);
    map.scale = Scale::Diverging(Centre { value: 3.0, name: "unedited" });
    map.facets[0].values = vec![Some(1.0), Some(3.0), Some(3.5)];
    let svg = svg(&map);
    assert!(cell(&svg, "attn_o0, 1 (The): 3").contains("fill=\"#f7f7f7\""));
    assert!(cell(&svg, "attn_o0, 0 (_Spain): 1").contains(&crate::colour::DIVERGING.at(0.0).hex()));
    assert!(svg.contains(">unedited: 3</text>"));
}

#[test]
fn numbers_in_long_row_labels_are_kept() {
    let mut map = map(2, 1, 1);
    map.y.ticks = (28..30).map(|layer| Tick::new(format!("head_attn_value_o{layer}"))).collect();
    let svg = svg(&map);
    assert!(svg.contains(">head_attn_value_o28</text>") && svg.contains(">head_attn_value_o29</text>"));
}

#[test]
fn labels_are_escaped_and_visible() {
    let odd = "<script>&\" \u{1b}[31m\n\u{0}\u{ffff}";
    let shown = "&lt;script&gt;&amp;&quot; \\x1b[31m⏎\\x00\\u{ffff}";
    let mut map = map(1, 1, 1);
    map.title = odd.to_owned();
    map.subtitle = Some(odd.to_owned());
    map.value_label = odd.to_owned();
    map.facets[0].title = odd.to_owned();
    map.x = Axis { label: odd.to_owned(), ticks: vec![Tick::token(odd, format!(" {odd}"))] };
    map.y = Axis { label: odd.to_owned(), ticks: vec![Tick::new(odd)] };
    let svg = svg(&map);
    assert!(png::parse(&svg).is_ok());
    assert!(!svg.contains("<script") && !svg.contains('\u{1b}') && !svg.contains('\u{ffff}'));
    let token = format!("_{}", shown.replace(' ', "·"));
    assert!(svg.contains(&format!("<title>{shown}, {shown} ({token}): 0</title>")), "{svg}");
    assert!(svg.contains(&format!("aria-label=\"{shown}\"")));
}

#[test]
fn long_labels_are_cut_and_whole_in_the_tooltip() {
    let mut map = map(1, 1, 1);
    map.x.ticks = vec![Tick::token("7", " internationalisation")];
    let svg = svg(&map);
    assert!(svg.contains(">_internatio…</text>"), "{svg}");
    assert!(svg.contains("<g><title>7 (_internationalisation)</title>"));
}

#[test]
fn values_that_are_not_finite_are_empty() {
    let mut map = map(1, 4, 1);
    assert!(!svg(&map).contains("no value"));
    map.facets[0].values = vec![Some(f64::NAN), Some(f64::INFINITY), None, Some(0.5)];
    let svg = svg(&map);
    let empty = svg.matches("fill=\"none\" pointer-events=\"all\"><title>").count();
    assert_eq!(empty, 3);
    assert!(svg.contains(">no value</text>"));
    assert!(cell(&svg, "attn_o0, 3 (_Spain): 0.5").contains("#fde725"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn extreme_values_are_drawn() {
    for values in [
        [None, None],
        [Some(0.5), Some(0.5)],
        [Some(0.0), Some(0.0)],
        [Some(f64::MIN), Some(f64::MAX)],
        [Some(5e-324), Some(0.0)],
        [Some(1.0), Some(1.0 + f64::EPSILON)],
    ] {
        for scale in [Scale::FromZero, Scale::Sequential, Scale::Diverging(Centre::ZERO)] {
            let mut map = map(1, 2, 1);
            map.facets[0].values = values.to_vec();
            map.scale = scale;
            let svg = svg(&map);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?} {scale:?}");
            assert_nothing_overlaps_or_is_clipped(&map);
        }
    }
}

#[test]
fn figures_that_cannot_be_drawn_are_refused() {
    for (rows, columns, facets, missing) in [(0, 1, 1, "rows"), (1, 0, 1, "columns"), (1, 1, 0, "facets")] {
        let error = map(rows, columns, facets).to_svg().unwrap_err();
        assert_eq!(error.to_string(), format!("the figure \"A title\" has no {missing}"));
    }
    let mut short = map(2, 3, 2);
    short.facets[1].values.pop();
    let error = short.to_svg().unwrap_err();
    assert_eq!(error.to_string(), "facet \"facet 1\" has 5 values, but 2 rows × 3 columns");
    let error = map(MAX_CELLS / 2 + 1, 1, 2).to_svg().unwrap_err();
    assert_eq!(error.to_string(), "the heat map would have 500002 cells; at most 500000 are drawn");
    assert!(error.hint().is_some());
}

#[test]
fn pictures_that_cannot_be_drawn_are_refused() {
    let map = map(1, 1, 1);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(map.to_png(scale), Err(Error::PictureScale { .. })), "{scale}");
    }
    for scale in [100.0, 1e30] {
        let error = map.to_png(scale).unwrap_err();
        assert!(matches!(error, Error::TooLarge { unit: "pixels", .. }), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_picture_has_the_cells_and_the_text() {
    let map = map(2, 2, 1);
    let picture = Pixmap::decode_png(&map.to_png(2.0).unwrap()).unwrap();
    let layout = layout::Layout::of(&map, &map.check().unwrap());
    assert_eq!(f64::from(picture.width()), layout.width * 2.0);
    let pixel = |x: f64, y: f64| {
        let [x, y] = [x, y].map(|place| u32::try_from((place * 2.0) as i64).unwrap());
        let color = picture.pixel(x, y).unwrap();
        [color.red(), color.green(), color.blue()]
    };
    let (left, top) = layout.panel(0);
    let middle = |column: f64, row: f64| {
        pixel(left + (column + 0.5) * layout.cell_width, top + (row + 0.5) * layout.cell_height)
    };
    assert_eq!(middle(0.0, 1.0), [0x44, 0x01, 0x54]); // the first row, at the bottom
    assert_eq!(middle(1.0, 0.0), [0xfd, 0xe7, 0x25]);
    assert_eq!(pixel(1.0, 1.0), [255; 3]);
    let title_is_drawn = (24..100).any(|x| (20..45).any(|y| pixel(f64::from(x), f64::from(y))[0] < 0x80));
    assert!(title_is_drawn);
}

#[test]
fn texts_are_as_wide_as_the_font_draws_them() {
    let ascii: String = (' '..='~').filter(|c| !"<&fijlt".contains(*c)).collect(); // no ligatures
    for line in [ascii.as_str(), "mlp_o11", "_capital", "0.05"] {
        for size in [TICK_SIZE, LABEL_SIZE] {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\" xml:space=\"preserve\">\
                 <text font-family=\"DejaVu Sans\" font-size=\"{size}\">{line}</text></svg>"
            );
            let (boxes, ..) = texts(&svg);
            let (drawn, guessed) = (f64::from(boxes[0].width()), crate::text::pixels(line, size));
            assert!((drawn - guessed).abs() < 0.02 * drawn + 1.0, "{line}: {drawn} drawn, {guessed} guessed");
        }
    }
}

#[test]
fn shapes_of_the_field_are_readable() {
    for (rows, columns, facets) in
        [(60, 5, 2), (24, 60, 1), (160, 15, 3), (2, 3, 1), (1, 1, 1), (24, 5, 7), (4, 1000, 1)]
    {
        assert_nothing_overlaps_or_is_clipped(&map(rows, columns, facets));
    }
}

#[test]
fn all_rows_of_small_models_are_labelled() {
    for (rows, shown) in [(24, 24), (60, 60), (160, 40)] {
        let svg = svg(&map(rows, 5, 1));
        let labels = svg.lines().filter(|line| line.starts_with("<text") && line.contains("_o"));
        assert_eq!(labels.count(), shown);
    }
}

#[test]
fn facets_make_a_page_and_not_a_ribbon() {
    for (rows, columns, facets) in [(24, 5, 12), (160, 5, 4), (4, 60, 6), (24, 60, 9)] {
        let map = map(rows, columns, facets);
        let layout = layout::Layout::of(&map, &map.check().unwrap());
        let aspect = layout.width / layout.height;
        assert!((0.5..3.0).contains(&aspect), "{rows} × {columns} × {facets}: {aspect}");
    }
}

#[test]
fn a_figure_is_drawn_the_same_every_time() {
    let map = map(3, 4, 2);
    assert_eq!(svg(&map), svg(&map.clone()));
    assert_eq!(map.to_png(1.0).unwrap(), map.to_png(1.0).unwrap());
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9 _]{0,30}", any::<String>(), Just(String::new())]
}

fn shape() -> impl Strategy<Value = HeatMap> {
    let labels = (label(), prop::option::of(label()), label(), label(), label(), label(), label());
    let look = (any::<bool>(), prop::option::of(label()));
    (1..90_usize, 1..70_usize, 1..5_usize, labels, look).prop_map(
        |(rows, columns, facets, (title, subtitle, x, y, value, tick, facet), (tokens, word))| {
            let mut map = map(rows, columns, facets);
            (map.title, map.subtitle, map.value_label) = (title, subtitle, value);
            (map.x.label, map.y.label) = (x, y);
            map.x.ticks[columns / 2] = Tick::token(tick.clone(), tick.clone());
            map.y.ticks[rows / 2] = Tick::new(tick);
            map.facets[0].title = facet;
            if let Some(word) = word {
                map.facets[0].words = vec![word; rows * columns];
            }
            if !tokens {
                map.x.ticks.iter_mut().for_each(|tick| tick.token = None);
            }
            map
        },
    )
}

#[test]
fn words_stand_in_their_cells() {
    let mut one = map(3, 2, 2);
    one.facets[1].words =
        ["_Madrid", "the", "a very long word indeed", "<b>", "", "\u{1b}"].map(str::to_owned).to_vec();
    let drawn = svg(&one);
    assert!(drawn.contains("<title>mlp_o0, 1 (The): &lt;b&gt; 9</title>"), "{drawn}");
    assert!(drawn.contains(">_Madrid</text>") && drawn.contains(">\\x1b</text>"));
    assert!(drawn.contains("a very lon") && !drawn.contains(">a very long word indeed<"));
    assert_nothing_overlaps_or_is_clipped(&one);
    one.facets[1].words.pop();
    assert!(matches!(one.to_svg(), Err(Error::FacetSize { found: 5, .. })));
}

/// Wide letters, and marks the font lacks, once ran into the axis's name.
#[test]
fn wide_letters_get_their_room() {
    let label = "#\u{5a6}\u{468}=&`\"{0Y0H\u{1c4}\u{2031}";
    let map = HeatMap {
        title: String::new(),
        subtitle: None,
        x: Axis { label: "position".into(), ticks: vec![Tick::token(label, label)] },
        y: Axis { label: "edited layer".into(), ticks: vec![Tick::new(label)] },
        facets: vec![Facet { title: label.into(), values: vec![Some(0.0)], ..Facet::default() }],
        value_label: "probability".into(),
        scale: Scale::FromZero,
    };
    assert_nothing_overlaps_or_is_clipped(&map);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_figure_is_readable(map in shape()) {
        assert_nothing_overlaps_or_is_clipped(&map);
    }
}

/// A figure is written as the name of its file ends; another name is refused before anything is drawn.
#[test]
fn a_figure_is_saved_as_its_name_ends() {
    let folder = tempfile::tempdir().unwrap();
    let map = map(2, 3, 1);
    for (name, start) in [("map.svg", b"<svg".as_slice()), ("map.PNG", b"\x89PNG")] {
        let path = folder.path().join(name);
        std::fs::write(&path, "replaced").unwrap();
        map.save(&path).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(start), "{name}");
    }
    let refused = HeatMap { facets: Vec::new(), ..map }.save(folder.path().join("map.bmp")).unwrap_err();
    assert!(
        refused.to_string().ends_with("map.bmp: a figure is written as .svg or .png")
            && refused.is_bad_input()
    );
    assert!(!folder.path().join("map.bmp").exists());
}
