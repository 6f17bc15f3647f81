//! Linear maps along single dimensions: each output element is a weighted sum of a few input elements.

use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::kernels::parallel::{parallel_blocks, parallel_chunks};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::{Float, Tensor};

/// The fewest sums of a task for another thread.
const GRAIN: usize = 1 << 14;
/// The most elements of a sum that is computed in vector lanes along a row.
const MAX_LANES: usize = 4;

/// Which input elements each output element is a sum of, with which weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taps {
    from: usize,
    /// Where the taps of each output element begin, and where the last ones end.
    starts: Vec<usize>,
    index: Vec<u32>,
    weight: Vec<f64>,
}

impl Taps {
    /// From the taps of each of `to` output elements, about `most` of them; those without weight may be left out. Sizes
    /// are below 2^31.
    #[track_caller]
    pub(crate) fn new(
        op: &str,
        from: usize,
        to: usize,
        most: usize,
        mut taps: impl FnMut(usize, &mut dyn FnMut(usize, f64)),
    ) -> Taps {
        // A panic, where there is no memory for them.
        let (mut starts, count) = (list_for(op, to.saturating_add(1), |_| 0), to.saturating_mul(most));
        let (mut index, mut weight) = (list_for(op, count, |_| 0), list_for(op, count, |_| 0.0));
        index.clear();
        weight.clear();
        for o in 0..to {
            taps(o, &mut |i, w| {
                assert!(i < from, "a tap lies inside the input");
                index.push(i as u32);
                weight.push(w);
            });
            starts[o + 1] = index.len();
        }
        Taps { from, starts, index, weight }
    }

    fn to(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether each output element is one input element.
    fn is_selection(&self) -> bool {
        self.index.len() == self.to()
            && self.starts.iter().enumerate().all(|(o, &start)| o == start)
            && self.weight.iter().all(|&w| w == 1.0)
    }

    /// The adjoint map.
    pub(crate) fn transposed(&self) -> Taps {
        let mut counts = vec![0; self.from + 1];
        self.index.iter().for_each(|&i| counts[i as usize + 1] += 1);
        let mut starts = counts;
        for i in 0..self.from {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let (mut index, mut weight) = (vec![0; self.index.len()], vec![0.0; self.index.len()]);
        for o in 0..self.to() {
            for k in self.starts[o]..self.starts[o + 1] {
                let place = &mut next[self.index[k] as usize];
                (index[*place], weight[*place]) = (o as u32, self.weight[k]);
                *place += 1;
            }
        }
        Taps { from: self.to(), starts, index, weight }
    }
}

/// The same with weights of the elements' type, and the taps of most output elements arranged for vector lanes.
struct Plan<'a, T> {
    taps: &'a Taps,
    weight: Vec<T>,
    /// The longest run of output elements with equally many taps, at most `MAX_LANES`.
    run: std::ops::Range<usize>,
    count: usize,
    /// The first taps of all elements of the run, then the second ones.
    lane_index: Vec<u32>,
    lane_weight: Vec<T>,
}

impl<'a, T: Float> Plan<'a, T> {
    fn new(taps: &'a Taps, along_rows: bool) -> Plan<'a, T> {
        let weight: Vec<T> = taps.weight.iter().map(|&w| T::from_f64(w)).collect();
        let mut plan =
            Plan { taps, weight, run: 0..0, count: 0, lane_index: Vec::new(), lane_weight: Vec::new() };
        if !along_rows {
            return plan;
        }
        let count = |o: usize| taps.starts[o + 1] - taps.starts[o];
        let mut start = 0;
        for o in 0..taps.to() {
            if count(o) != count(start) {
                start = o;
            }
            if (1..=MAX_LANES).contains(&count(o)) && o + 1 - start > plan.run.len() {
                (plan.run, plan.count) = (start..o + 1, count(o));
            }
        }
        for k in 0..plan.count {
            let places = plan.run.clone().map(|o| taps.starts[o] + k);
            plan.lane_index.extend(places.clone().map(|p| taps.index[p]));
            plan.lane_weight.extend(places.map(|p| plan.weight[p]));
        }
        plan
    }

    fn taps(&self, o: usize) -> impl Iterator<Item = (usize, T)> {
        let range = self.taps.starts[o]..self.taps.starts[o + 1];
        range.map(|k| (self.taps.index[k] as usize, self.weight[k]))
    }

    /// `[outer, from, inner]` to `[outer, to, inner]`.
    fn apply(&self, x: &[T], y: &mut [T], outer: usize, inner: usize) {
        let (from, to) = (self.taps.from, self.taps.to());
        let y = SharedSlice::new(y);
        if inner == 1 {
            parallel_blocks(outer, GRAIN.div_ceil(to.max(1)), |start, end| {
                for row in start..end {
                    // SAFETY: each row belongs to one task.
                    let y = unsafe { y.part(row * to, to) };
                    self.row(&x[row * from..][..from], y);
                }
            });
            return;
        }
        parallel_blocks(outer * to, GRAIN.div_ceil(inner.max(1)), |start, end| {
            // SAFETY: as above.
            let y = unsafe { y.part(start * inner, (end - start) * inner) };
            weighted_rows(y, x, self.taps, &self.weight, inner, start);
        });
    }

    fn row(&self, x: &[T], y: &mut [T]) {
        let slow = |y: &mut [T], range: std::ops::Range<usize>| {
            for o in range {
                y[o] = self.taps(o).fold(T::ZERO, |sum, (i, w)| sum + x[i] * w);
            }
        };
        slow(y, 0..self.run.start);
        let n = self.run.len();
        let run = &mut y[self.run.clone()];
        let part = |k: usize| (&self.lane_index[k * n..][..n], &self.lane_weight[k * n..][..n]);
        match self.count {
            1 => gather(run, x, [part(0)]),
            2 => gather(run, x, [part(0), part(1)]),
            3 => gather(run, x, [part(0), part(1), part(2)]),
            4 => gather(run, x, [part(0), part(1), part(2), part(3)]),
            _ => {}
        }
        slow(y, self.run.end..y.len());
    }
}

#[inline(always)]
fn gather<T: Float, const K: usize>(y: &mut [T], x: &[T], taps: [(&[u32], &[T]); K]) {
    match K {
        1 => gather_1(y, x, taps[0].0, taps[0].1),
        2 => gather_2(y, x, taps[0].0, taps[0].1, taps[1].0, taps[1].1),
        3 => {
            gather_2(y, x, taps[0].0, taps[0].1, taps[1].0, taps[1].1);
            add_gathered(y, x, taps[2].0, taps[2].1);
        }
        _ => {
            gather_2(y, x, taps[0].0, taps[0].1, taps[1].0, taps[1].1);
            add_gathered_2(y, x, taps[2].0, taps[2].1, taps[3].0, taps[3].1);
        }
    }
}

/// An element that may lie outside: then it is zero. (Indices are signed and of 32 bits, so that vectors of them are
/// gathered at once.)
#[inline(always)]
pub(crate) fn at<T: Float>(x: &[T], i: u32) -> T {
    let last = (x.len() - 1).min(i32::MAX as usize) as u32;
    // SAFETY: the index is clamped to the slice, which is not empty.
    let v = unsafe { *x.get_unchecked(i.min(last) as i32 as usize) };
    if i <= last { v } else { T::ZERO }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// `y[j] = x[i[j]] w[j]`; what lies outside of `x` is zero.
    pub(crate) fn gather_1<T: Float>(y: &mut [T], x: &[T], i: &[u32], w: &[T]) {
        if x.is_empty() {
            return y.fill(T::ZERO);
        }
        for ((y, &i), &w) in y.iter_mut().zip(i).zip(w) {
            *y = at(x, i) * w;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn gather_2<T: Float>(y: &mut [T], x: &[T], i: &[u32], u: &[T], j: &[u32], v: &[T]) {
        if x.is_empty() {
            return y.fill(T::ZERO);
        }
        for ((((y, &i), &u), &j), &v) in y.iter_mut().zip(i).zip(u).zip(j).zip(v) {
            *y = at(x, i) * u + at(x, j) * v;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Adds two such products.
    fn add_gathered_2<T: Float>(y: &mut [T], x: &[T], i: &[u32], u: &[T], j: &[u32], v: &[T]) {
        if x.is_empty() {
            return;
        }
        for ((((y, &i), &u), &j), &v) in y.iter_mut().zip(i).zip(u).zip(j).zip(v) {
            *y += at(x, i) * u + at(x, j) * v;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Adds `x[i[j]] w[j]`; what lies outside of `x` is zero.
    fn add_gathered<T: Float>(y: &mut [T], x: &[T], i: &[u32], w: &[T]) {
        if x.is_empty() {
            return;
        }
        for ((y, &i), &w) in y.iter_mut().zip(i).zip(w) {
            *y += at(x, i) * w;
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    /// Rows of `inner` sums, from row `first` of `[outer, to, inner]` on.
    fn weighted_rows<T: Float>(y: &mut [T], x: &[T], taps: &Taps, weight: &[T], inner: usize, first: usize) {
        let (mut o, mut base) = (first % taps.to(), first / taps.to() * taps.from * inner);
        for y in y.chunks_exact_mut(inner) {
            let (start, end) = (taps.starts[o], taps.starts[o + 1]);
            let (index, weight) = (&taps.index[start..end], &weight[start..end]);
            let part = |k: usize| &x[base + index[k] as usize * inner..][..inner];
            match index.len() {
                0 => y.fill(T::ZERO),
                1 => {
                    let (a, u) = (part(0), weight[0]);
                    for i in 0..inner {
                        y[i] = a[i] * u;
                    }
                }
                count => {
                    let (a, b, u, v) = (part(0), part(1), weight[0], weight[1]);
                    for i in 0..inner {
                        y[i] = a[i] * u + b[i] * v;
                    }
                    for k in 2..count {
                        let (a, u) = (part(k), weight[k]);
                        for i in 0..inner {
                            y[i] += a[i] * u;
                        }
                    }
                }
            }
            o += 1;
            if o == taps.to() {
                (o, base) = (0, base + taps.from * inner);
            }
        }
    }
}

/// [`resample`] where each output element is one input element: all dimensions at once.
fn select<T: Float>(x: &[T], y: &mut [T], taps: &[Taps], inner: usize) {
    let (last, before) = taps.split_last().expect("at least one dimension");
    let line = last.to() * inner;
    let lines = y.len() / line;
    let y = SharedSlice::new(y);
    parallel_blocks(lines, GRAIN.div_ceil(line), |start, end| {
        for number in start..end {
            let (mut rest, mut from, mut step) = (number, 0, 1);
            for taps in before.iter().rev() {
                from += taps.index[rest % taps.to()] as usize * step;
                (rest, step) = (rest / taps.to(), step * taps.from);
            }
            let x = &x[(rest * step + from) * last.from * inner..][..last.from * inner];
            // SAFETY: each line belongs to one task.
            let y = unsafe { y.part(number * line, line) };
            if inner == 1 {
                y.iter_mut().zip(&last.index).for_each(|(y, &i)| *y = x[i as usize]);
            } else {
                for (o, y) in y.chunks_exact_mut(inner).enumerate() {
                    y.copy_from_slice(&x[last.index[o] as usize * inner..][..inner]);
                }
            }
        }
    });
}

/// `[groups, from..., inner]` to `[groups, to..., inner]` by one map for each dimension, the last one first.
pub(crate) fn resample<T: Float>(x: &[T], y: &mut [T], groups: usize, taps: &[Taps], inner: usize) {
    let size = |f: &dyn Fn(&Taps) -> usize| taps.iter().map(f).product::<usize>() * inner;
    let (from, to) = (size(&|t| t.from), size(&Taps::to));
    if groups == 0 || from == 0 || to == 0 {
        return y.fill(T::ZERO);
    }
    if taps.iter().all(Taps::is_selection) {
        return select(x, y, taps, inner);
    }
    let plans: Vec<Plan<T>> =
        taps.iter().enumerate().map(|(d, t)| Plan::new(t, inner == 1 && d + 1 == taps.len())).collect();
    let group = |g: usize, y: &mut [T]| {
        // (Memory of the tensors' pool: its pages are in use already.)
        let mut now: Option<Tensor> = None;
        let mut outer: usize = taps.iter().map(|t| t.from).product();
        let mut inner = inner;
        for (d, plan) in plans.iter().enumerate().rev() {
            outer /= plan.taps.from;
            let source: &[T] = now.as_ref().map_or(&x[g * from..][..from], |t| t.data::<T>());
            if d == 0 {
                return plan.apply(source, y, outer, inner);
            }
            let mut next = Tensor::uninit(&[outer * plan.taps.to() * inner], T::DTYPE);
            plan.apply(source, next.data_mut::<T>(), outer, inner);
            now = Some(next);
            inner *= plan.taps.to();
        }
    };
    parallel_chunks(y, to, group);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// Every output element is the mean of two neighbors, but for the first and the last.
    fn means(from: usize) -> Taps {
        Taps::new("test", from, from + 1, 2, |o, put| {
            if o > 0 {
                put(o - 1, if o == from { 1.0 } else { 0.5 });
            }
            if o < from {
                put(o, if o == 0 { 1.0 } else { 0.5 });
            }
        })
    }

    /// Twice as many elements, each of which is the nearest one.
    #[test]
    fn one_element_each() {
        let twice = |from: usize| Taps::new("test", from, 2 * from, 1, |o, put| put(o / 2, 1.0));
        for inner in [1, 3] {
            let taps = [twice(2), twice(3)];
            let x = numbers(2 * 2 * 3 * inner, 1);
            let mut y = vec![0.0; 4 * x.len()];
            resample(&x, &mut y, 2, &taps, inner);
            for (i, &y) in y.iter().enumerate() {
                let (group, row, column) = (i / inner / 24, i / inner / 6 % 4, i / inner % 6);
                assert_eq!(y, x[((group * 2 + row / 2) * 3 + column / 2) * inner + i % inner]);
            }
            let (mut with_weights, almost) = (
                vec![0.0; y.len()],
                [twice(2), twice(3)]
                    .map(|taps| Taps { weight: taps.weight.iter().map(|_| 2.0).collect(), ..taps }),
            );
            resample(&x, &mut with_weights, 2, &almost, inner);
            assert!(with_weights.iter().zip(&y).all(|(a, b)| *a == 4.0 * b));
        }
    }

    #[test]
    fn a_map_and_its_adjoint() {
        for inner in [1, 3] {
            let taps = [means(2), means(19)];
            let back = [taps[0].transposed(), taps[1].transposed()];
            let (x, g) = (numbers(2 * 2 * 19 * inner, 1), numbers(2 * 3 * 20 * inner, 2));
            let (mut y, mut dx) = (vec![0.0; g.len()], vec![0.0; x.len()]);
            resample(&x, &mut y, 2, &taps, inner);
            resample(&g, &mut dx, 2, &back, inner);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            assert!((dot(&y, &g) - dot(&x, &dx)).abs() < 1e-12);
            // The middle of the first row.
            let want = (x[(4 * inner)..][..inner].iter().zip(&x[(5 * inner)..])).map(|(a, b)| (a + b) / 2.0);
            assert!(y[5 * inner..][..inner].iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-14));
            assert_eq!(back[0].transposed(), taps[0]);
        }
    }
}
