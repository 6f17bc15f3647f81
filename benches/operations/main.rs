//! Times each family of operations at three sizes, forward without recording, and backward alone:
//!
//! ```text
//! cargo bench --bench operations                     # all, some minutes
//! cargo bench --bench operations -- softmax          # names that contain this
//! python tools/bench_operations.py                   # beside PyTorch, in turns
//! ```
//!
//! `list.json` has the names and the shapes of the inputs, which the program for PyTorch reads, too. An input is written
//! `64x32` (numbers between -1 and 1, of which a gradient is wanted), `64x32+` (those between 0 and 2), `64x32%10` (integers
//! below ten) or `64x32?` (booleans);
//! with `images`, four dimensions are stored with the channels last. With `--serve`, each line of the standard input names a
//! case, such as `softmax 2`, and the answer is a line of JSON.

mod calls;

use calls::{Call, call};
use serde_json::{Value as Json, json};
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};
use tapegrad::prelude::*;

/// An operation at one size.
struct Case {
    call: Call,
    inputs: Vec<Var>,
}

fn input(text: &str, images: bool) -> Var {
    let (shape, kind) = match text.find(['%', '?', '+']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shape: Vec<usize> = shape.split('x').map(|n| n.parse().expect("a size")).collect();
    let numbers = 0..shape.iter().product::<usize>();
    match kind.split_at(kind.len().min(1)) {
        ("%", below) => {
            let below: usize = below.parse().expect("a bound");
            Var::from_vec(numbers.map(|i| (i * 7919 % below) as i64).collect::<Vec<_>>(), shape)
        }
        ("?", _) => Var::from_vec(numbers.map(|i| i % 3 == 0).collect::<Vec<_>>(), shape),
        (sign, _) => {
            let least = if sign == "+" { 0.001 } else { -1.0 };
            let values = numbers.map(|i| (i * 7919 % 2003) as f32 / 1001.5 + least).collect::<Vec<_>>();
            let t = Tensor::from_vec(values, &shape[..]);
            let last = images && shape.len() == 4;
            Var::parameter(if last { t.to_format(MemoryFormat::ChannelsLast) } else { t })
        }
    }
}

/// Calls `f`, which returns the time that counts, until some time has passed, and returns the least.
fn least(budget: Duration, mut f: impl FnMut() -> Duration) -> f64 {
    let begin = Instant::now();
    f();
    let mut least = Duration::MAX;
    let mut calls = 0;
    while calls < 2 || begin.elapsed() < budget {
        least = least.min(f());
        calls += 1;
    }
    least.as_secs_f64() * 1e6
}

impl Case {
    fn new(family: &Json, size: usize) -> Case {
        let name = family["name"].as_str().expect("a name");
        let images = family["images"].as_bool().unwrap_or(false);
        let inputs = family["sizes"][size].as_array().expect("inputs");
        Case {
            call: call(name).unwrap_or_else(|| panic!("{name}: no such operation in calls.rs")),
            inputs: inputs.iter().map(|text| input(text.as_str().expect("an input"), images)).collect(),
        }
    }

    /// Microseconds of the forward and of the backward pass.
    fn time(&self, budget: Duration) -> [f64; 2] {
        let forward = no_grad(|| {
            least(budget, || {
                let begin = Instant::now();
                let y = (self.call)(&self.inputs);
                let time = begin.elapsed();
                drop(y);
                time
            })
        });
        let grad = (self.call)(&self.inputs).detach();
        let backward = least(budget, || {
            let y = (self.call)(&self.inputs);
            let begin = Instant::now();
            y.backward_with(&grad, Default::default());
            let time = begin.elapsed();
            self.inputs.iter().for_each(Var::zero_grad);
            time
        });
        [forward, backward]
    }
}

fn main() {
    let families: Vec<Json> = serde_json::from_str(include_str!("list.json")).expect("a list of families");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let budget = Duration::from_millis(40);
    if has("--serve") {
        let mut out = std::io::stdout();
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let (name, size) = line.trim().split_once(' ').expect("a name and a size");
            let family = families.iter().find(|f| f["name"] == name).expect("a name in the list");
            let [forward, backward] = Case::new(family, size.parse().expect("a size")).time(budget);
            writeln!(out, "{}", json!({ "forward": forward, "backward": backward })).expect("a reader");
            out.flush().expect("a reader");
        }
        return;
    }
    // Without cargo bench's flag this is a test: each operation once, at its smallest size.
    let (test, filter) = (!has("--bench"), arguments.iter().find(|a| !a.starts_with("--")));
    for family in &families {
        let name = family["name"].as_str().expect("a name");
        if filter.is_some_and(|f| !name.contains(f.as_str())) {
            continue;
        }
        for size in 0..if test { 1 } else { 3 } {
            let budget = if test { Duration::ZERO } else { budget };
            let [forward, backward] = Case::new(family, size).time(budget);
            let inputs = &family["sizes"][size];
            println!("{name:22} forward {forward:>10.1} us, backward {backward:>10.1} us  {inputs}");
        }
    }
}
