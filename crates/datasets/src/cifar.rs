//! CIFAR-10 and CIFAR-100, in binary or Python (pickle) format, from a folder or directly from the archive.

mod archive;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{DataError, Result, read_file};
use crate::images::ImageDataset;
use crate::pickle::Pickle;
use crate::synthetic;

const PIXELS: usize = 3 * 32 * 32;

/// The class names of CIFAR-10.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const EXPECTED: &str = "the files of cifar-10-batches-bin, cifar-10-batches-py, cifar-100-binary or cifar-100-python, \
     one of these folders, or their .tar.gz archive";

/// A training and a test set of 32x32 RGB images.
#[derive(Debug, Clone)]
pub struct Cifar {
    /// The training set.
    pub train: ImageDataset,
    /// The test set.
    pub test: ImageDataset,
    /// The twenty superclasses of CIFAR-100; `None` for CIFAR-10.
    pub coarse: Option<Coarse>,
}

/// The coarse labels of CIFAR-100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coarse {
    /// The superclass of each training image.
    pub train: Vec<i64>,
    /// The superclass of each test image.
    pub test: Vec<i64>,
    /// The names of the superclasses.
    pub classes: Vec<String>,
}

/// The four formats in which the data sets are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary10,
    Python10,
    Binary100,
    Python100,
}

/// The folder of a format, its archive, its training files, its test file, the files with the class names, and the
/// number of images in the largest file.
struct Files {
    form: Form,
    folder: &'static str,
    archive: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    names: &'static [&'static str],
    most: u64,
}

impl Files {
    /// No published file in this format has more bytes, whatever the pickle protocol: twice the pixels and labels,
    /// and a name for each image.
    fn largest(&self) -> u64 {
        self.most * (2 * PIXELS as u64 + 128)
    }
}

const FORMS: [Files; 4] = [
    Files {
        form: Form::Binary10,
        folder: "cifar-10-batches-bin",
        archive: "cifar-10-binary.tar.gz",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        names: &["batches.meta.txt"],
        most: 10_000,
    },
    Files {
        form: Form::Python10,
        folder: "cifar-10-batches-py",
        archive: "cifar-10-python.tar.gz",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        names: &["batches.meta"],
        most: 10_000,
    },
    Files {
        form: Form::Binary100,
        folder: "cifar-100-binary",
        archive: "cifar-100-binary.tar.gz",
        train: &["train.bin"],
        test: "test.bin",
        names: &["fine_label_names.txt", "coarse_label_names.txt"],
        most: 50_000,
    },
    Files {
        form: Form::Python100,
        folder: "cifar-100-python",
        archive: "cifar-100-python.tar.gz",
        train: &["train"],
        test: "test",
        names: &["meta"],
        most: 50_000,
    },
];

impl Cifar {
    /// Reads the set from a folder or an archive (`.tar.gz`, read in place) and recognizes its format by the file names.
    ///
    /// The folder may hold the files themselves, the folder that the archive unpacks to, or the archive. If it holds
    /// several formats, the first takes precedence, in the order: CIFAR-10 binary, CIFAR-10 Python, CIFAR-100 binary,
    /// CIFAR-100 Python; unpacked before packed.
    ///
    /// The file with the class names may be missing. Only these files of an archive are unpacked, up to the size of the
    /// largest data set.
    ///
    /// # Errors
    /// If a file is missing, malformed or inconsistent with the others, or an archive contains it twice.
    ///
    /// ```no_run
    /// let cifar = tapegrad_datasets::Cifar::open("data/cifar-10-python.tar.gz")?;
    /// assert_eq!(cifar.train.shape(), [50000, 3, 32, 32]);
    /// # Ok::<(), tapegrad_datasets::DataError>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        if !kind.is_dir() {
            return Self::from_archive(path);
        }
        if let Some(files) = FORMS.iter().find(|f| f.train.iter().any(|name| path.join(name).is_file())) {
            return Self::from_folder(path, files);
        }
        if let Some(files) = FORMS.iter().find(|f| path.join(f.folder).is_dir()) {
            return Self::from_folder(&path.join(files.folder), files);
        }
        match FORMS.iter().map(|f| path.join(f.archive)).find(|archive| archive.is_file()) {
            Some(archive) => Self::from_archive(&archive),
            None => Err(DataError::folder(path, "none of them", EXPECTED)),
        }
    }

    /// Parses the bytes of an archive (see [`open`](Self::open)); `name` is used in error messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// ```
    /// let error = tapegrad_datasets::Cifar::parse_archive("memory", b"no archive").unwrap_err();
    /// assert!(error.to_string().starts_with("memory: offset 0: found "));
    /// ```
    pub fn parse_archive(name: &str, bytes: &[u8]) -> Result<Self> {
        let mut parts: Option<Parts> = None;
        archive::for_each_file(name, bytes, &mut |folder, file, data| {
            // The first folder with a known name decides; other entries of the archive are skipped.
            let Some(files) = FORMS.iter().find(|f| folder == f.folder) else { return Ok(()) };
            let parts = parts.get_or_insert_with(|| Parts::new(files));
            if parts.files.form == files.form && parts.wants(file) {
                let mut content = Vec::new();
                data.read(&mut content, files.largest())?;
                parts.add(file, &format!("{name}: {folder}/{file}"), &content)?;
            }
            Ok(())
        })?;
        match parts {
            Some(parts) => parts.assemble(Path::new(name)),
            None => Err(DataError::folder(Path::new(name), "none of them in this archive", EXPECTED)),
        }
    }

    /// Parses the bytes of the files themselves, each with its published name, from which the format is recognized.
    ///
    /// # Errors
    /// If no training file has a known name, or a file is missing, malformed or inconsistent with the others.
    ///
    /// ```
    /// use tapegrad_datasets::{Cifar, Dataset};
    /// let batch = [vec![3], vec![255; 3072]].concat();
    /// let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    /// let names = names.map(|name| format!("{name}.bin"));
    /// let cifar = Cifar::parse_files(names.iter().map(|name| (&name[..], &batch[..])))?;
    /// assert_eq!((cifar.train.labels(), cifar.test.len()), (&[3; 5][..], 1));
    /// # Ok::<(), tapegrad_datasets::DataError>(())
    /// ```
    pub fn parse_files<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Result<Self> {
        let given: Vec<_> = files.into_iter().collect();
        let home = Path::new("files in memory");
        let form = FORMS.iter().find(|f| given.iter().any(|(name, _)| f.train.contains(name)));
        let mut parts = Parts::new(form.ok_or_else(|| DataError::folder(home, "none of them", EXPECTED))?);
        for (name, bytes) in given {
            if parts.wants(name) {
                parts.add(name, name, bytes)?;
            }
        }
        parts.assemble(home)
    }

    /// Synthetic shapes instead of files: `train` and `test` images that do not overlap (see
    /// [`synthetic`](crate::synthetic)).
    ///
    /// ```
    /// let set = tapegrad_datasets::Cifar::synthetic(40, 10, 0);
    /// assert_eq!(set.train.shape(), [40, 3, 32, 32]);
    /// ```
    pub fn synthetic(train: usize, test: usize, seed: u64) -> Self {
        let (train, test) =
            (synthetic::shapes(train, seed), synthetic::shapes_from(synthetic::TEST_START, test, seed));
        Cifar { train, test, coarse: None }
    }

    /// CIFAR-100 with its twenty superclasses as classes; CIFAR-10 stays as it is.
    #[must_use]
    pub fn with_coarse_labels(self) -> Self {
        let Some(coarse) = self.coarse else { return self };
        let relabel = |set: ImageDataset, labels: &[i64]| {
            let same = ImageDataset::new(
                set.pixels().to_vec(),
                set.shape(),
                labels.to_vec(),
                coarse.classes.clone(),
            );
            match set.normalization() {
                Some(normalization) => same.with_normalization(normalization.clone()),
                None => same,
            }
        };
        let (train, test) = (relabel(self.train, &coarse.train), relabel(self.test, &coarse.test));
        Cifar { train, test, coarse: None }
    }

    fn from_folder(dir: &Path, files: &Files) -> Result<Self> {
        let mut parts = Parts::new(files);
        for name in files.train.iter().chain([&files.test]).chain(files.names) {
            let path = dir.join(name);
            if path.is_file() {
                parts.add(name, &path.display().to_string(), &read_file(&path)?)?;
            }
        }
        parts.assemble(dir)
    }

    fn from_archive(path: &Path) -> Result<Self> {
        Self::parse_archive(&path.display().to_string(), &read_file(path)?)
    }
}

/// What has been read so far.
struct Parts<'f> {
    files: &'f Files,
    images: BTreeMap<String, Images>,
    fine: Option<Vec<String>>,
    coarse: Option<Vec<String>>,
}

#[derive(Default)]
struct Images {
    pixels: Vec<u8>,
    fine: Vec<i64>,
    coarse: Vec<i64>,
}

impl Images {
    fn append(&mut self, mut other: Images) {
        if self.fine.is_empty() {
            *self = other;
            return;
        }
        self.pixels.append(&mut other.pixels);
        self.fine.append(&mut other.fine);
        self.coarse.append(&mut other.coarse);
    }
}

impl<'f> Parts<'f> {
    fn new(files: &'f Files) -> Self {
        Parts { files, images: BTreeMap::new(), fine: None, coarse: None }
    }

    fn wants(&self, name: &str) -> bool {
        self.files.test == name || self.files.train.contains(&name) || self.files.names.contains(&name)
    }

    fn hundred(&self) -> bool {
        matches!(self.files.form, Form::Binary100 | Form::Python100)
    }

    fn add(&mut self, name: &str, shown: &str, bytes: &[u8]) -> Result<()> {
        let python = matches!(self.files.form, Form::Python10 | Form::Python100);
        if self.files.names.contains(&name) {
            return if python {
                self.add_pickled_names(shown, bytes)
            } else {
                self.add_names(name, shown, bytes)
            };
        }
        let read = if python { parse_python } else { parse_binary };
        let images = read(shown, bytes, self.hundred())?;
        match self.images.insert(name.into(), images) {
            None => Ok(()),
            Some(_) => Err(DataError::format(shown, 0, "a second file of this name", "each file once")),
        }
    }

    fn add_names(&mut self, name: &str, shown: &str, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            DataError::format(shown, e.valid_up_to() as u64, "bytes that are not text", "UTF-8")
        })?;
        let names: Vec<String> =
            text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
        let coarse = name == "coarse_label_names.txt";
        let count = self.count(coarse);
        if names.len() != count {
            let found = format!("{} names of classes", names.len());
            return Err(DataError::format(shown, 0, found, count.to_string()));
        }
        *(if coarse { &mut self.coarse } else { &mut self.fine }) = Some(names);
        Ok(())
    }

    fn add_pickled_names(&mut self, shown: &str, bytes: &[u8]) -> Result<()> {
        let pickle = Pickle::parse(shown, bytes)?;
        let names = |key: &str, count: usize| {
            let names = pickle.get(key).and_then(|v| pickle.texts(v)).filter(|names| names.len() == count);
            let expected = format!("a list of {count} strings");
            names.ok_or_else(|| {
                DataError::format(shown, 0, format!("no {key} of the expected form"), expected)
            })
        };
        if self.hundred() {
            self.coarse = Some(names("coarse_label_names", self.count(true))?);
        }
        self.fine =
            Some(names(if self.hundred() { "fine_label_names" } else { "label_names" }, self.count(false))?);
        Ok(())
    }

    /// The number of classes, or of superclasses.
    fn count(&self, coarse: bool) -> usize {
        match (self.hundred(), coarse) {
            (false, _) => 10,
            (true, false) => 100,
            (true, true) => 20,
        }
    }

    fn assemble(mut self, home: &Path) -> Result<Cifar> {
        let mut take = |name: &str| {
            self.images
                .remove(name)
                .ok_or_else(|| DataError::folder(home, "no such file", format!("{name} beside the others")))
        };
        let test = take(self.files.test)?;
        let mut train = Images::default();
        for name in self.files.train {
            train.append(take(name)?);
        }
        // Missing names are no reason to reject the images.
        let names = |found: Option<Vec<String>>, n: usize| {
            found.unwrap_or_else(|| match n {
                10 => CIFAR10_CLASSES.map(String::from).to_vec(),
                _ => (0..n).map(|i| i.to_string()).collect(),
            })
        };
        let (count, groups) = (self.count(false), self.count(true));
        let coarse = self.hundred().then(|| Coarse {
            train: std::mem::take(&mut train.coarse),
            test: test.coarse,
            classes: names(self.coarse, groups),
        });
        let classes = names(self.fine, count);
        let set = |pixels: Vec<u8>, labels: Vec<i64>| {
            ImageDataset::new(pixels, [labels.len(), 3, 32, 32], labels, classes.clone())
        };
        Ok(Cifar { train: set(train.pixels, train.fine), test: set(test.pixels, test.fine), coarse })
    }
}

/// Records of a label (CIFAR-100: the superclass, then the class) and 3072 pixels.
fn parse_binary(name: &str, bytes: &[u8], hundred: bool) -> Result<Images> {
    let head = if hundred { 2 } else { 1 };
    let size = head + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(size) {
        let found = format!("{} bytes after {} records", bytes.len() % size, bytes.len() / size);
        let at = (bytes.len() / size * size) as u64;
        return Err(DataError::format(name, at, found, format!("whole records of {size} bytes")));
    }
    let count = bytes.len() / size;
    let mut images = Images { pixels: Vec::with_capacity(count * PIXELS), ..Images::default() };
    for (i, record) in bytes.chunks_exact(size).enumerate() {
        let at = |k: usize| (i * size + k) as u64;
        if hundred {
            images.coarse.push(label(name, at(0), record[0].into(), 20)?);
            images.fine.push(label(name, at(1), record[1].into(), 100)?);
        } else {
            images.fine.push(label(name, at(0), record[0].into(), 10)?);
        }
        images.pixels.extend_from_slice(&record[head..]);
    }
    Ok(images)
}

/// A dictionary with `data`, an array of 3072 bytes a row, and `labels` (CIFAR-100: `fine_labels` and `coarse_labels`).
fn parse_python(name: &str, bytes: &[u8], hundred: bool) -> Result<Images> {
    let pickle = Pickle::parse(name, bytes)?;
    let missing =
        |key: &str, what: &str| DataError::format(name, 0, format!("no {key} of the expected form"), what);
    let rows = "an array of unsigned bytes, 3072 in a row";
    let (shape, pixels) =
        pickle.get("data").and_then(|v| pickle.array(v)).ok_or_else(|| missing("data", rows))?;
    if shape.len() != 2 || shape[1] != PIXELS || shape[0] == 0 {
        return Err(DataError::format(name, 0, format!("data of shape {shape:?}"), format!("[N, {PIXELS}]")));
    }
    let labels = |key: &str, classes: i64| -> Result<Vec<i64>> {
        let found =
            pickle.get(key).and_then(|v| pickle.ints(v)).ok_or_else(|| missing(key, "a list of integers"))?;
        if found.len() != shape[0] {
            let found = format!("{} numbers in {key}", found.len());
            return Err(DataError::format(name, 0, found, format!("one for each of {} images", shape[0])));
        }
        found.into_iter().map(|l| label(name, 0, l, classes)).collect()
    };
    let (fine, coarse) = match hundred {
        true => (labels("fine_labels", 100)?, labels("coarse_labels", 20)?),
        false => (labels("labels", 10)?, vec![]),
    };
    Ok(Images { pixels: pixels.to_vec(), fine, coarse })
}

fn label(name: &str, at: u64, found: i64, classes: i64) -> Result<i64> {
    match (0..classes).contains(&found) {
        true => Ok(found),
        false => Err(DataError::format(name, at, format!("label {found}"), format!("0 to {}", classes - 1))),
    }
}

#[cfg(test)]
mod tests;
