//! Every public function of `ops` that takes a size, an index or a class.

use crate::draw::{Draw, calls, check, f32s, i64s};
use tapegrad_ops::*;
use tapegrad_tape::Var;

fn conv_options(d: &mut Draw) -> ConvOptions<2> {
    ConvOptions::new().stride(Size(d.sizes())).padding(d.sizes::<2>()).dilation(Size(d.sizes()))
}

fn transposed(d: &mut Draw) -> ConvTransposeOptions<2> {
    let o = ConvTransposeOptions::new().stride(Size(d.sizes())).padding(Size(d.sizes()));
    o.output_padding(Size(d.sizes())).dilation(Size(d.sizes()))
}

#[test]
fn convolutions() {
    check(calls! {
        "conv1d": |d| {
            let (stride, padding) = (d.s(), d.s());
            if stride > 0 {
                d.expect(&[1, 1, (4 + 2 * padding as u128).saturating_sub(2) / stride as u128 + 1]);
            }
            conv1d_with(&f32s(&[1, 1, 4]), &f32s(&[1, 1, 2]), None, ConvOptions::new().stride(stride).padding(padding))
        };
        "conv1d": |d| {
            let o = ConvOptions::new().stride(d.s()).padding(d.s()).dilation(d.s()).groups(d.s());
            conv1d_with(&f32s(&[1, 2, 4]), &f32s(&[2, 2, 2]), None, o)
        };
        "conv2d": |d| conv2d_with(&f32s(&[1, 2, 4, 3]), &f32s(&[2, 2, 1, 2]), None, conv_options(d));
        "conv2d": |d| conv2d_with(&f32s(&[0, 2, 4, 3]), &f32s(&[2, 2, 2, 2]), None, conv_options(d));
        "conv2d": |d| conv2d_with(&f32s(&[1, 1, 1, 1]), &f32s(&[1, 1, 1, 1]), None, conv_options(d).groups(d.s()));
        "conv2d": |d| {
            let o = ConvOptions { padding: Padding::Same, ..conv_options(d) };
            conv2d_with(&f32s(&[1, 2, 4, 3]), &f32s(&[2, 2, 2, 2]), None, o)
        };
        "conv3d": |d| {
            let o = ConvOptions::new().stride(d.s()).padding(d.s()).dilation(d.s());
            conv3d_with(&f32s(&[1, 1, 2, 2, 2]), &f32s(&[1, 1, 1, 2, 2]), None, o)
        };
        "conv_transpose1d": |d| {
            let (stride, extra) = (d.s(), d.s());
            d.expect(&[1, 1, 2 * stride as u128 + 2 + extra as u128]);
            let o = ConvTransposeOptions::new().stride(stride).output_padding(extra);
            conv_transpose1d_with(&f32s(&[1, 1, 3]), &f32s(&[1, 1, 2]), None, o)
        };
        "conv_transpose2d": |d| conv_transpose2d_with(&f32s(&[1, 2, 2, 1]), &f32s(&[2, 1, 2, 2]), None, transposed(d));
        "conv_transpose2d": |d| {
            conv_transpose2d_with(&f32s(&[1, 2, 2, 1]), &f32s(&[2, 1, 1, 1]), None, transposed(d).groups(d.s()))
        };
        "conv_transpose2d": |d| conv_transpose2d_with(&f32s(&[0, 2, 2, 1]), &f32s(&[2, 1, 2, 2]), None, transposed(d));
        "conv_transpose3d": |d| {
            let o = ConvTransposeOptions::new().stride(d.s()).padding(d.s()).dilation(d.s());
            conv_transpose3d_with(&f32s(&[1, 1, 1, 2, 1]), &f32s(&[1, 1, 1, 1, 2]), None, o)
        };
    });
}

#[test]
fn pooling() {
    check(calls! {
        "max_pool1d": |d| {
            let mut o = MaxPoolOptions::<1>::new(d.s()).stride(d.s()).padding(d.s()).dilation(d.s());
            o.ceil_mode = d.n() > 0;
            max_pool1d_with_indices(&f32s(&[1, 2, 5]), o)
        };
        "max_pool2d": |d| {
            let mut o = MaxPoolOptions::<2>::new(Size(d.sizes())).stride(Size(d.sizes())).padding(Size(d.sizes()));
            o.ceil_mode = d.n() > 0;
            max_pool2d(&f32s(&[1, 2, 5, 3]), o.dilation(Size(d.sizes())))
        };
        "max_pool3d": |d| max_pool3d(&f32s(&[1, 1, 2, 2, 2]), MaxPoolOptions::<3>::new(d.s()).padding(d.s()));
        "avg_pool1d": |d| {
            let mut o = AvgPoolOptions::<1>::new(d.s()).stride(d.s()).padding(d.s());
            (o.ceil_mode, o.count_include_pad) = (d.n() > 0, d.n() > 0);
            avg_pool1d(&f32s(&[1, 2, 5]), o)
        };
        "avg_pool2d": |d| {
            let mut o = AvgPoolOptions::<2>::new(Size(d.sizes())).stride(Size(d.sizes())).padding(Size(d.sizes()));
            (o.ceil_mode, o.divisor_override) = (true, Some(d.i()));
            avg_pool2d(&f32s(&[1, 2, 5, 3]), o)
        };
        "avg_pool3d": |d| {
            let mut o = AvgPoolOptions::<3>::new(d.s()).stride(d.s()).padding(d.s());
            o.ceil_mode = true;
            avg_pool3d(&f32s(&[1, 1, 2, 2, 2]), o)
        };
        "adaptive_avg_pool1d": |d| {
            let n = d.s();
            d.expect(&[2, 3, n as u128]);
            adaptive_avg_pool1d(&f32s(&[2, 3, 5]), [Some(n)])
        };
        "adaptive_max_pool1d": |d| adaptive_max_pool1d(&f32s(&[2, 3, 5]), [Some(d.s())]);
        "adaptive_avg_pool2d": |d| adaptive_avg_pool2d(&f32s(&[2, 3, 5, 4]), [Some(d.s()), Some(d.s())]);
        "adaptive_max_pool3d": |d| adaptive_max_pool3d(&f32s(&[1, 1, 2, 2, 2]), [Some(d.s()), None, Some(d.s())]);
    });
}

#[test]
fn patches_and_pixels() {
    fn patches(d: &mut Draw) -> UnfoldOptions {
        let o = UnfoldOptions::new(Size(d.sizes())).dilation(Size(d.sizes()));
        o.padding(Size(d.sizes())).stride(Size(d.sizes()))
    }
    check(calls! {
        "unfold": |d| unfold(&f32s(&[1, 2, 3, 4]), patches(d));
        "unfold": |d| unfold(&f32s(&[2, 3, 4]), UnfoldOptions::new(1).padding(d.s()).stride(d.s()));
        "fold": |d| fold(&f32s(&[1, 4, 1]), Size(d.sizes()), patches(d));
        "fold": |d| fold(&f32s(&[1, 4, 4]), 3, UnfoldOptions::new(2).stride(d.s()).padding(d.s()));
        "fold": |d| fold(&f32s(&[4, 1]), Size(d.sizes()), UnfoldOptions::new(2).stride(d.s()).dilation(d.s()));
        "fold": |d| fold(&f32s(&[1, 0, 1]), Size(d.sizes()), patches(d));
        "pixel_shuffle": |d| pixel_shuffle(&f32s(&[1, 4, 2, 3]), d.s());
        "pixel_shuffle": |d| pixel_shuffle(&f32s(&[1, 0, 2, 3]), d.s());
        "pixel_unshuffle": |d| pixel_unshuffle(&f32s(&[1, 1, 2, 4]), d.s());
        "pixel_unshuffle": |d| pixel_unshuffle(&f32s(&[1, 1, 0, 0]), d.s());
        "interpolate": |d| {
            let n = d.s();
            d.expect(&[1, 2, n as u128]);
            interpolate(&f32s(&[1, 2, 3]), InterpolateOptions::size([n]))
        };
        "interpolate": |d| {
            let o = InterpolateOptions::size(d.sizes::<2>()).mode(InterpolateMode::Bilinear);
            interpolate(&f32s(&[1, 2, 3, 2]), o.align_corners(d.n() > 0))
        };
        "interpolate": |d| interpolate(&f32s(&[1, 2, 3]), InterpolateOptions::scale_factor([d.s() as f64]));
        "local_response_norm": |d| {
            d.expect(&[1, 2, 3]);
            local_response_norm(&f32s(&[1, 2, 3]), d.s())
        };
    });
}

#[test]
#[cfg(feature = "linalg")]
fn linear_algebra() {
    check(calls! {
        "linalg.vecdot": |d| linalg::vecdot_with(&f32s(&[2, 3]), &f32s(&[2, 3]), d.i());
        "linalg.matrix_norm": |d| linalg::matrix_norm_with(&f32s(&[2, 3]), 1.0, [d.i(), d.i()], false);
        "linalg.matrix_power": |d| linalg::matrix_power(&f32s(&[1, 1]), d.n());
        "linalg.matrix_norm": |d| linalg::matrix_norm_with(&f32s(&[2, 3]), linalg::NormOrd::Nuc, [d.i(), d.i()], true);
    });
}

#[test]
fn unpooling_bags_and_sequences() {
    check(calls! {
        "max_unpool1d": |d| {
            let o = MaxUnpoolOptions::<1>::new(d.s()).stride(d.s()).padding(d.s());
            max_unpool1d(&f32s(&[1, 2]), &i64s(&[d.n(), d.n()]).reshape(&[1, 2]), o)
        };
        "max_unpool2d": |d| {
            let o = MaxUnpoolOptions::<2>::new(Size(d.sizes())).stride(Size(d.sizes())).output_size(Size(d.sizes()));
            max_unpool2d(&f32s(&[1, 1, 2]), &i64s(&[0, d.n()]).reshape(&[1, 1, 2]), o)
        };
        "lp_pool1d" "avg_pool1d": |d| {
            let o = LpPoolOptions::<1>::new(2.0, d.s()).stride(d.s()).ceil_mode(d.n() > 0);
            lp_pool1d(&f32s(&[1, 2, 5]), o)
        };
        "cross": |d| cross_with(&f32s(&[2, 3]), &f32s(&[2, 3]), Some(d.i()));
        "renorm": |d| renorm(&f32s(&[2, 3]), 2.0, d.i(), 1.0);
        "channel_shuffle": |d| channel_shuffle(&f32s(&[1, 4, 2]), d.s());
        "channel_shuffle": |d| channel_shuffle(&f32s(&[1, 0, 2]), d.s());
        "embedding_bag": |d| {
            let offsets = Some(i64s(&[0, d.n()]));
            let o = EmbeddingBagOptions { offsets, padding_idx: Some(d.i()), ..Default::default() };
            embedding_bag_with(&i64s(&[d.n(), d.n()]), &f32s(&[3, 2]), o)
        };
        "ctc_loss": |d| {
            let o = CtcOptions::new().blank(d.s());
            ctc_loss_with(&f32s(&[3, 1, 2]), &i64s(&[d.n(), d.n()]).reshape(&[1, 2]), &[d.s()], &[d.s()], o)
        };
        "multilabel_margin_loss": |d| {
            multilabel_margin_loss(&f32s(&[3]), &i64s(&[d.n(), d.n(), -1]))
        };
        "interpolate": |d| {
            let o = InterpolateOptions::size(d.sizes::<2>()).mode(InterpolateMode::Bicubic);
            interpolate(&f32s(&[1, 2, 3, 2]), o.antialias(d.n() > 0))
        };
        "interpolate": |d| {
            interpolate(&f32s(&[1, 0, 3, 2]), InterpolateOptions::size(d.sizes::<2>()))
        };
    });
}

#[test]
fn classes_and_rows() {
    check(calls! {
        "embedding": |d| {
            let o = EmbeddingOptions::new().padding_idx(d.i());
            embedding_with(&i64s(&[d.n(), d.n()]), &f32s(&[3, 2]), o)
        };
        "embedding" "expand": |d| embedding(&i64s(&[0]).expand_to(&d.sizes::<2>()), &f32s(&[3, 2]));
        "cross_entropy": |d| {
            let o = CrossEntropyOptions::new().ignore_index(d.n());
            cross_entropy_with(&f32s(&[2, 3]), &i64s(&[d.n(), d.n()]), o)
        };
        "cross_entropy": |d| {
            let o = CrossEntropyOptions::new().ignore_index(d.n()).reduction(Reduction::None);
            cross_entropy_with(&f32s(&[2, 3]), &i64s(&[d.n(), d.n()]), o)
        };
        "nll_loss": |d| nll_loss(&f32s(&[2, 3]), &i64s(&[d.n(), d.n()]));
        "multi_margin_loss": |d| multi_margin_loss(&f32s(&[2, 3]), &i64s(&[d.n(), d.n()]));
        "softmax": |d| softmax(&f32s(&[2, 3]), d.i());
        "glu": |d| glu_with(&f32s(&[2, 4]), d.i());
        "group_norm": |d| group_norm(&f32s(&[2, 4, 2]), d.s(), None, None);
        "layer_norm": |d| layer_norm(&f32s(&[2, 4]), &d.sizes::<2>(), None, None);
        "rms_norm": |d| rms_norm(&f32s(&[2, 4]), &d.sizes::<1>(), None);
        "tensordot": |d| tensordot_with(&f32s(&[2, 4]), &f32s(&[4, 2]), d.s());
        "tensordot": |d| tensordot_with(&f32s(&[2, 4]), &f32s(&[4, 2]), (&[d.i()][..], &[d.i()][..]));
        "anchor_boxes": |d| detection::anchor_boxes(d.sizes(), d.sizes(), &[8.0, 4.0], &[1.0]);
        "roi_align": |d| {
            let o = detection::RoiAlignOptions::new().sampling_ratio(d.s());
            let boxes = Var::from_vec(vec![0f32, 0.0, 0.0, 2.0, 2.0], &[1, 5]);
            detection::roi_align_with(&f32s(&[1, 1, 3, 3]), &boxes, d.sizes(), o)
        };
    });
}

/// Views whose sizes no memory could hold, which a product would have to walk along.
#[test]
fn products_of_wide_views() {
    let row = |n: usize| {
        Var::from(tapegrad_tape::Tensor::ones_with(&[1, 1], tapegrad_tape::DType::F32)).expand_to(&[1, n])
    };
    let most = tapegrad_tape::shape::MAX_NUMEL;
    let said = crate::panic_of(|| mm(&row(most), &row(most).t())).expect("it has to panic");
    assert!(said.starts_with("mm: the product of shapes"), "{said}");
    let said = crate::panic_of(|| outer(&row(1 << 40).squeeze(0), &row(1 << 40).squeeze(0)))
        .expect("it has to panic");
    assert!(said.starts_with("outer: ") || said.starts_with("mul: "), "{said}");
}
