//! Sizes that once wrapped, each with its error message.

use crate::{panic_of, x};
use tapegrad_ops::{ConvTransposeOptions, Size, UnfoldOptions};
use tapegrad_tape::{DType, PadMode, Position, Slice, Tensor, Var};

const MAX: usize = usize::MAX;

/// Calls a function and checks its panic message.
#[track_caller]
fn refused<R>(message: &str, f: impl FnOnce() -> R) {
    let said = panic_of(f).expect("it has to panic");
    assert!(said.contains(message), "expected {message:?}, but it said {said:?}");
}

fn f32s(shape: &[usize]) -> Var {
    Var::from(Tensor::zeros_with(shape, DType::F32))
}

#[test]
fn a_label_that_no_row_can_hold() {
    let label = Var::from_vec(vec![i64::MAX], &[1]);
    refused("one_hot: 9223372036854775808 classes for an input of shape [1] are too many", || {
        label.one_hot(None)
    });
    refused("one_hot: 9223372036854775807 classes for an input of shape [1] are too many", || {
        Var::from_vec(vec![0i64], &[1]).one_hot(MAX)
    });
    refused("one_hot: class values must be smaller than num_classes 3", || label.one_hot(3));
    refused("bincount: shape [9223372036854775808] is too large", || label.bincount());
    refused("bincount: shape [18446744073709551615] is too large", || {
        Var::from_vec(vec![0i64], &[1]).bincount_with(MAX)
    });
}

#[test]
fn strides_and_offsets_that_lead_outside() {
    refused("Tensor: element 18446744073709551615 lies outside the 4 given values", || {
        Tensor::from_strided(&[1f32; 4], &[2, 2], &[2, 1], MAX)
    });
    refused("Tensor: element 18446744073709551615 lies outside", || {
        Tensor::from_strided(&[1f32; 4], &[3], &[1 << 63], 0)
    });
    refused(
        "Tensor: element 4 lies outside the 4 given values: shape [2, 2], strides [2, 1], offset 1",
        || Tensor::from_strided(&[1f32; 4], &[2, 2], &[2, 1], 1),
    );
    refused("Tensor: shape [4294967296, 4294967296] is too large", || {
        Tensor::from_strided(&[1f32; 4], &[1usize << 32, 1usize << 32], &[0, 0], 0)
    });
    // A dimension of size one is never stepped along.
    let t = Tensor::from_strided(&[1f32, 2.0], &[1, 2], &[MAX, 1], 0);
    assert_eq!(t.unsqueeze(0).step(1, MAX).unfold(1, 1, MAX).to_vec::<f32>(), [1.0, 2.0]);
    assert_eq!(Tensor::from_strided(&[1f32], &[0, 3], &[MAX, MAX], MAX).narrow(1, 1, 2).shape(), [0, 2]);
}

#[test]
fn shapes_of_constructors() {
    refused("zeros: shape [18446744073709551615, 2] is too large", || {
        Tensor::zeros_with(&[MAX, 2], DType::F32)
    });
    refused("zeros: shape [4611686018427387904] is too large", || {
        Tensor::zeros_with(&[1usize << 62], DType::F32)
    });
    refused("ones: shape [0, 4294967296, 4294967296] is too large", || {
        Tensor::ones_with(&[0, 1usize << 32, 1usize << 32], DType::U8)
    });
    refused("Tensor: 4 values were given for the shape [4611686018427387905, 4]", || {
        Tensor::from_vec(vec![1f32; 4], &[(1usize << 62) + 1, 4])
    });
    refused("Tensor: 0 values were given for the shape [4294967296, 4294967296]", || {
        Tensor::from_vec(Vec::<f32>::new(), &[1usize << 32, 1usize << 32])
    });
    refused("arange: shape [18446744073709551615] is too large", || Tensor::arange(i64::MIN, i64::MAX));
    refused("permutation: shape [18446744073709551615] is too large", || {
        tapegrad_tape::Generator::manual_seed(0).permutation(MAX)
    });
    refused("uniform: shape [18446744073709551615, 2] is too large", || {
        tapegrad_tape::Generator::manual_seed(0).uniform(&[MAX, 2], 0.0, 1.0)
    });
    assert_eq!(Tensor::arange(i64::MAX - 2, i64::MAX).to_vec::<i64>(), [i64::MAX - 2, i64::MAX - 1]);
}

#[test]
fn repetitions_and_views() {
    refused("repeat: [18446744073709551615, 1] copies of a tensor of shape [2] are too many", || {
        f32s(&[2]).repeat(&[MAX, 1])
    });
    refused("repeat: [9223372036854775808, 2] copies", || f32s(&[1, 2]).tile(&[1usize << 63, 2]));
    refused("expand: shape [4294967296, 4294967296] is too large", || {
        f32s(&[1]).expand(&[1usize << 32, 1usize << 32])
    });
    refused("expand: shape [18446744073709551615] is too large", || {
        Tensor::zeros_with(&[1], DType::Bool).expand(&[MAX])
    });
    refused("reshape: shape [4611686018427387905, 4] is invalid for an input of 4 elements", || {
        f32s(&[4]).reshape(&[(1usize << 62) + 1, 4])
    });
    refused("reshape: shape [4294967296, 4294967296] is invalid for an input of 0 elements", || {
        Tensor::zeros_with(&[0], DType::F32).reshape(&[1usize << 32, 1usize << 32])
    });
    assert!(Tensor::zeros_with(&[0], DType::F32).try_view(&[100, 100]).is_none());
    assert!(Tensor::zeros_with(&[4], DType::F32).try_view(&[2]).is_none());
    let wide = f32s(&[1]).expand_to(&[1 << 40]);
    refused("unfold: shape [1099510546434, 32768, 1048576] is too large", || {
        wide.unfold(0, 1 << 15, 1).unfold(0, 1 << 20, 1)
    });
    refused("add: shape [1099511627776, 1099511627776] is too large", || &wide + &wide.unsqueeze(1));
    refused("mm: shape [1099511627776, 1099511627776] is too large", || {
        tapegrad_ops::mm(&wide.unsqueeze(1), &wide.unsqueeze(0))
    });
    refused("split: split_sizes [18446744073709551615, 5] should sum to the size of dimension 0: 4", || {
        f32s(&[4]).split_with_sizes(&[MAX, 5], 0)
    });
    refused("chunk: a dimension of size 0 (shape [0]) can be cut into at most 65536 pieces", || {
        f32s(&[0]).chunk(MAX, 0)
    });
    refused("narrow: start (1) + length (18446744073709551615) exceeds dimension size (4)", || {
        Tensor::zeros_with(&[4], DType::F32).narrow(0, 1, MAX)
    });
}

#[test]
fn padding() {
    refused(
        "pad: [9223372036854775807, 9223372036854775807] around a tensor of shape [2] is too much",
        || f32s(&[2]).pad(&[isize::MAX, isize::MAX]),
    );
    refused("pad: [-9223372036854775808, -9223372036854775808] cuts 18446744073709551615 off", || {
        f32s(&[2]).pad(&[isize::MIN, isize::MIN])
    });
    refused("is too much", || f32s(&[1, 2]).pad_with(&[isize::MAX, 3], PadMode::Replicate));
}

#[test]
fn windows_that_are_added_up() {
    refused("overlap_add: shape [18446744073709551615] is too large", || {
        f32s(&[2, 2]).overlap_add(0, MAX, MAX - 8)
    });
    refused("overlap_add: shape [1, 18446744073709551615] is too large", || {
        f32s(&[1, 1, 2]).overlap_add(1, MAX, MAX)
    });
    refused("overlap_add: 3 windows of 2, 9223372036854775809 apart, do not fit into 5", || {
        f32s(&[3, 2]).overlap_add(0, 5, (1 << 63) + 1)
    });
    let columns = f32s(&[1, 4, 1]);
    refused("fold: the size [18446744073709551615, 2] is too large", || {
        tapegrad_ops::fold(&columns, Size([MAX, 2]), 2)
    });
    refused("fold: shape [1, 1, 1073741824, 1073741824] is too large", || {
        tapegrad_ops::fold(&columns, 1 << 30, 2)
    });
    let image = f32s(&[1, 1, 4, 4]);
    refused("unfold: padding [18446744073709551615, 18446744073709551615] is too large", || {
        tapegrad_ops::unfold(&image, UnfoldOptions::new(2).padding(MAX))
    });
    refused(
        "unfold: a patch of [2, 2] with dilation [1152921504606846975, 1152921504606846975] reaches over",
        || tapegrad_ops::unfold(&image, UnfoldOptions::new(2).dilation(tapegrad_tape::shape::MAX_NUMEL)),
    );
}

#[test]
fn convolutions() {
    let (image, weight) = (f32s(&[1, 1, 2, 2]), f32s(&[1, 1, 2, 2]));
    let transposed =
        |o: ConvTransposeOptions<2>| tapegrad_ops::conv_transpose2d_with(&image, &weight, None, o);
    let options = ConvTransposeOptions::default;
    refused("conv_transpose2d: stride [4611686018427387904, 4611686018427387904] is too large", || {
        transposed(options().stride(1usize << 62))
    });
    refused("conv_transpose2d: shape [1, 1, 1152921504606846977, 1152921504606846977] is too large", || {
        transposed(options().stride(tapegrad_tape::shape::MAX_NUMEL))
    });
    refused("conv_transpose2d: effective kernel size overflows", || {
        transposed(options().dilation(tapegrad_tape::shape::MAX_NUMEL))
    });
    refused("conv_transpose2d: padding", || transposed(options().padding(MAX)));
    refused("conv_transpose2d: output_padding", || transposed(options().output_padding(MAX)));
    let convolved = |o: tapegrad_ops::ConvOptions<2>| tapegrad_ops::conv2d_with(&image, &weight, None, o);
    refused("conv2d: padding", || convolved(tapegrad_ops::ConvOptions::new().padding(1usize << 63)));
    refused("conv2d: shape [1, 1, 2147483649, 2147483649] is too large", || {
        convolved(tapegrad_ops::ConvOptions::new().padding(1 << 30))
    });
    refused("has 1 channels but weight [1, 1, 2, 2] expects 9223372036854775809", || {
        convolved(tapegrad_ops::ConvOptions::new().groups((1 << 63) + 1))
    });
    let far = convolved(tapegrad_ops::ConvOptions::new().stride(tapegrad_tape::shape::MAX_NUMEL));
    assert_eq!(far.shape(), [1, 1, 1, 1]);
}

#[test]
fn pooling_and_pixels() {
    let image = f32s(&[1, 4, 2, 2]);
    refused("max_pool2d: effective kernel size overflows", || {
        tapegrad_ops::max_pool2d(&image, tapegrad_ops::MaxPoolOptions::new(2).dilation(1usize << 63))
    });
    refused("adaptive_avg_pool2d: shape [1, 4, 18446744073709551615, 2] is too large", || {
        tapegrad_ops::adaptive_avg_pool2d(&image, [Some(MAX), Some(2)])
    });
    refused("pixel_shuffle: shape [4294967296, 4294967296] is too large", || {
        tapegrad_ops::pixel_shuffle(&image, 1usize << 32)
    });
    refused("pixel_unshuffle: expects height and width to be divisible", || {
        tapegrad_ops::pixel_unshuffle(&image, MAX)
    });
    refused("interpolate: shape [1, 4, 18446744073709551615, 18446744073709551615] is too large", || {
        tapegrad_ops::interpolate(&image, tapegrad_ops::InterpolateOptions::scale_factor([f64::INFINITY]))
    });
    refused("interpolate: shape [1, 4, 4611686018427387904, 2] is too large", || {
        tapegrad_ops::interpolate(&image, tapegrad_ops::InterpolateOptions::size([1usize << 62, 2]))
    });
    // A window over all channels, however many it could hold.
    let norm =
        |size| tapegrad_ops::local_response_norm_with(&(&image + 1.0), size, 0.0, 0.75, 1.0).to_vec::<f32>();
    assert_eq!(norm(MAX), [1.0; 16]);
}

#[test]
fn places_do_not_become_negative() {
    let x = x(&[4]);
    assert_eq!(x.slice(0, 1..MAX).to_vec::<f32>(), [1.0, 2.0, 3.0]);
    assert_eq!(x.slice(0, ..=MAX).to_vec::<f32>(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(x.slice(0, Slice::from(..).step(MAX)).to_vec::<f32>(), [0.0]);
    refused("select: index 9223372036854775807 out of range", || x.select(0, MAX));
    refused("index: index 9223372036854775807 is out of bounds", || x.get(MAX));
    refused("narrow: start out of range", || x.narrow(0, MAX, 1));
    assert_eq!(Position::from(MAX).0, isize::MAX);
    assert_eq!(x.roll(&[isize::MIN + 1], &[0]).to_vec::<f32>(), x.roll(&[1], &[0]).to_vec::<f32>());
    let square = x.reshape(&[2, 2]);
    assert_eq!(square.tril_with(isize::MAX).to_vec::<f32>(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(square.triu_with(isize::MAX).to_vec::<f32>(), [0.0; 4]);
    assert_eq!(square.tril_with(isize::MIN).to_vec::<f32>(), [0.0; 4]);
    assert_eq!(square.diagonal_with(isize::MIN, 0, 1).shape(), [0]);
}
