//! What holds for every row of the tables.

use super::{hard, rectifier, smooth};
use crate::testing::numbers;
use proptest::prelude::*;
use tapegrad_tape::{MemoryFormat, Tensor, Var};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5))]
    #[test]
    fn derivatives(shape in proptest::collection::vec(1usize..4, 0..5), seed in 1u64..1000, last: bool) {
        let n = shape.iter().product();
        // On a grid without kinks or jumps of a function, where finite differences would be wrong.
        let unit = numbers(n, seed).iter().map(|v| (50.0 * (v + 1.0)).floor() / 101.0 + 0.004).collect();
        let format = if last { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
        let unit = Tensor::from_vec(unit, &shape).to_format(format);
        for row in [rectifier::table::ALL, smooth::table::ALL, hard::table::ALL].into_iter().flatten() {
            row.check(&unit);
        }
    }
}

#[test]
fn relu_keeps_memory_where_it_can() {
    let x = Var::parameter(Tensor::from_vec(vec![-1f32, 2.0], &[2]));
    let doubled = &x * 2.0;
    let memory = doubled.tensor().data::<f32>().as_ptr();
    let y = super::relu_(doubled);
    assert_eq!(y.tensor().data::<f32>().as_ptr(), memory);
    y.sum_all().backward();
    assert_eq!(x.grad().unwrap().to_vec::<f32>(), [0.0, 2.0]);
    // A parameter is not overwritten.
    assert_eq!(super::relu_(x.clone()).to_vec::<f32>(), [0.0, 2.0]);
    assert_eq!(x.to_vec::<f32>(), [-1.0, 2.0]);
}

#[test]
fn infinities_and_nan() {
    let x = Var::from_vec(vec![f64::NEG_INFINITY, f64::INFINITY, f64::NAN], &[3]);
    let ends = |y: Var, low: f64, high: f64| {
        let y = y.to_vec::<f64>();
        assert_eq!((y[0], y[1]), (low, high));
        assert!(y[2].is_nan());
    };
    ends(super::relu(&x), 0.0, f64::INFINITY);
    ends(super::elu(&x), -1.0, f64::INFINITY);
    ends(super::softplus(&x), 0.0, f64::INFINITY);
    ends(super::logsigmoid(&x), f64::NEG_INFINITY, 0.0);
    ends(super::hardtanh(&x), -1.0, 1.0);
    ends(super::softshrink(&x), f64::NEG_INFINITY, f64::INFINITY);
    // A gradient of the branch that was not taken must not leak NaN into the second derivative.
    let x = Var::parameter(Tensor::from_vec(vec![1000f64], &[1]));
    let options = tapegrad_tape::GradOptions::new().create_graph(true);
    let g = tapegrad_tape::grad_with(&[&super::elu(&x)], &[&x], options)[0].clone().unwrap();
    let second = tapegrad_tape::grad_with(&[&g.sum_all()], &[&x], Default::default());
    assert_eq!(second[0].as_ref().unwrap().item(), 0.0);
}
