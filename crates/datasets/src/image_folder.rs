//! Images in folders, one for each class.

use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use tapegrad_tape::Tensor;

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::images::{Images, Normalization, image_sample};

/// The names of files that are images.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Deeper folders are refused: a link may lead back.
const DEPTH: usize = 16;

/// PNG and JPEG files in folders that are named like their classes, as `torchvision.datasets.ImageFolder`:
/// `root/cat/1.png`, `root/dog/any/depth/2.jpg`. The classes and the files are in the order of their names.
///
/// An image is read from its file each time that it is asked for; its shorter side is scaled to the size, and the middle is
/// cut out.
///
/// ```no_run
/// use tapegrad_datasets::{ImageFolder, ImageLoader};
/// let photos = ImageFolder::open("data/photos", [3, 64, 64])?;
/// for (images, labels) in &ImageLoader::new(photos).batch_size(32).shuffle(true).workers(2) {
///     assert_eq!(images.shape(), [labels.numel(), 3, 64, 64]);
/// }
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageFolder {
    files: Vec<(PathBuf, i64)>,
    classes: Vec<String>,
    shape: [usize; 3],
    normalization: Option<Normalization>,
}

impl ImageFolder {
    /// Lists the images of a folder, which are read as `[channels, height, width]`: one channel of gray, or three of colors.
    ///
    /// # Errors
    /// If a folder cannot be read, there are no folders in it, or one of them has no image.
    ///
    /// # Panics
    /// If there are not one or three channels, or a size is zero.
    #[track_caller]
    pub fn open(dir: impl AsRef<Path>, shape: [usize; 3]) -> Result<Self> {
        let [channels, height, width] = shape;
        assert!(
            (channels == 1 || channels == 3) && height > 0 && width > 0,
            "ImageFolder: images are [1, height, width] or [3, height, width], got {shape:?}"
        );
        let dir = dir.as_ref();
        let folders: Vec<PathBuf> = entries(dir)?.into_iter().filter(|p| p.is_dir()).collect();
        if folders.is_empty() {
            return Err(DataError::folder(dir, "no folders", "a folder of images for each class"));
        }
        let (mut files, mut classes) = (Vec::new(), Vec::new());
        for (label, folder) in folders.iter().enumerate() {
            let mut found = Vec::new();
            list(folder, DEPTH, &mut found)?;
            if found.is_empty() {
                let expected = format!("files that end with {}", EXTENSIONS.join(", "));
                return Err(DataError::folder(folder, "no images", expected));
            }
            files.extend(found.into_iter().map(|path| (path, label as i64)));
            classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(ImageFolder { files, classes, shape, normalization: None })
    }

    /// The same images, read as `(x - mean) / std`.
    ///
    /// # Panics
    /// If there is not one mean for each channel.
    #[track_caller]
    #[must_use]
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        assert_eq!(
            normalization.mean.len(),
            self.shape[0],
            "with_normalization: {} means for {} channels",
            normalization.mean.len(),
            self.shape[0]
        );
        self.normalization = Some(normalization);
        self
    }

    /// The file of each image and its label.
    pub fn files(&self) -> &[(PathBuf, i64)] {
        &self.files
    }
}

/// The entries of a folder, by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(dir).and_then(|entries| {
        entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<PathBuf>>>()
    });
    let mut paths = read.map_err(|e| DataError::io(dir, e))?;
    paths.sort();
    Ok(paths)
}

fn list(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(dir)? {
        if path.is_dir() {
            let below = depth.checked_sub(1).ok_or_else(|| {
                DataError::folder(dir, "folders in folders", format!("at most {DEPTH} levels"))
            })?;
            list(&path, below, found)?;
        } else if path
            .extension()
            .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Decodes an image: what its bytes are decides, not its name.
fn decode(path: &Path) -> Result<DynamicImage> {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let reader = reader.map_err(|e| DataError::io(path, e))?;
    reader.decode().map_err(|e| {
        let reason = e.to_string().replace('\n', " ");
        DataError::format(&path.display().to_string(), 0, reason, "an image")
    })
}

impl Dataset for ImageFolder {
    type Sample = (Tensor, i64);

    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<(Tensor, i64)> {
        image_sample(self, index)
    }
}

impl Images for ImageFolder {
    fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64> {
        let (path, label) = &self.files[index];
        let [channels, height, width] = self.shape;
        let scaled = decode(path)?.resize_to_fill(width as u32, height as u32, FilterType::Triangle);
        let bytes =
            if channels == 1 { scaled.into_luma8().into_raw() } else { scaled.into_rgb8().into_raw() };
        for (i, pixel) in bytes.chunks_exact(channels).enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                image[c * height * width + i] = f32::from(value) / 255.0;
            }
        }
        if let Some(normalization) = &self.normalization {
            normalization.apply(image);
        }
        Ok(*label)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageLoader;
    use image::{Rgb, RgbImage};

    fn save(path: PathBuf, width: u32, height: u32, color: [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, height, Rgb(color)).save(path).unwrap();
    }

    #[test]
    fn folders_are_classes() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path().join("b/2.png"), 8, 4, [255, 0, 51]);
        save(dir.path().join("b/deep/1.JPG"), 9, 9, [255, 255, 255]);
        save(dir.path().join("a/x.png"), 3, 3, [0, 102, 0]);
        std::fs::write(dir.path().join("b/notes.txt"), "no image").unwrap();
        std::fs::write(dir.path().join("readme"), "no folder").unwrap();
        let set = ImageFolder::open(dir.path(), [3, 2, 2]).unwrap();
        assert_eq!(set.classes(), ["a", "b"]);
        let names: Vec<_> =
            set.files().iter().map(|(p, l)| (p.file_name().unwrap().to_str().unwrap(), *l)).collect();
        assert_eq!(names, [("x.png", 0), ("2.png", 1), ("1.JPG", 1)]);
        let (image, label) = set.get(1).unwrap();
        let color = |i: usize| [1.0f32, 0.0, 0.2][i / 4];
        assert_eq!((image.to_vec::<f32>(), label), ((0..12).map(color).collect(), 1));
        let gray = ImageFolder::open(dir.path(), [1, 5, 3]).unwrap();
        assert_eq!(gray.get(2).unwrap().0.shape(), [1, 5, 3]);
        for (images, labels) in &ImageLoader::new(set).batch_size(3) {
            assert_eq!((images.shape(), labels.to_vec::<i64>()), (&[3, 3, 2, 2][..], vec![0, 1, 1]));
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = |shape| ImageFolder::open(dir.path(), shape).unwrap_err().to_string();
        assert!(message([3, 2, 2]).contains("found no folders, expected a folder of images for each class"));
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(message([3, 2, 2]).contains("found no images, expected files that end with png, jpg, jpeg"));
        std::fs::write(dir.path().join("empty/broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
        let set = ImageFolder::open(dir.path(), [3, 2, 2]).unwrap();
        let error = ImageLoader::new(set).try_iter().next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with("sample 0: ") && error.contains("broken.png: offset 0: found "), "{error}");
    }
}
