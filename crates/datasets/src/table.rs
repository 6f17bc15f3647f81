//! Tables: CSV files with named columns.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use tapegrad_tape::{DType, Tensor};

use crate::csv::Lines;
use crate::error::{DataError, Result};

/// A line of more bytes is refused.
const LONGEST: usize = 1 << 24;

/// A CSV file: a header with the names of its columns, then rows of as many fields.
///
/// ```
/// use tapegrad_datasets::{DataLoader, Standardization, Table, TensorDataset};
/// let file = "height,width,kind\n1.5,2,cat\n2.5,4,\"dog, small\"\n3.5,6,cat\n";
/// let table = Table::parse("pets.csv", file.as_bytes())?;
/// let x = table.tensor(&["height", "width"])?;
/// let classes = table.classes("kind")?;
/// let kinds = table.labels("kind", &classes)?;
/// assert_eq!((x.shape(), kinds.to_vec::<i64>()), (&[3, 2][..], vec![0, 1, 0]));
///
/// // Mean and deviation are those of the training data, for all other data, too.
/// let scale = Standardization::of(&x);
/// let train = TensorDataset::new((scale.apply(&x), kinds));
/// for (x, _) in &DataLoader::new(train).batch_size(3) {
///     assert!(x.sum_all().item().abs() < 1e-5);
/// }
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    file: String,
    names: Vec<String>,
    /// The fields of each column.
    columns: Vec<Vec<String>>,
    /// The line of each row.
    lines: Vec<u64>,
}

impl Table {
    /// Reads a file. Module are separated by commas, surrounding spaces do not count, and quotes may be around a field with
    /// commas (`"a, b"`; `""` is a quote within); they contain no line break. Blank lines and a byte order mark are
    /// skipped.
    ///
    /// # Errors
    /// If the file cannot be read, a name is empty or there twice, or a row has another number of fields; the error names
    /// the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Table> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|e| DataError::io(path, e))?;
        Table::parse(&path.display().to_string(), file)
    }

    /// As [`read`](Table::read), from any reader; `name` is used in error messages.
    ///
    /// # Errors
    /// As [`read`](Table::read).
    pub fn parse(name: &str, input: impl Read) -> Result<Table> {
        let mut lines = Lines::new(name, input, LONGEST, "a row of fields");
        let mut table =
            Table { file: name.into(), names: Vec::new(), columns: Vec::new(), lines: Vec::new() };
        while lines.advance()? {
            if lines.text().trim_ascii().is_empty() {
                continue;
            }
            let text = std::str::from_utf8(lines.text())
                .map_err(|_| lines.error("bytes that are no text", "UTF-8"))?;
            let fields =
                fields(text).map_err(|found| lines.error(found, "quotes in pairs, around whole fields"))?;
            if table.names.is_empty() {
                let mut seen = BTreeSet::new();
                if let Some(name) = fields.iter().find(|f| f.is_empty() || !seen.insert(f.as_str())) {
                    return Err(lines.error(format!("the name {name:?}"), "names of columns, each once"));
                }
                table.columns = fields.iter().map(|_| Vec::new()).collect();
                table.names = fields;
                continue;
            }
            if fields.len() != table.names.len() {
                let expected = format!("{}, as in the header", table.names.len());
                return Err(lines.error(format!("{} fields", fields.len()), expected));
            }
            table.columns.iter_mut().zip(fields).for_each(|(column, field)| column.push(field));
            table.lines.push(lines.row());
        }
        if table.names.is_empty() {
            return Err(lines.error("an empty file", "a header with the names of the columns"));
        }
        Ok(table)
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The fields of a column as text.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn column(&self, name: &str) -> Result<&[String]> {
        match self.names.iter().position(|n| n == name) {
            Some(i) => Ok(&self.columns[i]),
            None => Err(DataError::Column {
                file: self.file.clone(),
                column: name.into(),
                columns: self.names.join(", "),
            }),
        }
    }

    /// The numbers of a column; `missing` takes the place of empty fields, and of `NA`, `NaN`, `null` and `?`.
    ///
    /// # Errors
    /// If there is no such column, or a field is no number, or missing and nothing is given for it.
    pub fn numbers(&self, name: &str, missing: Option<f64>) -> Result<Vec<f64>> {
        let number = |(row, field): (usize, &String)| {
            let absent = ["", "na", "nan", "null", "?"].iter().any(|m| field.eq_ignore_ascii_case(m));
            let value = if absent { missing } else { field.parse::<f64>().ok().filter(|x| x.is_finite()) };
            let what = if absent { "nothing" } else { "no number" };
            value.ok_or_else(|| {
                let shown: String = field.chars().take(20).collect();
                let found = format!("{shown:?} in column {name:?}, which is {what}");
                DataError::row(&self.file, self.lines[row], found, "a number")
            })
        };
        self.column(name)?.iter().enumerate().map(number).collect()
    }

    /// Columns of numbers side by side, `f32 [rows, columns]`.
    ///
    /// # Errors
    /// If there is no such column, or a field is missing or no number.
    pub fn tensor(&self, names: &[&str]) -> Result<Tensor> {
        let columns = names.iter().map(|name| self.numbers(name, None)).collect::<Result<Vec<_>>>()?;
        let rows = (0..self.len()).flat_map(|row| columns.iter().map(move |c| c[row] as f32));
        Ok(Tensor::from_vec(rows.collect(), &[self.len(), names.len()]))
    }

    /// The different values of a column, sorted: the names of its classes.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn classes(&self, name: &str) -> Result<Vec<String>> {
        let values: BTreeSet<&String> = self.column(name)?.iter().collect();
        Ok(values.into_iter().cloned().collect())
    }

    /// The position of each value of a column among the classes, `i64 [rows]`.
    ///
    /// # Errors
    /// If there is no such column, or a value is no class.
    pub fn labels(&self, name: &str, classes: &[String]) -> Result<Tensor> {
        let label = |(row, field): (usize, &String)| {
            classes.iter().position(|c| c == field).map(|i| i as i64).ok_or_else(|| {
                let shown: String = field.chars().take(20).collect();
                let expected = format!("one of {} classes: {}", classes.len(), classes.join(", "));
                DataError::row(&self.file, self.lines[row], format!("{shown:?} in column {name:?}"), expected)
            })
        };
        let labels = self.column(name)?.iter().enumerate().map(label).collect::<Result<Vec<i64>>>()?;
        Ok(Tensor::from_vec(labels, &[self.len()]))
    }
}

/// The fields of a line.
fn fields(line: &str) -> std::result::Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = unquote(quoted)?;
            found.push(field);
            let after = after.trim_start();
            if !after.is_empty() && !after.starts_with(',') {
                let shown: String = after.chars().take(20).collect();
                return Err(format!("{shown:?} behind a quoted field"));
            }
            rest = after;
            0
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            found.push(rest[..end].trim_end().to_string());
            end
        };
        match rest[end..].strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(found),
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> std::result::Result<(String, &str), String> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let Some(end) = rest.find('"') else { return Err("an unbalanced quote".into()) };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// Mean and standard deviation of each column of a table of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardization {
    /// The mean of each column.
    pub mean: Vec<f64>,
    /// The standard deviation of each column (that of the population); 1 for a constant column.
    pub std: Vec<f64>,
}

impl Standardization {
    /// Of numbers `[rows, columns]`: those of the training data.
    ///
    /// # Panics
    /// If there are not two dimensions, or no rows.
    #[track_caller]
    pub fn of(x: &Tensor) -> Standardization {
        assert!(x.ndim() == 2, "Standardization: the numbers are [rows, columns], got shape {:?}", x.shape());
        let (rows, columns) = (x.shape()[0], x.shape()[1]);
        assert!(rows > 0, "Standardization: there are no rows of shape {:?}", x.shape());
        let values = x.to_vec::<f64>();
        let mean_of = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; columns];
            for (i, &v) in values.iter().enumerate() {
                sums[i % columns] += f(i % columns, v);
            }
            sums.into_iter().map(|s| s / rows as f64).collect()
        };
        let mean = mean_of(&|_, v| v);
        let variance = mean_of(&|c, v| (v - mean[c]).powi(2));
        let std = variance.into_iter().map(|v| if v > 0.0 { v.sqrt() } else { 1.0 }).collect();
        Standardization { mean, std }
    }

    /// `(x - mean) / std`, as F32.
    ///
    /// # Panics
    /// If the numbers are not `[rows, columns]` of as many columns.
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        let columns = self.mean.len();
        assert!(
            x.ndim() == 2 && x.shape()[1] == columns,
            "Standardization: has {columns} columns, but the numbers have shape {:?}",
            x.shape()
        );
        let mut out = Tensor::zeros_with(x.shape(), DType::F32);
        for (i, (o, v)) in out.data_mut::<f32>().iter_mut().zip(x.to_vec::<f64>()).enumerate() {
            let c = i % columns;
            *o = ((v - self.mean[c]) / self.std[c]) as f32;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        let message = Table::parse("t.csv", text.as_bytes()).unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    }

    #[test]
    fn fields_and_quotes() {
        let table =
            Table::parse("t", "\u{feff} a ,\"b \"\"x\"\"\"\r\n\r\n1, \" 2,5 \" \n,\n".as_bytes()).unwrap();
        assert_eq!(table.names(), ["a", "b \"x\""]);
        assert_eq!(table.column("b \"x\"").unwrap(), [" 2,5 ", ""]);
        assert_eq!((table.len(), table.column("a").unwrap()), (2, &["1".to_string(), String::new()][..]));
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(message("a,b\n1,2\n\n3\n"), "t.csv: row 4: found 1 fields, expected 2, as in the header");
        assert!(message("a,\"b\n1,2\n").starts_with("t.csv: row 1: found an unbalanced quote"));
        assert!(message("a,b\n1,\"2\"3\n").starts_with("t.csv: row 2: found \"3\" behind a quoted field"));
        assert!(message("a,a\n1,2\n").contains("row 1: found the name \"a\""));
        assert!(message("a,,b\n").contains("row 1: found the name \"\""));
        assert!(message("\n \n").contains("an empty file"));
        let table = Table::parse("t.csv", &b"a,b\n1,x\n\n?,y\n"[..]).unwrap();
        let text = |r: Result<Vec<f64>>| r.unwrap_err().to_string();
        assert_eq!(text(table.numbers("c", None)), "t.csv: there is no column \"c\"; the columns are a, b");
        let missing = "t.csv: row 4: found \"?\" in column \"a\", which is nothing, expected a number";
        assert_eq!(text(table.numbers("a", None)), missing);
        assert_eq!(table.numbers("a", Some(9.0)).unwrap(), [1.0, 9.0]);
        assert!(
            text(table.numbers("b", Some(9.0)))
                .contains("row 2: found \"x\" in column \"b\", which is no number")
        );
        let unknown = table.labels("b", &["x".into()]).unwrap_err().to_string();
        assert_eq!(unknown, "t.csv: row 4: found \"y\" in column \"b\", expected one of 1 classes: x");
    }

    #[test]
    fn columns_are_standardized_by_the_training_data() {
        let train = Tensor::from_vec(vec![1f32, 5.0, 3.0, 5.0], &[2, 2]);
        let scale = Standardization::of(&train);
        assert_eq!(scale, Standardization { mean: vec![2.0, 5.0], std: vec![1.0, 1.0] });
        let test = Tensor::from_vec(vec![4f32, 6.0], &[1, 2]);
        assert_eq!(scale.apply(&test).to_vec::<f32>(), [2.0, 1.0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(bytes: Vec<u8>) {
            let _ = Table::parse("x", &bytes[..]);
        }

        #[test]
        fn any_line_of_quotes_is_fields_or_an_error(line in "[a\", ]{0,40}") {
            let _ = Table::parse("x", line.as_bytes());
        }
    }
}
