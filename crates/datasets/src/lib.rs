//! Data sets, transforms and data loaders.
//!
//! [`Mnist`] reads the published files of MNIST and its relatives, [`Cifar`] those of CIFAR-10 and CIFAR-100;
//! [`synthetic`] draws images if there are no files. A [`Dataset`] returns single samples of any
//! type, a [`DataLoader`] makes batches of them, and an [`ImageLoader`] batches of images, which [`transforms`] change. With the feature `download`, `download` fetches
//! the files; with the feature `image-folder`, `ImageFolder` reads PNG and JPEG files in folders.
#![forbid(unsafe_code)]

mod cifar;
mod collate;
pub mod csv;
mod dataset;
#[cfg(feature = "download")]
mod download;
mod error;
pub mod idx;
#[cfg(feature = "image-folder")]
mod image_folder;
mod images;
mod loader;
mod mnist;
mod parallel;
mod sampler;
mod stream;
pub mod synthetic;
mod table;
pub mod transforms;
mod whitening;

pub use cifar::{CIFAR10_CLASSES, Cifar, Coarse};
pub use collate::{Collate, IntoVars, pad_sequence};
pub use dataset::{ConcatDataset, Dataset, Rows, Subset, TensorDataset, random_split, random_split_with};
#[cfg(feature = "download")]
pub use download::{Progress, download};
pub use error::{DataError, Result};
#[cfg(feature = "image-folder")]
pub use image_folder::ImageFolder;
pub use images::{ImageDataset, Images, Normalization, image_sample};
pub use loader::{
    Augmented, Batch, Batches, Collated, DataLoader, ImageLoader, Loader, LoaderState, Prepare, TryBatches,
    Vars,
};
pub use mnist::{FASHION_CLASSES, KMNIST_CLASSES, Mnist, read_idx_pair};
pub use sampler::{DistributedSampler, RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler};
pub use stream::{StreamBatches, StreamLoader};
pub use table::{Standardization, Table};
/// The reader of pickled data files.
pub use tapegrad_pickle as pickle;
pub use whitening::Whitening;

/// The folder `name` of the data that `TAPEGRAD_TEST_DATA` points to, for tests on real files; says so if they are
/// skipped.
#[cfg(test)]
pub(crate) fn test_data(name: &str) -> Option<std::path::PathBuf> {
    let dir = std::env::var_os("TAPEGRAD_TEST_DATA")
        .map(|d| std::path::Path::new(&d).join(name))
        .filter(|d| d.is_dir());
    if dir.is_none() {
        println!("skipped: TAPEGRAD_TEST_DATA names no folder with {name}/");
    }
    dir
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
