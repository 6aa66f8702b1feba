//! Parquet, written column by column.

use super::cell::{Cell, Column, ColumnKind};
use super::rows::Table;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use std::io::Write;
use std::sync::Arc;

/// Rows are written in groups of this many, each buffered as a whole.
const ROWS_PER_GROUP: usize = 1 << 18;

pub(super) fn write(table: &Table, w: impl Write + Send) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_created_by(concat!("causalcone version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut file = SerializedFileWriter::new(w, schema(table)?, Arc::new(properties))?;
    for start in (0..table.len()).step_by(ROWS_PER_GROUP) {
        let rows = start..table.len().min(start + ROWS_PER_GROUP);
        let mut group = file.next_row_group()?;
        for (index, column) in table.columns.iter().enumerate() {
            if let Some(mut writer) = group.next_column()? {
                write_column(&mut writer, column.kind, table.column_of(index, rows.clone()))?;
                writer.close()?;
            }
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

fn schema(table: &Table) -> Result<TypePtr> {
    let fields = table.columns.iter().map(field).collect::<Result<_>>()?;
    let group = Type::group_type_builder("table").with_fields(fields);
    Ok(Arc::new(group.build()?))
}

fn field(column: &Column) -> Result<TypePtr> {
    let (physical, logical) = match column.kind {
        ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnKind::Integer => (Physical::INT64, None),
        ColumnKind::Number => (Physical::DOUBLE, None),
    };
    let field = Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical);
    Ok(Arc::new(field.build()?))
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    kind: ColumnKind,
    cells: impl Iterator<Item = Cell>,
) -> Result<()> {
    match kind {
        ColumnKind::Text => write_cells::<ByteArrayType>(writer, cells, |cell| match cell {
            Cell::Text(text) => Some(ByteArray::from(text.into_bytes())),
            _ => None,
        }),
        ColumnKind::Integer => write_cells::<Int64Type>(writer, cells, |cell| match cell {
            Cell::Integer(integer) => Some(integer),
            _ => None,
        }),
        ColumnKind::Number => write_cells::<DoubleType>(writer, cells, |cell| match cell {
            Cell::Number(number) => Some(number),
            _ => None,
        }),
    }
}

/// Writes the values that are there, and for every cell whether its value is (definition level 1) or not (0).
fn write_cells<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = Cell>,
    value: impl Fn(Cell) -> Option<T::T>,
) -> Result<()> {
    let mut values = Vec::new();
    let mut levels = Vec::new();
    for cell in cells {
        let value = value(cell);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}
