//! Networks composed of layers, on CIFAR-10 or on synthetic shapes: what to check before training, how optimizers and
//! dropout compare, and how far a fully connected network and a small convolutional one get.
//!
//! ```text
//! cargo run --release --example modular_networks -- --quick
//! cargo run --release --example modular_networks -- --data path/to/cifar-10-batches-bin --part convnet
//! ```

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod checks;
mod cifar;
mod compare;
mod convolution;
mod measures;

use clap::{Parser, ValueEnum};
use common::course::{Common, headline};
use common::fit::{cifar as read, normalized};
use std::cell::OnceCell;
use std::sync::Arc;
use tapegrad::datasets::{ImageDataset, Subset};
use tapegrad::nn::train::Trainer;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// The first loss is that of a guess; L2 regularization adds to it
    Loss,
    /// Gradients against finite differences
    Gradients,
    /// Overfit 50 images
    Overfit,
    /// Six optimizers on six layers
    Optimizers,
    /// 500 images with and without dropout
    Dropout,
    /// A fully connected network on all images
    FullyConnected,
    /// The three-layer convolutional network on all images, and its filters
    Convnet,
    /// A naive convolution against the library's
    Convolution,
}

/// Modular networks on CIFAR-10: checks, comparisons and two trained networks.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// What to do; may be given several times [default: everything]
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Epochs for the networks that are trained on all images [default: 10 and 12, or 2 in a quick run]
    #[arg(long)]
    epochs: Option<u64>,
}

/// What all parts share.
struct Course {
    common: Common,
    epochs: Option<u64>,
    images: OnceCell<(ImageDataset, ImageDataset)>,
}

impl Course {
    /// The training and test images, normalized; loaded on first use.
    fn images(&self) -> &(ImageDataset, ImageDataset) {
        self.images.get_or_init(|| {
            let (train, test) = self.common.either((50_000, 10_000), (2_000, 500));
            let all = read(&self.common, train, test);
            if all.train.shape()[1..] != [3, 32, 32] || all.train.shape()[0] < 600 {
                common::fail(format!(
                    "{}: these networks take at least 600 images of 32x32 pixels in color",
                    self.common.data
                ));
            }
            normalized(all.train, all.test)
        })
    }

    /// The last training images, for validation.
    fn held_out(&self) -> Subset {
        let (train, _) = self.images();
        let n = train.shape()[0];
        Subset::new(Arc::new(train.clone()), (n - (n / 4).min(2_000)..n).collect())
    }
}

/// This trainer, printing each epoch.
fn talking<'a>(trainer: Trainer<'a>) -> Trainer<'a> {
    trainer.on_epoch(|history| println!("  {}", common::fit::line(history)))
}

fn main() {
    let args = Args::parse();
    let common = args.common.prepared("modular_networks");
    let course = Course { common, epochs: args.epochs, images: OnceCell::new() };
    let parts = if args.part.is_empty() { Part::value_variants().to_vec() } else { args.part };
    for part in parts {
        let (title, run): (&str, fn(&Course)) = match part {
            Part::Loss => ("The first loss", checks::loss),
            Part::Gradients => ("Gradients against finite differences", checks::gradients),
            Part::Overfit => ("Overfitting 50 images", checks::overfit),
            Part::Optimizers => ("Six optimizers", compare::optimizers),
            Part::Dropout => ("Dropout", compare::dropout),
            Part::FullyConnected => ("A fully connected network", cifar::fully_connected),
            Part::Convnet => ("The three-layer convolutional network", cifar::convnet),
            Part::Convolution => ("Convolution, naive and fast", convolution::compare),
        };
        headline(title);
        // Each part gives the same results, alone or with the others.
        tapegrad::tape::manual_seed(course.common.seed);
        run(&course);
    }
}
