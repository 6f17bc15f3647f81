//! What holds for every row of the tables.

use super::{binary, clamp, pow, rounding, special, unary};
use crate::{DType, Operand, Pointwise, Tensor, Var, gradcheck, gradgradcheck};
use proptest::prelude::*;

fn all_rows() -> impl Iterator<Item = &'static Pointwise> {
    [
        clamp::by_numbers::ALL,
        unary::exponential::ALL,
        unary::trigonometric::ALL,
        rounding::steps::ALL,
        rounding::replacement::ALL,
        pow::constant::ALL,
        special::gamma::ALL,
        special::vectors::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Numbers in (0, 1), none near another, in a layout that the seed chooses.
fn unit(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| ((i as u64 * 7 + seed * 13 + 5) % 101) as f64 / 101.0 + 0.004).collect();
    let t = Tensor::from_vec::<f64>(values, &shape.iter().rev().copied().collect::<Vec<_>>());
    let reversed: Vec<isize> = (0..shape.len() as isize).rev().collect();
    let t = t.permute(&reversed);
    if seed.is_multiple_of(2) { t.contiguous() } else { t }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn derivatives_of_one_operand(shape in proptest::collection::vec(1usize..4, 0..4), seed in 0u64..1000) {
        for row in all_rows() {
            row.check(&unit(&shape, seed));
        }
    }

    #[test]
    fn derivatives_of_two_operands(shape in proptest::collection::vec(1usize..4, 0..3), seed in 0u64..1000, b_is_row: bool) {
        for (row, (low, high)) in binary::table::ALL {
            let place = |t: Tensor| (Var::from(t) * (high - low) + *low).tensor();
            let a = Var::parameter(place(unit(&shape, seed)));
            let b_shape = if b_is_row { &shape[shape.len().min(1)..] } else { &shape[..] };
            let b = Var::parameter(place((Var::from(unit(b_shape, seed + 3)) * 0.97).tensor()));
            let f = |v: &[Var]| row.apply(&Operand::from(&v[0]), &Operand::from(&v[1]));
            gradcheck(f, &[a.clone(), b.clone()]).unwrap_or_else(|e| panic!("{}: {e}", row.name));
            gradgradcheck(f, &[a, b]).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        }
    }
}

#[test]
fn rows_of_f32_agree_with_f64() {
    for row in all_rows() {
        let (low, high, p) = row.domain;
        let x = Var::from(unit(&[7, 5], 1)) * (high - low) + low;
        let exact = row.apply(&x, p).to_vec::<f64>();
        let short = row.apply(&x.cast(DType::F32), p);
        assert_eq!(short.dtype(), DType::F32);
        for (a, b) in short.to_vec::<f64>().iter().zip(exact) {
            assert!((a - b).abs() <= 3e-6 * (1.0 + b.abs()), "{}: {a} in f32, {b} in f64", row.name);
        }
    }
}

#[test]
fn other_types() {
    let half = Var::parameter(Tensor::from_vec(vec![1f32, 4.0], &[2]).cast(DType::F16));
    let root = half.sqrt();
    assert_eq!((root.dtype(), root.to_vec::<f32>()), (DType::F16, vec![1.0, 2.0]));
    root.sum_all().backward();
    assert_eq!(half.grad().unwrap().to_vec::<f32>(), [0.5, 0.25]);
    let integers = Var::from_vec(vec![1i64, 4], &[2]);
    assert_eq!((integers.sqrt().dtype(), integers.square().dtype()), (DType::F32, DType::I64));
    assert_eq!(integers.neg().to_vec::<i64>(), [-1, -4]);
    assert_eq!(Var::from_vec(vec![200u8], &[1]).square().to_vec::<u8>(), [64]);
}

#[test]
fn owned_operands_give_their_memory() {
    let x = Var::from_vec(vec![1f32, 2.0], &[2]) + 1.0;
    let memory = x.tensor().data::<f32>().as_ptr();
    let y = unary::exponential::sigmoid.apply_owned(x, [0.0; 4]);
    assert_eq!(y.tensor().data::<f32>().as_ptr(), memory);
    let shared = y.clone();
    let z = unary::exponential::sigmoid.apply_owned(y, [0.0; 4]);
    assert_ne!(z.tensor().data::<f32>().as_ptr(), shared.tensor().data::<f32>().as_ptr());
    let leaf = Var::parameter(Tensor::from_vec(vec![0f32], &[1]));
    let y = unary::exponential::sigmoid.apply_owned(&leaf * 2.0, [0.0; 4]);
    y.sum_all().backward();
    assert_eq!(leaf.grad().unwrap().item(), 0.5);
}
