//! Calls with drawn numbers, and what is asked of each: a result of the right shape whose values and gradients can be
//! computed, or a panic that names the operation.

use crate::panic_of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::sync::Once;
use tapegrad_tape::{DType, Tensor, Var};

const SIZES: [usize; 14] = [
    0,
    1,
    2,
    3,
    5,
    1 << 31,
    1 << 32,
    (1 << 32) + 1,
    1 << 60,
    1 << 61,
    1 << 62,
    (1 << 63) - 1,
    (1 << 63) + 1,
    usize::MAX,
];

const NUMBERS: [i64; 16] = [
    0,
    1,
    2,
    3,
    -1,
    -2,
    1 << 31,
    1 << 32,
    -(1 << 32),
    1 << 61,
    1 << 62,
    -(1 << 62),
    i64::MAX - 1,
    i64::MAX,
    i64::MIN + 1,
    i64::MIN,
];

/// Results with more elements are not looked at.
const READ: usize = 1 << 12;

/// Where a call takes its numbers from.
pub(crate) struct Draw {
    sizes: Vec<usize>,
    numbers: Vec<i64>,
    expected: Option<Vec<u128>>,
}

impl Draw {
    /// A size.
    pub(crate) fn s(&mut self) -> usize {
        self.sizes.pop().expect("no call takes so many")
    }

    /// Several sizes.
    pub(crate) fn sizes<const N: usize>(&mut self) -> [usize; N] {
        [(); N].map(|()| self.s())
    }

    /// A label, an index, a bound.
    pub(crate) fn n(&mut self) -> i64 {
        self.numbers.pop().expect("no call takes so many")
    }

    /// The same as an isize.
    pub(crate) fn i(&mut self) -> isize {
        self.n() as isize
    }

    /// What the shape of the first result has to be, if there is one.
    pub(crate) fn expect(&mut self, shape: &[u128]) {
        self.expected = Some(shape.to_vec());
    }
}

/// A parameter of small numbers.
pub(crate) fn f32s(shape: &[usize]) -> Var {
    let n: usize = shape.iter().product();
    Var::parameter(Tensor::from_vec((0..n).map(|i| i as f32 / 8.0 - 0.3).collect(), shape))
}

/// A vector of indices.
pub(crate) fn i64s(values: &[i64]) -> Var {
    Var::from_vec(values.to_vec(), &[values.len()])
}

/// What a call gives.
pub(crate) trait Results {
    fn vars(self) -> Vec<Var>;
}

impl Results for Var {
    fn vars(self) -> Vec<Var> {
        vec![self]
    }
}

impl Results for Tensor {
    fn vars(self) -> Vec<Var> {
        vec![self.into()]
    }
}

impl Results for (Var, Var) {
    fn vars(self) -> Vec<Var> {
        vec![self.0, self.1]
    }
}

impl Results for Vec<Var> {
    fn vars(self) -> Vec<Var> {
        self
    }
}

/// A row of the table: the names that a panic may begin with, and the call.
pub(crate) type Row = (&'static [&'static str], fn(&mut Draw) -> Vec<Var>);

/// `"name" "another name": |d| call;`
macro_rules! calls {
    ($($($name:literal)+ : |$d:ident| $call:expr;)*) => {
        &[$((&[$($name),+], {
            fn call($d: &mut $crate::draw::Draw) -> Vec<tapegrad_tape::Var> {
                $crate::draw::Results::vars($call)
            }
            call
        })),*]
    };
}
pub(crate) use calls;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls every row with many draws.
pub(crate) fn check(table: &[Row]) {
    prepare();
    let mut problems = Vec::new();
    for (row, (names, call)) in table.iter().enumerate() {
        let numbers =
            (prop::collection::vec(select(&SIZES[..]), 16), prop::collection::vec(select(&NUMBERS[..]), 8));
        let mut runner = TestRunner::new_with_rng(
            Config { cases: 150, failure_persistence: None, ..Config::default() },
            proptest::test_runner::TestRng::deterministic_rng(Default::default()),
        );
        let outcome = runner.run(&numbers, |(sizes, numbers)| {
            let mut draw = Draw { sizes, numbers, expected: None };
            QUIET.set(true);
            let mut problem = None;
            let said = panic_of(|| problem = examine(call(&mut draw), &draw));
            QUIET.set(false);
            prop_assert!(problem.is_none(), "{}", problem.unwrap_or_default());
            if let Some(said) = said {
                let named = names.iter().any(|name| said.starts_with(&format!("{name}:")));
                prop_assert!(named || said.starts_with("out of memory: "), "it said {said:?}");
            }
            Ok(())
        });
        if let Err(e) = outcome {
            problems.push(format!("row {row}, {names:?}: {e}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is wrong with results, if anything is. Small ones are read, and their gradients are computed.
fn examine(results: Vec<Var>, draw: &Draw) -> Option<String> {
    let first = results.first()?;
    let shape: Vec<u128> = first.shape().iter().map(|&n| n as u128).collect();
    if draw.expected.as_ref().is_some_and(|expected| *expected != shape) {
        return Some(format!("a result of shape {shape:?} in place of {:?}", draw.expected));
    }
    let wide = shape.iter().map(|&n| n.max(1)).try_fold(1u128, |a, b| a.checked_mul(b));
    if wide.is_none_or(|n| n > tapegrad_tape::shape::MAX_NUMEL as u128) {
        return Some(format!("a result of shape {shape:?}"));
    }
    for y in results.iter().filter(|y| y.numel() <= READ) {
        assert_eq!(y.to_vec::<f64>().len(), y.numel());
        if y.requires_grad() && y.dtype().is_float() {
            y.cast(DType::F64).sum_all().backward();
        }
    }
    None
}

/// Silences expected panics, and bounds the memory of this process, so that what no machine has is not touched.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                hook(info);
            }
        }));
        #[cfg(target_os = "linux")]
        // SAFETY: plain system calls on values that live here.
        unsafe {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
            limit.rlim_cur = limit.rlim_max.min(1 << 30);
            assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
        }
    });
}
