//! Which gradients are sent together.

use tapegrad_tape::DType;

/// Divides parameters, in the order in which their gradients are expected, into buckets of one type and of at most so many
/// bytes; a larger one has a bucket of its own.
pub(crate) fn layout(
    order: &[usize],
    sizes: &[(usize, DType)],
    first_bytes: usize,
    bytes: usize,
) -> Vec<Vec<usize>> {
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    let mut filled = usize::MAX;
    for &i in order {
        let (numel, dtype) = sizes[i];
        let own = numel * dtype.size();
        let limit = if buckets.len() <= 1 { first_bytes } else { bytes };
        let same = buckets.last().is_some_and(|b| sizes[b[0]].1 == dtype);
        if same && filled.saturating_add(own) <= limit {
            buckets.last_mut().expect("has the same type").push(i);
            filled += own;
        } else {
            buckets.push(vec![i]);
            filled = own;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_parameter_is_in_one_bucket_in_order(
            sizes in prop::collection::vec((0usize..5000, any::<bool>()), 0..40),
            first in 0usize..5000,
            bytes in 0usize..20000,
        ) {
            let sizes: Vec<(usize, DType)> =
                sizes.into_iter().map(|(n, wide)| (n, if wide { DType::F64 } else { DType::F32 })).collect();
            let order: Vec<usize> = (0..sizes.len()).rev().collect();
            let buckets = layout(&order, &sizes, first, bytes);
            prop_assert_eq!(buckets.concat(), order);
            for (b, bucket) in buckets.iter().enumerate() {
                let total: usize = bucket.iter().map(|&i| sizes[i].0 * sizes[i].1.size()).sum();
                let limit = if b == 0 { first } else { bytes };
                prop_assert!(bucket.len() == 1 || total <= limit);
                prop_assert!(bucket.iter().all(|&i| sizes[i].1 == sizes[bucket[0]].1));
            }
        }
    }
}
