//! Every public function of `tape` that takes a size, a shape, a stride, an offset, an index or a count.

use crate::draw::{Row, calls, check, f32s, i64s};
use tapegrad_tape::{DType, Generator, MemoryFormat, PadMode, Slice, Tensor, Var, shape};

#[test]
fn constructors() {
    let table: &[Row] = calls! {
        "zeros": |d| {
            let s: [usize; 3] = d.sizes();
            d.expect(&s.map(|n| n as u128));
            Tensor::zeros_with(&s, DType::U8)
        };
        "ones": |d| Tensor::ones_with(&d.sizes::<2>(), DType::F16);
        "full": |d| Tensor::full_with(&d.sizes::<2>(), 2, DType::I64);
        "zeros": |d| match Tensor::try_zeros(&d.sizes::<3>(), DType::F64) {
            Ok(t) => t,
            Err(e) => panic!("zeros: {e}"),
        };
        "Tensor": |d| Tensor::uninit(&d.sizes::<2>(), DType::Bool);
        "Tensor": |d| Tensor::uninit_format(&d.sizes::<4>(), DType::F32, MemoryFormat::ChannelsLast);
        "Tensor": |d| Var::from_vec(vec![1f32; 4], &d.sizes::<3>());
        "Tensor": |d| Tensor::from_vec(Vec::<i64>::new(), &d.sizes::<3>());
        "Tensor": |d| {
            let (shape, strides) = (d.sizes::<3>(), d.sizes::<3>());
            Tensor::from_strided(&[1f32, 2.0, 3.0, 4.0], &shape, &strides, d.s())
        };
        "arange": |d| {
            let (start, end) = (d.n(), d.n());
            d.expect(&[(i128::from(end) - i128::from(start)).max(0) as u128]);
            Tensor::arange(start, end)
        };
        "uniform": |d| Generator::manual_seed(0).uniform(&d.sizes::<2>(), 0.0, 1.0);
        "normal": |d| Generator::manual_seed(0).normal(&d.sizes::<2>(), 0.0, 1.0);
        "bernoulli": |d| Generator::manual_seed(0).bernoulli(&d.sizes::<2>(), 0.5);
        "exponential": |d| Tensor::exponential_with(&d.sizes::<2>(), 1.0, &mut Generator::manual_seed(0));
        "multinomial": |d| f32s(&[3]).abs().add(1.0).multinomial(d.i(), true);
        "permutation": |d| Generator::manual_seed(0).permutation(d.s());
        "below": |d| Var::from(Generator::manual_seed(0).below(d.s()) as f64);
        "jacobian": |d| {
            let n = d.s();
            tapegrad_tape::jacobian(|x| x.detach(), &Var::from(Tensor::zeros_with(&[1], DType::F32).expand(&[n])))
        };
    };
    // (The operand of the last one is itself such a view, or refused.)
    let jacobian: Vec<Row> = table.iter().map(|&(names, call)| (names, call)).collect();
    check(&jacobian[..jacobian.len() - 1]);
    let names: &'static [&'static str] = &["jacobian", "expand"];
    check(&[(names, jacobian[jacobian.len() - 1].1)]);
}

#[test]
fn shapes() {
    check(calls! {
        "numel": |d| Var::from(shape::numel(&d.sizes::<4>()) as f64);
        "strides": |d| {
            let s = d.sizes::<4>();
            shape::contiguous_strides(&s);
            shape::channels_last_strides(&s);
            let order = d.sizes::<4>();
            shape::strides_in_order(&s, &order);
            shape::is_contiguous(&s, &order);
            let to = d.sizes::<3>();
            shape::view_strides(&s, &order, &to);
            Vec::<Var>::new()
        };
        "op": |d| {
            shape::broadcast_for("op", &d.sizes::<3>(), &d.sizes::<2>());
            Vec::<Var>::new()
        };
        "op": |d| {
            shape::infer("op", &[2, 3], &[d.i(), d.i(), d.i()]);
            Vec::<Var>::new()
        };
        "op": |d| {
            shape::dims("op", &[d.i(), d.i()], 3);
            Vec::<Var>::new()
        };
    });
}

#[test]
fn views() {
    check(calls! {
        "expand": |d| {
            let (a, b) = (d.s(), d.s());
            d.expect(&[a as u128, b as u128, 2]);
            f32s(&[1, 2]).expand_to(&[a, b, 2])
        };
        "expand": |d| f32s(&[2, 1]).expand(&[d.i(), d.i(), d.i()]);
        "broadcast_to" "expand": |d| f32s(&[1]).broadcast_to(&d.sizes::<2>());
        "sum_to": |d| f32s(&[2, 3]).sum_to(&d.sizes::<2>());
        "reshape": |d| f32s(&[2, 3]).reshape(&[d.i(), d.i(), d.i()]);
        "reshape": |d| Tensor::zeros_with(&[0, 2], DType::F32).reshape(&d.sizes::<3>());
        "view": |d| f32s(&[4]).view(&[d.i(), d.i()]);
        "unflatten": |d| f32s(&[2, 4]).unflatten(1, &[d.i(), d.i(), d.i()]);
        "flatten" "expand" "unsqueeze": |d| f32s(&[1, 1]).expand_to(&d.sizes::<2>()).flatten(());
        "try_view": |d| Tensor::zeros_with(&[0, 2], DType::F32).try_view(&d.sizes::<3>()).map_or(vec![], |t| vec![t.into()]);
        "try_view": |d| Tensor::zeros_with(&[4], DType::F32).try_view(&d.sizes::<2>()).map_or(vec![], |t| vec![t.into()]);
        "narrow": |d| f32s(&[3, 4]).narrow(d.i(), d.i(), d.s());
        "narrow": |d| f32s(&[4]).narrow(0, d.s(), d.s());
        "narrow": |d| Tensor::zeros_with(&[4], DType::F32).narrow(d.i(), d.s(), d.s());
        "select": |d| f32s(&[3, 4]).select(d.i(), d.i());
        "select": |d| f32s(&[4]).select(0, d.s());
        "select": |d| Tensor::zeros_with(&[4], DType::F32).select(0, d.i());
        "slice": |d| f32s(&[4]).slice(d.i(), Slice { start: Some(d.i()), end: Some(d.i()), step: d.s() });
        "slice": |d| f32s(&[4]).slice(0, d.s()..d.s());
        "slice": |d| f32s(&[4]).slice(0, d.n()..=d.n());
        "index": |d| f32s(&[3, 4]).get((d.n(), d.s()));
        "index" "slice": |d| f32s(&[3, 4]).get((d.n()..d.n(), d.s()..));
        "step": |d| Tensor::zeros_with(&[4], DType::F32).step(d.i(), d.s());
        "unfold" "step": |d| Tensor::zeros_with(&[4], DType::F32).step(0, d.s()).unsqueeze(0).unfold(1, d.s(), d.s());
        "diagonal": |d| f32s(&[3, 4]).diagonal_with(d.i(), d.i(), d.i());
        "diagonal": |d| Tensor::zeros_with(&[3, 4], DType::F32).diagonal(d.i(), 0, 1);
        "unfold": |d| f32s(&[3, 4]).unfold(d.i(), d.s(), d.s());
        "unfold": |d| f32s(&[1]).expand_to(&[1 << 40]).unfold(0, d.s(), d.s()).unfold(0, d.s(), d.s());
        "permute": |d| f32s(&[3, 4]).permute(&[d.i(), d.i()]);
        "transpose": |d| f32s(&[3, 4]).transpose(d.i(), d.i());
        "movedim": |d| f32s(&[3, 4]).movedim(&[d.i()], &[d.i()]);
        "squeeze": |d| f32s(&[3, 1]).squeeze_dims(&[d.i(), d.i()]);
        "unsqueeze": |d| f32s(&[3, 1]).unsqueeze(d.i());
        "split": |d| f32s(&[4]).split(d.s(), 0);
        "split": |d| f32s(&[4]).split_with_sizes(&d.sizes::<3>(), 0);
        "chunk": |d| f32s(&[4]).chunk(d.s(), 0);
        "chunk": |d| f32s(&[0]).chunk(d.s(), 0);
        "unbind": |d| f32s(&[4]).unbind(d.i());
    });
}

#[test]
fn movement() {
    check(calls! {
        "repeat": |d| {
            let (a, b) = (d.s(), d.s());
            d.expect(&[a as u128 * 2, b as u128 * 3]);
            f32s(&[2, 3]).repeat(&[a, b])
        };
        "repeat": |d| f32s(&[2]).tile(&d.sizes::<3>());
        "pad": |d| {
            let (l, r) = (d.n(), d.n());
            d.expect(&[2, (3 + i128::from(l) + i128::from(r)).max(0) as u128]);
            f32s(&[2, 3]).pad_with(&[l as isize, r as isize], PadMode::Constant(1.0))
        };
        "pad": |d| f32s(&[1, 2, 3]).pad_with(&[d.i(), d.i(), d.i(), d.i()], PadMode::Constant(1.0));
        "pad": |d| f32s(&[2, 3]).pad_with(&[d.i(), d.i()], PadMode::Reflect);
        "pad": |d| f32s(&[2, 3]).pad_with(&[d.i(), d.i()], PadMode::Replicate);
        "pad": |d| f32s(&[2, 3]).pad_with(&[d.i(), d.i()], PadMode::Circular);
        "overlap_add": |d| f32s(&[2, 3]).overlap_add(0, d.s(), d.s());
        "overlap_add": |d| f32s(&[1, 2, 3]).overlap_add(d.i(), d.s(), d.s());
        "overlap_add": |d| f32s(&[0, 3]).overlap_add(0, d.s(), d.s());
        "flip": |d| f32s(&[2, 3]).flip(&[d.i(), d.i()]);
        "roll": |d| f32s(&[2, 3]).roll(&[d.i(), d.i()], &[0, 1]);
        "roll": |d| f32s(&[2, 3]).roll(&[d.i()], ());
        "tril": |d| f32s(&[2, 3]).tril_with(d.i());
        "triu": |d| f32s(&[2, 3]).triu_with(d.i());
        "cat" "expand": |d| {
            let (a, b) = (f32s(&[1, 1]).expand_to(&[d.s(), 2]), f32s(&[1, 1]).expand_to(&[d.s(), 2]));
            tapegrad_tape::cat(&[a, b], 0)
        };
        "stack" "cat" "expand": |d| {
            let a = f32s(&[1]).expand_to(&[d.s()]);
            tapegrad_tape::stack(&[a.clone(), a], d.i())
        };
        "add" "expand": |d| f32s(&[1, 1]).expand_to(&[d.s(), 1]) + f32s(&[1]).expand_to(&[d.s()]);
    });
}

#[test]
fn indices() {
    check(calls! {
        "one_hot": |d| i64s(&[d.n(), 0]).one_hot(None);
        "one_hot": |d| {
            let n = d.s();
            d.expect(&[2, n as u128]);
            i64s(&[d.n(), 0]).one_hot(n)
        };
        "one_hot": |d| i64s(&[]).one_hot(d.s());
        "bincount": |d| i64s(&[d.n()]).bincount_with(d.s());
        "gather": |d| f32s(&[2, 3]).gather(d.i(), &i64s(&[d.n(), d.n()]).reshape(&[1, 2]));
        "scatter": |d| f32s(&[2, 3]).scatter(1, &i64s(&[d.n(), d.n()]).reshape(&[1, 2]), 2.0);
        "scatter_add": |d| f32s(&[2, 3]).scatter_add(0, &i64s(&[d.n()]).reshape(&[1, 1]), &f32s(&[1, 1]));
        "take_along_dim": |d| f32s(&[2, 3]).take_along_dim(&i64s(&[d.n(), d.n()]).reshape(&[1, 2]), 1);
        "index_select": |d| f32s(&[2, 3]).index_select(d.i(), &i64s(&[d.n(), d.n()]));
        "index_add": |d| f32s(&[2, 3]).index_add(0, &i64s(&[d.n()]), &f32s(&[1, 3]));
        "index": |d| f32s(&[2, 3]).get((&i64s(&[d.n(), d.n()]), &i64s(&[d.n()])));
        "index" "expand": |d| f32s(&[2, 3]).get(&i64s(&[1]).expand_to(&d.sizes::<2>()));
        "index_select" "expand": |d| f32s(&[2, 3]).index_select(0, &i64s(&[1]).expand_to(&[d.s()]));
        "topk": |d| f32s(&[2, 3]).topk(d.s(), d.i());
        "sum": |d| f32s(&[2, 3]).sum_keepdim([d.i()]);
        "cumsum": |d| f32s(&[2, 3]).cumsum(d.i());
        "sort": |d| f32s(&[2, 3]).sort(d.i());
        "size": |d| Var::from(f32s(&[2, 3]).size(d.i()) as f64);
        "round" "round_decimals": |d| f32s(&[2]).round_decimals(d.n() as i32);
    });
}
