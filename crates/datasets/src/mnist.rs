//! MNIST and the data sets that share its format: Fashion-MNIST, KMNIST, EMNIST; as IDX or CSV files.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::images::ImageDataset;
use crate::{csv, idx, synthetic};

/// The class names of Fashion-MNIST.
pub const FASHION_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// The class names of KMNIST.
pub const KMNIST_CLASSES: [&str; 10] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"];

const EXPECTED: &str = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
     t10k-labels-idx1-ubyte (with or without .gz), the same of one EMNIST split, or mnist_train.csv and mnist_test.csv";

/// A training and a test set of 28x28 gray images (or of the files' own size).
#[derive(Debug, Clone)]
pub struct Mnist {
    /// The training set.
    pub train: ImageDataset,
    /// The test set.
    pub test: ImageDataset,
}

impl Mnist {
    /// Reads the data set from a folder and recognizes its format by the published file names.
    ///
    /// IDX files, raw or `.gz`, come first, then those of an EMNIST split, then `mnist_train.csv` and
    /// `mnist_test.csv`. The files may also be in `raw`, `MNIST/raw`, `FashionMNIST/raw` or `KMNIST/raw` below the
    /// folder, where torchvision puts them. EMNIST images, which are published transposed, are transposed back, and
    /// labels of its letters start at 0.
    ///
    /// # Errors
    /// If the folder or a file is missing, malformed or inconsistent with the others.
    ///
    /// ```no_run
    /// let mnist = tapegrad_datasets::Mnist::open("data/mnist")?;
    /// assert_eq!(mnist.train.shape(), [60000, 1, 28, 28]);
    /// # Ok::<(), tapegrad_datasets::DataError>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut seen = names(dir)?;
        if find(&seen, "train-images", 3).is_none() {
            for (below, classes) in [
                ("raw", None),
                ("MNIST/raw", None),
                ("FashionMNIST/raw", Some(FASHION_CLASSES)),
                ("KMNIST/raw", Some(KMNIST_CLASSES)),
            ] {
                let inner = dir.join(below);
                if inner.is_dir() {
                    let set = Mnist::open(inner)?;
                    return Ok(match classes {
                        Some(classes) => Mnist {
                            train: set.train.with_classes(&classes),
                            test: set.test.with_classes(&classes),
                        },
                        None => set,
                    });
                }
            }
        }
        seen.sort();
        if seen.iter().any(|n| is_idx(n, "train-images", 3) || is_idx(n, "t10k-images", 3)) {
            return Self::from_idx(dir, &seen, "train", "t10k", digits(), false);
        }
        for (split, classes) in emnist_classes() {
            let train = format!("emnist-{split}-train");
            if find(&seen, &format!("{train}-images"), 3).is_some() {
                let test = format!("emnist-{split}-test");
                return Self::from_idx(dir, &seen, &train, &test, classes, true);
            }
        }
        if seen.iter().any(|n| n == "mnist_train.csv" || n == "mnist_test.csv") {
            return Self::from_csv(dir.join("mnist_train.csv"), dir.join("mnist_test.csv"));
        }
        let found = match seen.len() {
            0 => "an empty folder".to_string(),
            n => format!(
                "{n} other entries ({}{})",
                seen[..n.min(3)].join(", "),
                if n > 3 { ", ..." } else { "" }
            ),
        };
        Err(DataError::folder(dir, found, EXPECTED))
    }

    /// Reads the set from two text files (see [`csv`](crate::csv)) of 28x28 digits.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub fn from_csv(train: impl AsRef<Path>, test: impl AsRef<Path>) -> Result<Self> {
        let (train, test) = (train.as_ref(), test.as_ref());
        let read = |path: &Path| {
            let images = csv::read(path, 784, 10)?;
            let labels = images.labels.iter().map(|&l| l.into()).collect::<Vec<i64>>();
            Ok(ImageDataset::new(images.pixels, [labels.len(), 1, 28, 28], labels, digits()))
        };
        both(|| read(train), || read(test))
    }

    /// Synthetic digits instead of files: `train` and `test` images that do not overlap (see
    /// [`synthetic`](crate::synthetic)).
    ///
    /// ```
    /// let set = tapegrad_datasets::Mnist::synthetic(200, 50, 0);
    /// assert_eq!(set.test.shape(), [50, 1, 28, 28]);
    /// ```
    pub fn synthetic(train: usize, test: usize, seed: u64) -> Self {
        Mnist {
            train: synthetic::digits(train, seed),
            test: synthetic::digits_from(synthetic::TEST_START, test, seed),
        }
    }

    fn from_idx(
        dir: &Path,
        seen: &[String],
        train: &str,
        test: &str,
        classes: Vec<String>,
        emnist: bool,
    ) -> Result<Self> {
        let read = |prefix: &str| {
            let path = |kind: &str, dims| -> Result<PathBuf> {
                let stem = format!("{prefix}-{kind}");
                let name = find(seen, &stem, dims);
                let wanted =
                    format!("{stem}-idx{dims}-ubyte or {stem}-idx{dims}-ubyte.gz beside the other files");
                name.map(|n| dir.join(n)).ok_or_else(|| DataError::folder(dir, "no such file", wanted))
            };
            let (images, labels) = (path("images", 3)?, path("labels", 1)?);
            read_pair(&images, &labels, &classes, emnist)
        };
        both(|| read(train), || read(test))
    }
}

/// Reads a file of images and the file of their labels, both IDX.
///
/// # Errors
/// If a file is broken, the numbers of entries differ, or a label is not below the number of classes.
pub fn read_idx_pair(
    images: impl AsRef<Path>,
    labels: impl AsRef<Path>,
    classes: &[&str],
) -> Result<ImageDataset> {
    let classes: Vec<String> = classes.iter().map(|&c| c.into()).collect();
    read_pair(images.as_ref(), labels.as_ref(), &classes, false)
}

fn read_pair(images: &Path, labels: &Path, classes: &[String], emnist: bool) -> Result<ImageDataset> {
    let label_name = labels.display().to_string();
    let (image_array, label_array) = (idx::read(images, 3)?, idx::read(labels, 1)?);
    let (&[count, rows, columns], mut pixels) = (&image_array.shape[..], image_array.data) else {
        unreachable!("an image file has three dimensions");
    };
    if count != label_array.data.len() {
        return Err(DataError::Counts {
            images: images.display().to_string(),
            image_count: count,
            labels: label_name,
            label_count: label_array.data.len(),
        });
    }
    // EMNIST counts its letters from 1.
    let first = u8::from(emnist && classes.len() == 26);
    let last = first as usize + classes.len() - 1;
    if let Some(at) = label_array.data.iter().position(|&l| l < first || l as usize > last) {
        let found = format!("label {}", label_array.data[at]);
        return Err(DataError::format(&label_name, 8 + at as u64, found, format!("{first} to {last}")));
    }
    if emnist {
        if rows != columns {
            let found = format!("images of {rows}x{columns}");
            return Err(DataError::format(
                &images.display().to_string(),
                8,
                found,
                "square ones, as EMNIST has",
            ));
        }
        pixels.chunks_exact_mut(rows * rows).for_each(|image| transpose(image, rows));
    }
    let labels = label_array.data.iter().map(|&l| i64::from(l - first)).collect();
    Ok(ImageDataset::new(pixels, [count, 1, rows, columns], labels, classes.to_vec()))
}

fn transpose(image: &mut [u8], side: usize) {
    for y in 0..side {
        for x in 0..y {
            image.swap(y * side + x, x * side + y);
        }
    }
}

/// Reads the training and the test set at the same time.
fn both(
    train: impl Fn() -> Result<ImageDataset> + Send,
    test: impl Fn() -> Result<ImageDataset> + Send,
) -> Result<Mnist> {
    let (train, test) = crate::parallel::join(train, test);
    Ok(Mnist { train: train?, test: test? })
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|e| DataError::io(dir, e))?;
    entries
        .map(|e| Ok(e.map_err(|e| DataError::io(dir, e))?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The published name, raw or compressed; some unpackers write a dot instead of the second hyphen.
fn is_idx(name: &str, stem: &str, dims: usize) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let rest = name.strip_prefix(stem).and_then(|r| r.strip_prefix(['-', '.']));
    rest.and_then(|r| r.strip_prefix("idx")).and_then(|r| r.strip_suffix("-ubyte")) == Some(&dims.to_string())
}

/// The file in question; the uncompressed one if both exist.
fn find<'a>(seen: &'a [String], stem: &str, dims: usize) -> Option<&'a String> {
    seen.iter().filter(|n| is_idx(n, stem, dims)).min_by_key(|n| n.ends_with(".gz"))
}

fn digits() -> Vec<String> {
    (0..10).map(|d| d.to_string()).collect()
}

fn emnist_classes() -> [(&'static str, Vec<String>); 6] {
    let split = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    let capitals = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let small = "abcdefghijklmnopqrstuvwxyz";
    // Where upper and lower case look alike, these splits merge both into one class.
    let merged = split(&format!("{capitals}abdefghnqrt"));
    [
        ("balanced", merged.clone()),
        ("bymerge", merged),
        ("byclass", split(&format!("{capitals}{small}"))),
        ("letters", split(small)),
        ("digits", digits()),
        ("mnist", digits()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx_bytes(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn write_set(dir: &Path, train: &str, test: &str, label: u8) {
        for (prefix, n) in [(train, 3u8), (test, 2)] {
            let pixels: Vec<u8> = (0..n * 4).collect();
            std::fs::write(
                dir.join(format!("{prefix}-images-idx3-ubyte")),
                idx_bytes(&[n.into(), 2, 2], &pixels),
            )
            .unwrap();
            let labels = idx_bytes(&[n.into()], &vec![label; n.into()]);
            let file = std::fs::File::create(dir.join(format!("{prefix}-labels-idx1-ubyte.gz"))).unwrap();
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(&labels).unwrap();
            encoder.finish().unwrap();
        }
    }

    #[test]
    fn opens_a_folder_raw_and_gzip_mixed() {
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), "train", "t10k", 9);
        let set = Mnist::open(dir.path()).unwrap();
        assert_eq!(set.train.shape(), [3, 1, 2, 2]);
        assert_eq!(set.test.labels(), [9, 9]);
        assert_eq!(set.train.image(1), [4, 5, 6, 7]);
        assert_eq!(set.train.classes()[9], "9");

        std::fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte.gz")).unwrap();
        let message = Mnist::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("found no such file, expected t10k-labels-idx1-ubyte"), "{message}");
    }

    #[test]
    fn finds_the_layout_of_torchvision() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("FashionMNIST/raw");
        std::fs::create_dir_all(&raw).unwrap();
        write_set(&raw, "train", "t10k", 9);
        assert_eq!(Mnist::open(dir.path()).unwrap().test.classes()[9], "Ankle boot");
    }

    #[test]
    fn emnist_is_turned_upright_and_counts_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), "emnist-letters-train", "emnist-letters-test", 26);
        let set = Mnist::open(dir.path()).unwrap();
        assert_eq!(set.train.labels(), [25; 3]);
        assert_eq!(set.train.classes()[25], "z");
        assert_eq!(set.train.image(0), [0, 2, 1, 3]);
        let images = dir.path().join("emnist-letters-train-images-idx3-ubyte");
        std::fs::write(&images, idx_bytes(&[3, 1, 4], &[0; 12])).unwrap();
        let message = Mnist::open(dir.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("offset 8: found images of 1x4, expected square ones, as EMNIST has"),
            "{message}"
        );
        assert_eq!(emnist_classes()[0].1.len(), 47);
        assert_eq!(emnist_classes()[2].1.len(), 62);
    }

    #[test]
    fn mismatches_are_clear() {
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), "train", "t10k", 9);
        let labels = dir.path().join("train-labels-idx1-ubyte");
        std::fs::write(&labels, idx_bytes(&[2], &[1, 2])).unwrap();
        let message = Mnist::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("train-images-idx3-ubyte holds 3 images but "), "{message}");
        assert!(message.ends_with("train-labels-idx1-ubyte holds 2 labels"), "{message}");
        std::fs::write(&labels, idx_bytes(&[3], &[1, 10, 2])).unwrap();
        let message = Mnist::open(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("offset 9: found label 10, expected 0 to 9"), "{message}");

        let empty = tempfile::tempdir().unwrap();
        assert!(
            Mnist::open(empty.path())
                .unwrap_err()
                .to_string()
                .contains("found an empty folder, expected train-")
        );
        let missing = Mnist::open(empty.path().join("nothing")).unwrap_err().to_string();
        assert!(missing.contains("nothing: No such file"), "{missing}");
    }

    #[test]
    fn csv_folder() {
        let dir = tempfile::tempdir().unwrap();
        let row = |label: u8| format!("{label}{}\n", ",7".repeat(784));
        std::fs::write(dir.path().join("mnist_train.csv"), format!("{}{}", row(1), row(2))).unwrap();
        std::fs::write(dir.path().join("mnist_test.csv"), row(3)).unwrap();
        let set = Mnist::open(dir.path()).unwrap();
        assert_eq!((set.train.labels(), set.test.labels()), (&[1, 2][..], &[3][..]));
        assert_eq!(set.test.image(0), [7; 784]);
    }

    #[test]
    fn the_real_files_where_they_are() {
        let Some(root) = crate::test_data("mnist") else { return };
        let start = std::time::Instant::now();
        let set = Mnist::open(root).unwrap();
        println!("MNIST read in {:?}", start.elapsed());
        assert_eq!(set.train.shape(), [60000, 1, 28, 28]);
        assert_eq!(set.test.shape(), [10000, 1, 28, 28]);
        // The usual statistics of MNIST, and the first labels of the published files.
        let statistics = set.train.statistics();
        assert!((statistics.mean[0] - 0.1307).abs() < 5e-5 && (statistics.std[0] - 0.3081).abs() < 5e-5);
        assert_eq!(set.train.labels()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        if let Some(csv) = crate::test_data("mnist-csv") {
            let start = std::time::Instant::now();
            let text = Mnist::open(csv).unwrap();
            println!("MNIST as text read in {:?}", start.elapsed());
            assert!(text.train.pixels() == set.train.pixels() && text.test.labels() == set.test.labels());
        }
    }
}
