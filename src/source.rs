//! Connects data and training: a loader as a trainer's source.

use crate::datasets::{IntoVars, Loader, LoaderState, Prepare};
use crate::nn::train::Source;
use crate::tape::Var;

/// The batches of a loader for a [`Trainer`](crate::nn::train::Trainer): inputs and targets; of images, their labels or,
/// after mixup and cutmix, class probabilities. A checkpoint keeps the loader's position.
///
/// ```
/// use tapegrad::prelude::*;
/// use tapegrad::datasets::{ImageLoader, synthetic};
/// use tapegrad::nn::train::Trainer;
/// let loader = ImageLoader::new(synthetic::digits(64, 0)).batch_size(32).shuffle(true);
/// let model = nn::Sequential::new().add(nn::Flatten::new()).add(nn::Linear::new(784, 10));
/// let mut trainer = Trainer::new(&model, nn::optim::SGD::new(model.parameters(), 0.1));
/// let history = trainer.fit(tapegrad::source(&loader), None).unwrap();
/// assert_eq!(history[0].step, 2);
/// ```
pub fn source<R: Prepare>(loader: &Loader<R>) -> Source<'_>
where
    R::Batch: IntoVars<Vars = (Var, Var)>,
{
    Source::new(move || loader.into_iter()).smallest_batch(loader.smallest_batch()).resumable(
        || loader.state().to_array().map(|n| n as i64).to_vec(),
        |place| {
            let numbers: [i64; 5] =
                place.try_into().map_err(|_| "its place is not that of a loader".to_string())?;
            let saved = numbers.map(|n| n as u64);
            let differences = differences(saved, loader.state().to_array());
            if !differences.is_empty() {
                return Err(differences.join("; "));
            }
            loader.restore(LoaderState::from_array(saved)).map_err(|e| e.to_string())
        },
    )
}

/// The fields in which one loader position differs from another.
fn differences(saved: [u64; 5], now: [u64; 5]) -> Vec<String> {
    let names = [(2, "the loader's seed"), (3, "the number of samples"), (4, "the batch size")];
    let changed = names.into_iter().filter(|&(i, _)| saved[i] != now[i]);
    changed.map(|(i, name)| format!("{name} was {}, and is {}", saved[i], now[i])).collect()
}
