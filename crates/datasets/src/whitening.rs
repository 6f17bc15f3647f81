//! Statistics of small patches, for a first layer that whitens its input.

use tapegrad_tape::Tensor;

/// The principal directions of the patches of some images, as the first layer of airbench uses them.
#[derive(Debug, Clone)]
pub struct Whitening {
    /// The variances along the directions, from the largest to the smallest.
    pub eigenvalues: Vec<f64>,
    /// The directions, each of length 1, `f32 [n, channels, size, size]` with `n = channels * size * size`.
    pub eigenvectors: Tensor,
}

impl Whitening {
    /// Decomposes the second moments of all `size` by `size` patches of `images`, `f32 [N, C, H, W]`.
    ///
    /// As in airbench, the mean is not subtracted: normalize the images first.
    ///
    /// # Panics
    /// If `images` is of another type or rank, or smaller than a patch.
    ///
    /// ```
    /// use tapegrad_datasets::{ImageLoader, Whitening, synthetic};
    /// let batch = ImageLoader::new(synthetic::shapes(100, 0)).batch_size(100).iter().next().unwrap();
    /// let whitening = Whitening::of(&batch.images, 2);
    /// assert_eq!(whitening.filters(5e-4).shape(), [24, 3, 2, 2]);
    /// ```
    #[track_caller]
    pub fn of(images: &Tensor, size: usize) -> Self {
        let shape = images.shape().to_vec();
        let &[count, channels, height, width] = &shape[..] else {
            panic!("Whitening: images {shape:?}; expected [N, C, H, W]")
        };
        assert!(
            size > 0 && height >= size && width >= size && count > 0,
            "Whitening: images {shape:?} are smaller than a {size} by {size} patch"
        );
        let images = images.contiguous();
        let pixels = images.as_slice::<f32>().expect("Whitening: images must be f32");
        let n = channels * size * size;
        let mut moments = vec![0.0f64; n * n];
        let mut sums = vec![0.0f32; n * n];
        let mut patch = vec![0.0f32; n];
        for image in pixels.chunks_exact(channels * height * width) {
            // In f32 within one image, where the sums are short; in f64 over all of them.
            sums.fill(0.0);
            for y in 0..=height - size {
                for x in 0..=width - size {
                    for c in 0..channels {
                        for row in 0..size {
                            let from = &image[(c * height + y + row) * width + x..][..size];
                            patch[(c * size + row) * size..][..size].copy_from_slice(from);
                        }
                    }
                    for (line, &a) in sums.chunks_exact_mut(n).zip(&patch) {
                        line.iter_mut().zip(&patch).for_each(|(s, b)| *s += a * b);
                    }
                }
            }
            moments.iter_mut().zip(&sums).for_each(|(m, &s)| *m += f64::from(s));
        }
        let patches = (count * (height - size + 1) * (width - size + 1)) as f64;
        moments.iter_mut().for_each(|m| *m /= patches);
        let (eigenvalues, vectors) = symmetric_eigen(moments, n);
        let vectors: Vec<f32> = vectors.into_iter().map(|v| v as f32).collect();
        Whitening { eigenvalues, eigenvectors: Tensor::from_vec(vectors, &[n, channels, size, size]) }
    }

    /// The weights of the whitening convolution: each direction over the square root of its variance (plus `eps`),
    /// and then all of them negated; `f32 [2 n, channels, size, size]`.
    pub fn filters(&self, eps: f64) -> Tensor {
        let vectors = self.eigenvectors.to_vec::<f32>();
        let n = self.eigenvalues.len();
        let scaled: Vec<f32> = vectors
            .chunks_exact(n)
            .zip(&self.eigenvalues)
            .flat_map(|(vector, value)| {
                vector.iter().map(move |&v| (f64::from(v) / (value + eps).sqrt()) as f32)
            })
            .collect();
        let both: Vec<f32> = scaled.iter().copied().chain(scaled.iter().map(|v| -v)).collect();
        let mut shape = self.eigenvectors.shape().to_vec();
        shape[0] = 2 * n;
        Tensor::from_vec(both, &shape)
    }
}

/// Eigenvalues (largest first) and eigenvectors (one a row) of a symmetric `n` by `n` matrix, by Jacobi rotations.
///
/// The sign of a vector is such that its largest entry is positive.
pub(crate) fn symmetric_eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let total: f64 = a.iter().map(|x| x * x).sum();
    // It converges quadratically: some ten sweeps are enough for any size of use here.
    for _ in 0..60 {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-30 * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                // The smaller of the two angles that make the entry zero.
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cos = 1.0 / (t * t + 1.0).sqrt();
                let sin = t * cos;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = cos * x - sin * y;
                    a[k * n + q] = sin * x + cos * y;
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = cos * x - sin * y;
                    a[q * n + k] = sin * x + cos * y;
                    let (x, y) = (vectors[p * n + k], vectors[q * n + k]);
                    vectors[p * n + k] = cos * x - sin * y;
                    vectors[q * n + k] = sin * x + cos * y;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let mut rows = Vec::with_capacity(n * n);
    for &i in &order {
        let row = &vectors[i * n..][..n];
        let largest = row.iter().copied().max_by(|x, y| x.abs().total_cmp(&y.abs())).unwrap_or(1.0);
        rows.extend(row.iter().map(|v| v * largest.signum()));
    }
    (values, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Generator;

    #[test]
    fn eigen_of_a_known_matrix() {
        // [[2, 1], [1, 2]] has the eigenvalues 3 and 1 along (1, 1) and (1, -1).
        let (values, vectors) = symmetric_eigen(vec![2.0, 1.0, 1.0, 2.0], 2);
        assert!((values[0] - 3.0).abs() < 1e-14 && (values[1] - 1.0).abs() < 1e-14);
        assert!((vectors[0] - vectors[1]).abs() < 1e-14 && (vectors[2] + vectors[3]).abs() < 1e-14);
    }

    #[test]
    fn eigen_restores_random_matrices() {
        for n in [1, 2, 12, 27, 48] {
            let mut rng = Generator::stream(0, "eigen", [n as u64, 0]);
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    a[i * n + j] = rng.next_normal();
                    a[j * n + i] = a[i * n + j];
                }
            }
            let (values, vectors) = symmetric_eigen(a.clone(), n);
            assert!(values.is_sorted_by(|x, y| x >= y));
            for i in 0..n {
                for j in 0..n {
                    let entry: f64 =
                        (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                    assert!((entry - a[i * n + j]).abs() < 1e-12 * n as f64);
                    let dot: f64 = (0..n).map(|k| vectors[i * n + k] * vectors[j * n + k]).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-13 * n as f64);
                }
            }
        }
    }

    #[test]
    fn filtered_patches_are_white() {
        let set = crate::synthetic::shapes(60, 1);
        let loader = crate::ImageLoader::new(set).batch_size(60);
        let images = loader.iter().next().unwrap().images;
        let whitening = Whitening::of(&images, 2);
        let filters = whitening.filters(0.0).to_vec::<f32>();
        let pixels = images.to_vec::<f32>();
        // The second moments of the filters' outputs are the identity.
        let mut moments = vec![0.0f64; 144];
        for image in pixels.chunks_exact(3072) {
            for (y, x) in (0..31).flat_map(|y| (0..31).map(move |x| (y, x))) {
                let answers: Vec<f64> = filters[..144]
                    .chunks_exact(12)
                    .map(|f| {
                        (0..12)
                            .map(|k| f64::from(f[k] * image[(k / 4 * 32 + y + k / 2 % 2) * 32 + x + k % 2]))
                            .sum()
                    })
                    .collect();
                for (i, a) in answers.iter().enumerate() {
                    answers
                        .iter()
                        .enumerate()
                        .for_each(|(j, b)| moments[i * 12 + j] += a * b / (60.0 * 961.0));
                }
            }
        }
        for (k, m) in moments.iter().enumerate() {
            let expected = f64::from(u8::from(k / 12 == k % 12));
            assert!((m - expected).abs() < 2e-3, "{k}: {m}");
        }
        assert!(filters[..144].iter().zip(&filters[144..]).all(|(a, b)| *a == -*b));
    }
}
