//! Virtual shards: sums over parts of a batch in an order that does not depend on the number of ranks.

use crate::sum::add;
use std::ops::Range;
use tapegrad_tape::Tensor;

/// One of the virtual shards of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number among all, from 0.
    pub index: usize,
    /// The number of all.
    pub count: usize,
}

impl Shard {
    /// The samples of a batch of `total` that belong to it; some shards have none if there are fewer than shards.
    pub fn samples(&self, total: usize) -> Range<usize> {
        (self.index * total).div_ceil(self.count)..((self.index + 1) * total).div_ceil(self.count)
    }
}

/// The sum of a tensor over a rank's shards, one after another, as a balanced tree.
#[derive(Clone, Default)]
pub(crate) struct TreeSum {
    /// The sum of 1, 2, 4, ... shards that wait for as many more.
    levels: Vec<Option<Tensor>>,
}

impl TreeSum {
    /// Adds the value of shard `number` of `count`; absent is zero. At the last, returns the sum, if any was present.
    pub(crate) fn push(&mut self, number: usize, count: usize, value: Option<Tensor>) -> Option<Tensor> {
        if count == 1 {
            return value;
        }
        let mut value = value;
        let mut level = 0;
        while (number >> level) & 1 == 1 {
            value = joined(self.levels[level].take(), value);
            level += 1;
        }
        if number + 1 < count {
            self.levels.resize(self.levels.len().max(level + 1), None);
            self.levels[level] = value;
            return None;
        }
        // Shards that are not a power of two leave sums behind, the largest of the first ones.
        for higher in level + 1..self.levels.len() {
            if (count >> higher) & 1 == 1 {
                value = joined(self.levels[higher].take(), value);
            }
        }
        self.levels.clear();
        value
    }
}

/// The sum, as if an absent value were zeros: this turns negative zeros into positive ones.
fn joined(a: Option<Tensor>, b: Option<Tensor>) -> Option<Tensor> {
    match (a, b) {
        (Some(a), Some(b)) => Some(add(a, &b)),
        (Some(t), None) | (None, Some(t)) => {
            let zeros = Tensor::zeros_with(t.shape(), t.dtype());
            Some(add(t, &zeros))
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sum::{Reduce, combine};
    use tapegrad_tape::Generator;

    #[test]
    fn shards_one_after_another_are_the_tree() {
        for count in 1..=17 {
            let values: Vec<Vec<f32>> = (0..count)
                .map(|i| Generator::manual_seed(i as u64).normal(&[50], 0.0, 1.0).to_vec::<f32>())
                .collect();
            let rows: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            let mut expected = vec![0f32; 50];
            combine(&rows, &mut expected, Reduce::Sum);
            let mut sum = TreeSum::default();
            for (i, v) in values.iter().enumerate() {
                let result = sum.push(i, count, Some(Tensor::from_slice(v, &[50])));
                assert_eq!(result.is_some(), i + 1 == count);
                if let Some(t) = result {
                    assert_eq!(t.to_vec::<f32>(), expected, "{count} shards");
                }
            }
        }
    }

    #[test]
    fn absent_is_zero() {
        let one = || Some(Tensor::from_slice(&[1f32, -0.0], &[2]));
        for present in [[true, false, true, false], [false, false, true, false], [false; 4]] {
            let mut sum = TreeSum::default();
            let values = present.map(|p| if p { one() } else { None });
            let last = values.into_iter().enumerate().map(|(i, v)| sum.push(i, 4, v)).last().flatten();
            let count = present.iter().filter(|&&p| p).count();
            let bits = last.map(|t| t.to_vec::<f32>().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            assert_eq!(bits, (count > 0).then(|| vec![(count as f32).to_bits(), 0]));
        }
    }

    #[test]
    fn samples_are_divided_alike_for_every_number_of_ranks() {
        for total in 0..40 {
            let all: Vec<usize> = (0..8).flat_map(|index| Shard { index, count: 8 }.samples(total)).collect();
            assert_eq!(all, (0..total).collect::<Vec<_>>());
            for ranks in [2, 4] {
                let each = 8 / ranks;
                for r in 0..ranks {
                    let own = Shard { index: r, count: ranks }.samples(total);
                    let first = Shard { index: r * each, count: 8 }.samples(total);
                    let last = Shard { index: (r + 1) * each - 1, count: 8 }.samples(total);
                    assert_eq!(own, first.start..last.end);
                }
            }
        }
    }
}
