//! Shared by the coursework programs: their flags, their data and the comparison of two results.

use super::{open_folder, or_fail};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::path::PathBuf;
use tapegrad::datasets::Mnist;
use tapegrad::nn::RunFolder;
use tapegrad::prelude::*;

/// The flags of every coursework program.
///
/// A program with its own flags includes these with `#[command(flatten)]` and calls [`Common::prepared`].
#[derive(Parser)]
pub(crate) struct Common {
    /// A folder with the files of MNIST or CIFAR-10, whichever the program is for; `synthetic` draws images
    /// instead. Programs that need no data ignore it
    #[arg(long, default_value = "synthetic")]
    pub data: String,
    /// The folder for the images [default: runs/ and the program's name]
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A quick run that takes seconds
    #[arg(long)]
    pub quick: bool,
    /// The folder, locked while the program runs.
    #[arg(skip)]
    run: Option<RunFolder>,
}

impl Common {
    /// Reads the command line of a program that has no other flags.
    pub(crate) fn start(name: &'static str, about: &'static str) -> Common {
        let matches = Common::command().name(name).about(about).long_about(None).get_matches();
        Common::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()).prepared(name)
    }

    /// These flags, after setting the seed and creating the folder.
    pub(crate) fn prepared(mut self, name: &str) -> Common {
        let out = self.out.take().unwrap_or_else(|| PathBuf::from("runs").join(name));
        self.run = Some(open_folder(&out));
        self.out = Some(out);
        manual_seed(self.seed);
        self
    }

    /// The path of a file among the results.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.out.clone().unwrap_or_default().join(name)
    }

    /// The first value, or the second in a quick run.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Digits from `--data`, or synthetic ones; at most this many.
    pub(crate) fn mnist(&self, train: usize, test: usize) -> Mnist {
        match self.data.as_str() {
            "synthetic" => Mnist::synthetic(train, test, self.seed),
            dir => {
                let all = or_fail(Mnist::open(dir));
                Mnist { train: all.train.take(train), test: all.test.take(test) }
            }
        }
    }
}

/// The largest difference between the elements of two results of the same shape.
pub(crate) fn difference(a: &Var, b: &Var) -> f64 {
    assert_eq!(a.shape(), b.shape(), "results of different shapes");
    let (a, b) = (a.cast(DType::F64).to_vec::<f64>(), b.cast(DType::F64).to_vec::<f64>());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() { d } else { m.max(d) })
}

/// A headline between the parts of a program's output.
pub(crate) fn headline(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.chars().count()));
}
