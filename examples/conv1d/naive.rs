//! One-dimensional convolution by its definition, compared with `nn::Conv1d`.

use tapegrad::prelude::*;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) channels: [usize; 2],
    pub(crate) length: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
}

/// The largest differences between the layer and the definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Differences {
    pub(crate) output: f64,
    pub(crate) input_grad: f64,
    pub(crate) weight_grad: f64,
    pub(crate) bias_grad: f64,
}

impl Case {
    /// Random sizes with a non-empty output.
    pub(crate) fn random(generator: &mut Generator) -> Case {
        let mut between = |low: usize, high: usize| low + generator.below(high - low + 1);
        let (kernel, dilation, padding) = (between(1, 7), between(1, 3), between(0, 4));
        let extent = dilation * (kernel - 1) + 1;
        Case {
            batch: between(1, 4),
            channels: [between(1, 8), between(1, 8)],
            length: between(extent.saturating_sub(2 * padding).max(1), extent + 40),
            kernel,
            stride: between(1, 5),
            padding,
            dilation,
        }
    }

    /// The number of positions of the kernel.
    pub(crate) fn output_length(&self) -> usize {
        (self.length + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) / self.stride + 1
    }

    /// Calls `f` with the output, input and weight indices of every product in the sum.
    fn products(&self, mut f: impl FnMut(usize, usize, usize)) {
        let ([c_in, c_out], outputs) = (self.channels, self.output_length());
        for n in 0..self.batch {
            for o in 0..c_out {
                for t in 0..outputs {
                    for c in 0..c_in {
                        for k in 0..self.kernel {
                            let Some(i) = (t * self.stride + k * self.dilation).checked_sub(self.padding)
                            else {
                                continue;
                            };
                            if i < self.length {
                                let y = (n * c_out + o) * outputs + t;
                                let x = (n * c_in + c) * self.length + i;
                                f(y, x, (o * c_in + c) * self.kernel + k);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The layer of these sizes, in double precision.
    pub(crate) fn layer(&self) -> nn::Conv1d {
        let [c_in, c_out] = self.channels;
        let layer = nn::Conv1d::new(c_in, c_out, self.kernel)
            .stride(self.stride)
            .padding(self.padding)
            .dilation(self.dilation);
        layer.to_dtype(DType::F64);
        layer
    }

    /// Output and gradients of the layer on random numbers, against the definition.
    pub(crate) fn compare(&self, generator: &mut Generator) -> Differences {
        let layer = self.layer();
        let shape = [self.batch, self.channels[0], self.length];
        let x = Var::parameter(generator.normal(&shape, 0.0, 1.0).cast(DType::F64));
        let y = layer.forward(&x);
        assert_eq!(y.shape(), [self.batch, self.channels[1], self.output_length()]);
        let g = Var::from(generator.normal(y.shape(), 0.0, 1.0).cast(DType::F64));
        (&y * &g).sum_all().backward();

        let bias = layer.bias.as_ref().expect("a layer with a bias");
        let [xs, gs, ws, bs] = [&x, &g, &layer.weight, bias].map(|v| v.to_vec::<f64>());
        let (outputs, c_out) = (self.output_length(), self.channels[1]);
        let channel = |y: usize| y / outputs % c_out;
        let mut value: Vec<f64> = (0..gs.len()).map(|y| bs[channel(y)]).collect();
        let (mut dx, mut dw, mut db) = (vec![0.0; xs.len()], vec![0.0; ws.len()], vec![0.0; c_out]);
        self.products(|y, x, w| {
            value[y] += xs[x] * ws[w];
            dx[x] += gs[y] * ws[w];
            dw[w] += gs[y] * xs[x];
        });
        gs.iter().enumerate().for_each(|(y, g)| db[channel(y)] += g);

        let gradient = |v: &Var| v.grad().expect("the layer depends on it").to_vec::<f64>();
        Differences {
            output: largest(&value, &y.to_vec()),
            input_grad: largest(&dx, &gradient(&x)),
            weight_grad: largest(&dw, &gradient(&layer.weight)),
            bias_grad: largest(&db, &gradient(bias)),
        }
    }
}

impl Differences {
    pub(crate) fn largest(&self) -> f64 {
        [self.output, self.input_grad, self.weight_grad, self.bias_grad].into_iter().fold(0.0, f64::max)
    }
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A weight for `conv1d` or `conv2d` with a group for each channel, all of whose filters are constant and add up to
/// one: with a stride of the kernel's size, average pooling.
pub(crate) fn averaging_filters(channels: usize, kernel: &[usize]) -> Var {
    let size: usize = kernel.iter().product();
    let shape = [&[channels, 1], kernel].concat();
    Var::full_with(&shape, 1.0 / size as f64, DType::F64)
}

/// AlexNet's first layer: 96 filters of 11x11 with stride 4 on RGB images of 227x227.
pub(crate) fn alexnet_layer() -> nn::Conv2d {
    nn::Conv2d::new(3, 96, 11).stride(4)
}

/// The parameters that a layer would have if each output had its own weights.
pub(crate) fn parameters_without_sharing(layer: &nn::Conv2d, output: &[usize]) -> usize {
    let per_filter = layer.weight.numel() / layer.weight.size(0) + usize::from(layer.bias.is_some());
    output.iter().product::<usize>() * per_filter
}
