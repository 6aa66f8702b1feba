use super::*;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use proptest::prelude::*;

/// A column of each kind, named like the texts they have to survive.
fn table(rows: impl IntoIterator<Item = [Cell; 3]>) -> Table {
    let columns =
        [("token, \"raw\"", ColumnKind::Text), ("layer", ColumnKind::Integer), ("value", ColumnKind::Number)];
    let mut table = Table::new(columns).unwrap();
    for row in rows {
        table.push(row).unwrap();
    }
    table
}

fn written(table: &Table, format: Format) -> Vec<u8> {
    let mut file = Vec::new();
    table.write(format, &mut file).unwrap();
    file
}

/// Reads a cell of the file's text back; CSV cannot tell an empty text from an empty cell.
fn from_csv(text: &str, kind: ColumnKind) -> Cell {
    match kind {
        _ if text.is_empty() => Cell::Empty,
        ColumnKind::Text => Cell::from(text),
        ColumnKind::Integer => Cell::Integer(text.parse().unwrap()),
        ColumnKind::Number => Cell::Number(text.parse().unwrap()),
    }
}

fn read_csv(file: &[u8], like: &Table) -> Table {
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().unwrap().clone();
    let kinds = like.columns().iter().map(|column| column.kind);
    let mut table = Table::new(header.iter().zip(kinds)).unwrap();
    for record in reader.records() {
        let record = record.unwrap();
        let cells = record.iter().zip(&like.columns);
        table.push(cells.map(|(text, column)| from_csv(text, column.kind))).unwrap();
    }
    table
}

fn from_json(value: &serde_json::Value, kind: ColumnKind) -> Cell {
    match kind {
        _ if value.is_null() => Cell::Empty,
        ColumnKind::Text => Cell::from(value.as_str().unwrap()),
        ColumnKind::Integer => Cell::Integer(value.as_i64().unwrap()),
        ColumnKind::Number => Cell::Number(value.as_f64().unwrap()),
    }
}

fn read_jsonl(file: &[u8], like: &Table) -> Table {
    let columns = like.columns.iter().map(|column| (column.name.clone(), column.kind));
    let mut table = Table::new(columns).unwrap();
    for line in std::str::from_utf8(file).unwrap().lines() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert!(object.keys().eq(like.columns.iter().map(|c| &c.name)));
        let cells = object.values().zip(&like.columns);
        table.push(cells.map(|(value, column)| from_json(value, column.kind))).unwrap();
    }
    table
}

fn read_parquet(bytes: &[u8]) -> Table {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let schema = reader.metadata().file_metadata().schema().clone();
    let columns = schema.get_fields().iter().map(|field| {
        let kind = match field.get_physical_type() {
            parquet::basic::Type::BYTE_ARRAY => ColumnKind::Text,
            parquet::basic::Type::INT64 => ColumnKind::Integer,
            parquet::basic::Type::DOUBLE => ColumnKind::Number,
            other => panic!("{other}"),
        };
        (field.name().to_owned(), kind)
    });
    let mut table = Table::new(columns).unwrap();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let cells = row.get_column_iter().map(|(_, field)| match field {
            Field::Null => Cell::Empty,
            Field::Str(text) => Cell::from(text.as_str()), // not Bytes: the column says it is UTF-8
            Field::Long(integer) => Cell::Integer(*integer),
            Field::Double(number) => Cell::Number(*number),
            other => panic!("{other}"),
        });
        table.push(cells).unwrap();
    }
    table
}

/// The table as each format gives it back.
fn read_back(table: &Table) -> [Table; 3] {
    [
        read_csv(&written(table, Format::Csv), table),
        read_jsonl(&written(table, Format::Jsonl), table),
        read_parquet(&written(table, Format::Parquet)),
    ]
}

#[test]
fn odd_texts_and_numbers_survive() {
    let texts = [
        " Rome",
        "  ",
        ",",
        "\"",
        "\"\"",
        "\n",
        "\r",
        "\r\n",
        "a,\"b\"\nc",
        "'",
        "é 漢 \u{202e}",
        "\0\u{1b}[31m",
        "null",
        "NaN",
        "\t",
        "#",
        "=1+1",
    ];
    let numbers = [0.1, -0.0, 1.0, 1e-12, 5e-324, f64::MIN, f64::MAX, f64::from(0.1_f32), 1.0 / 3.0];
    let integers = [0, -1, i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1];
    let rows = texts.iter().enumerate().map(|(i, text)| {
        [Cell::from(*text), Cell::from(integers[i % integers.len()]), Cell::from(numbers[i % numbers.len()])]
    });
    let table = table(rows);
    for read in read_back(&table) {
        assert_eq!(read, table);
    }
}

#[test]
fn numbers_that_are_not_finite_are_empty() {
    let table = table([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|number| {
        [Cell::Empty, Cell::from(1), Cell::Number(number)] // not through From
    }));
    let csv = String::from_utf8(written(&table, Format::Csv)).unwrap();
    assert_eq!(csv, "\"token, \"\"raw\"\"\",layer,value\n,1,\n,1,\n,1,\n");
    let jsonl = String::from_utf8(written(&table, Format::Jsonl)).unwrap();
    let line = "{\"token, \\\"raw\\\"\":null,\"layer\":1,\"value\":null}\n";
    assert_eq!(jsonl, line.repeat(3));
    for read in read_back(&table) {
        assert_eq!(read.rows().collect::<Vec<_>>(), vec![vec![Cell::Empty, Cell::from(1), Cell::Empty]; 3]);
    }
}

#[test]
fn json_and_parquet_tell_an_empty_text_from_an_empty_cell() {
    let table = table([[Cell::from(""), Cell::Empty, Cell::Empty], [Cell::Empty, Cell::Empty, Cell::Empty]]);
    let [_, jsonl, parquet] = read_back(&table);
    assert_eq!(jsonl, table);
    assert_eq!(parquet, table);
}

#[test]
fn a_table_without_rows_has_its_columns() {
    let table = table([]);
    let [csv, _, parquet] = read_back(&table);
    assert_eq!(csv, table);
    assert_eq!(parquet, table);
}

#[test]
fn a_lone_empty_cell_is_a_row() {
    let mut table = Table::new([("only", ColumnKind::Text)]).unwrap();
    table.push([Cell::Empty]).unwrap();
    for read in read_back(&table) {
        assert_eq!(read, table);
    }
}

#[test]
fn more_rows_than_a_parquet_group_holds() {
    let mut table = Table::new([("n", ColumnKind::Integer)]).unwrap();
    for n in 0..(1 << 18) + 1_u32 {
        table.push([Cell::from((n % 3 != 0).then_some(n))]).unwrap();
    }
    assert!(read_parquet(&written(&table, Format::Parquet)) == table);
}

#[test]
fn cells_that_do_not_fit_are_refused() {
    let mut table = table([]);
    let error = table.push([Cell::Empty]).unwrap_err();
    assert_eq!(error.to_string(), "the row has 1 cells, the table 3 columns");
    let row = [Cell::Empty, Cell::from(0.5), Cell::Empty];
    let error = table.push(row).unwrap_err();
    assert_eq!(error.to_string(), "column \"layer\" holds an integer, the cell a number");
    assert!(table.is_empty());
    let error = Table::new([("a", ColumnKind::Text), ("a", ColumnKind::Text)]).unwrap_err();
    assert_eq!(error.to_string(), "the table has two columns named \"a\"");
}

#[test]
fn a_format_is_told_by_the_extension() {
    assert_eq!(Format::from_path("out/cells.v1.parquet").unwrap(), Format::Parquet);
    assert_eq!(Format::from_path("CELLS.CSV").unwrap(), Format::Csv);
    for (path, given) in [("cells.xlsx", "xlsx"), ("out.csv/cells", "out.csv/cells"), (".csv", ".csv")] {
        let error = Format::from_path(path).unwrap_err();
        assert_eq!(error.to_string(), format!("{given:?} is not a table format"));
        assert_eq!(error.hint().unwrap(), "use csv, jsonl or parquet");
    }
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
}

#[test]
fn a_failing_writer_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let table = table([[Cell::from("a"), Cell::from(1), Cell::from(0.5)]]);
    for format in Format::ALL {
        assert!(table.write(format, Full).is_err(), "{format}");
    }
}

fn text() -> impl Strategy<Value = Cell> {
    let odd = prop::sample::select(vec![' ', ',', '"', '\n', '\r', 'a', 'é']);
    prop::collection::vec(odd, 1..6).prop_map(|chars| Cell::Text(chars.into_iter().collect()))
}

proptest! {
    #[test]
    fn every_format_gives_back_what_was_written(
        rows in prop::collection::vec(
            (prop::option::of(text()), any::<Option<i64>>(), any::<Option<f64>>()), 0..20,
        )
    ) {
        let table = table(rows.into_iter().map(|(t, i, n)| [t.into(), i.into(), n.into()]));
        for read in read_back(&table) {
            prop_assert_eq!(&read, &table);
        }
    }
}

#[test]
fn a_table_is_saved_as_its_name_ends() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::of(vec![ColumnOf::integer("layer", |row: &usize| Some(*row))], [3, 5]);
    let path = folder.path().join("cells.csv");
    table.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"layer\n3\n5\n");
    let refused = table.save(folder.path().join("cells.xlsx")).unwrap_err();
    assert!(refused.to_string().contains("cells.xlsx\" is not a table format") && refused.is_bad_input());
}
