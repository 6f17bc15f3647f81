//! Where batches come from.

use tapegrad_tape::Var;

type Epoch<'a> = Box<dyn Iterator<Item = (Var, Var)> + 'a>;

/// Batches of inputs and targets, epoch after epoch.
///
/// ```
/// use tapegrad_nn::train::Source;
/// use tapegrad_tape::{DType, Tensor, Var};
/// let batch = || (Var::from(Tensor::ones_with(&[8, 3], DType::F32)), Var::from(Tensor::zeros_with(&[8], DType::I64)));
/// let source = Source::new(move || (0..10).map(move |_| batch()));
/// # let _ = source;
/// ```
pub struct Source<'a> {
    epoch: Box<dyn FnMut() -> Epoch<'a> + 'a>,
    position: Option<Position<'a>>,
    smallest: Option<usize>,
}

struct Position<'a> {
    get: Box<dyn Fn() -> Vec<i64> + 'a>,
    set: Box<dyn FnMut(&[i64]) -> Result<(), String> + 'a>,
}

impl<'a> Source<'a> {
    /// Each call gives the batches of one epoch.
    pub fn new<I: Iterator<Item = (Var, Var)> + 'a>(mut epoch: impl FnMut() -> I + 'a) -> Source<'a> {
        Source { epoch: Box::new(move || Box::new(epoch())), position: None, smallest: None }
    }

    /// This source with a position that checkpoints save: `get` returns it and `set` restores it, so that the next
    /// epoch is the rest of the interrupted one. Without it, training resumes at the start of an epoch.
    pub fn resumable(
        mut self,
        get: impl Fn() -> Vec<i64> + 'a,
        set: impl FnMut(&[i64]) -> Result<(), String> + 'a,
    ) -> Source<'a> {
        self.position = Some(Position { get: Box::new(get), set: Box::new(set) });
        self
    }

    /// This source with a function of input and target that is applied to each batch.
    ///
    /// ```
    /// use tapegrad_nn::train::Source;
    /// let rows = |source: Source<'static>| source.map(|x, target| (x.flatten(1), target));
    /// # let _ = rows;
    /// ```
    pub fn map(self, f: impl Fn(Var, Var) -> (Var, Var) + 'a) -> Source<'a> {
        let Source { mut epoch, position, smallest } = self;
        let f = std::rc::Rc::new(f);
        let mapped = move || -> Epoch<'a> {
            let f = f.clone();
            Box::new(epoch().map(move |(x, target)| f(x, target)))
        };
        Source { epoch: Box::new(mapped), position, smallest }
    }

    /// This source with the number of samples in its smallest batch: a batch of one, whose variance batch
    /// normalization cannot compute, is then reported before training begins.
    pub fn smallest_batch(mut self, samples: usize) -> Source<'a> {
        self.smallest = Some(samples);
        self
    }

    pub(super) fn smallest(&self) -> Option<usize> {
        self.smallest
    }

    pub(super) fn epoch(&mut self) -> Epoch<'a> {
        (self.epoch)()
    }

    pub(super) fn is_resumable(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn position(&self) -> Vec<i64> {
        self.position.as_ref().map_or_else(Vec::new, |p| (p.get)())
    }

    pub(super) fn set_position(&mut self, position: &[i64]) -> Result<(), String> {
        match &mut self.position {
            Some(p) => (p.set)(position),
            None => Ok(()),
        }
    }
}
