//! Random numbers: a generator whose state can be saved, the default generator of each thread, and draws from laws.

mod bernoulli;
mod laws;
mod multinomial;
mod poisson;
mod samplers;
#[cfg(test)]
mod statistics;

use crate::dtype::Float;
use crate::int_list::IntList;
use crate::shape;
use crate::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng, TryRng};
use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// A source of random numbers (ChaCha with 8 rounds): the same seed gives the same numbers on every machine.
///
/// It implements `rand`'s traits, which provide `random_range`, `random_bool` and the other methods of
/// [`rand::RngExt`].
///
/// ```
/// use tapegrad_tape::Generator;
/// let (mut a, mut b) = (Generator::manual_seed(7), Generator::manual_seed(7));
/// assert_eq!(a.normal(&[3], 0.0, 1.0).to_vec::<f32>(), b.normal(&[3], 0.0, 1.0).to_vec::<f32>());
/// ```
#[derive(Debug)]
pub struct Generator(ChaCha8Rng);

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

impl Clone for Generator {
    fn clone(&self) -> Generator {
        Generator::from_state(self.state())
    }
}

/// The state of a [`Generator`]; [`Generator::from_state`] continues with the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorState {
    /// The key.
    pub seed: [u8; 32],
    /// The position in the stream, in 32-bit words.
    pub word_pos: u128,
}

impl Generator {
    /// A generator at the start of the stream that belongs to the seed.
    pub fn manual_seed(seed: u64) -> Generator {
        Generator(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The stream of `seed` for a purpose (of which eight bytes count) and two counters, such as epoch and index. With
    /// separate streams a sample does not depend on the thread that draws it, nor on the order.
    ///
    /// ```
    /// use tapegrad_tape::Generator;
    /// let mut crop = Generator::stream(0, "crop", [3, 14]);
    /// assert_eq!(crop.next_u64(), Generator::stream(0, "crop", [3, 14]).next_u64());
    /// assert_ne!(crop.next_u64(), Generator::stream(0, "crop", [3, 15]).next_u64());
    /// ```
    pub fn stream(seed: u64, purpose: &str, counters: [u64; 2]) -> Generator {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = &purpose.as_bytes()[..purpose.len().min(8)];
        key[8..8 + name.len()].copy_from_slice(name);
        key[16..24].copy_from_slice(&counters[0].to_le_bytes());
        key[24..].copy_from_slice(&counters[1].to_le_bytes());
        Generator(ChaCha8Rng::from_seed(key))
    }

    /// The state of the generator.
    pub fn state(&self) -> GeneratorState {
        GeneratorState { seed: self.0.get_seed(), word_pos: self.0.get_word_pos() }
    }

    /// A generator with a saved state.
    pub fn from_state(state: GeneratorState) -> Generator {
        let mut rng = ChaCha8Rng::from_seed(state.seed);
        rng.set_word_pos(state.word_pos);
        Generator(rng)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn next_f64(&mut self) -> f64 {
        self.0.random()
    }

    /// A sample of the standard normal distribution.
    pub fn next_normal(&mut self) -> f64 {
        self.normal_pair()[0]
    }

    /// Two independent normal numbers (Box-Muller). The functions are `libm`'s: those of the platform differ between
    /// machines in the last digit.
    fn normal_pair(&mut self) -> [f64; 2] {
        let radius = (-2.0 * libm::log(1.0 - self.next_f64())).sqrt();
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * self.next_f64());
        [radius * cos, radius * sin]
    }

    /// An integer in `0..n`, each as likely as the others.
    ///
    /// # Panics
    /// If `n` is zero.
    #[track_caller]
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below: there is no number below zero");
        self.0.random_range(0..n)
    }

    /// Numbers of a type, each drawn by `next`.
    #[track_caller]
    pub(crate) fn fill<T: Float>(
        &mut self,
        op: &str,
        shape: &[usize],
        mut next: impl FnMut(&mut Generator) -> f64,
    ) -> Tensor {
        shape::numel_for(op, shape);
        let mut t = Tensor::uninit(shape, T::DTYPE);
        for v in t.data_mut::<T>() {
            *v = T::from_f64(next(self));
        }
        t
    }

    /// F32 numbers, uniformly distributed over `[low, high)`.
    ///
    /// # Panics
    /// If `low` is above `high`, or one is not finite in F32 (as in PyTorch).
    #[track_caller]
    pub fn uniform(&mut self, shape: impl IntList, low: f64, high: f64) -> Tensor {
        let shape = &shape.to_sizes("uniform");
        let finite = |x: f64| (x as f32).is_finite();
        assert!(
            finite(low) && finite(high) && low <= high,
            "uniform: expects a range [low, high) of finite numbers, got low = {low} and high = {high}"
        );
        self.fill::<f32>("uniform", shape, |g| {
            let v = low + (high - low) * g.next_f64();
            // Rounding to f32 must not reach the open end.
            if v as f32 >= high as f32 && high > low { low } else { v }
        })
    }

    /// F32 numbers of a normal distribution.
    ///
    /// # Panics
    /// If `std` is negative or not a number (as in PyTorch).
    #[track_caller]
    pub fn normal(&mut self, shape: impl IntList, mean: f64, std: f64) -> Tensor {
        let shape = &shape.to_sizes("normal");
        assert!(std >= 0.0, "normal: the standard deviation has to be at least 0, got std = {std}");
        let mut spare = None;
        self.fill::<f32>("normal", shape, |g| {
            let z = spare.take().unwrap_or_else(|| {
                let [z, next] = g.normal_pair();
                spare = Some(next);
                z
            });
            mean + std * z
        })
    }

    /// F32 numbers that are one with probability `p`, else zero.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn bernoulli(&mut self, shape: impl IntList, p: f64) -> Tensor {
        let shape = &shape.to_sizes("bernoulli");
        assert!((0.0..=1.0).contains(&p), "bernoulli: the probability has to be in [0, 1], got {p}");
        self.fill::<f32>("bernoulli", shape, |g| f64::from(u8::from(g.next_f64() < p)))
    }

    /// The integers `0..n` in random order, as I64 (`torch.randperm`).
    #[track_caller]
    pub fn permutation(&mut self, n: usize) -> Tensor {
        shape::numel_for("permutation", &[n]);
        let mut t = Tensor::arange(0, n as i64);
        self.shuffle(t.data_mut::<i64>());
        t
    }

    /// Shuffles a list.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        list.shuffle(&mut self.0);
    }
}

thread_local! {
    static DEFAULT: RefCell<Generator> = RefCell::new(first_of_this_thread());
}

/// The seed of the process, and how many threads have drawn theirs from it.
static THREADS: Mutex<(u64, u64)> = Mutex::new((0, 0));

fn threads() -> MutexGuard<'static, (u64, u64)> {
    THREADS.lock().unwrap_or_else(|e| e.into_inner())
}

fn is_main_thread() -> bool {
    std::thread::current().name() == Some("main")
}

/// The main thread begins with seed 0. Every other one gets a stream of its own: with equal seeds, models that several
/// threads make would be copies of each other.
fn first_of_this_thread() -> Generator {
    static MAIN: AtomicBool = AtomicBool::new(false);
    // The name can be given to any thread, but only one begins with the seed.
    if is_main_thread() && !MAIN.swap(true, Ordering::Relaxed) {
        return Generator::manual_seed(0);
    }
    let mut threads = threads();
    let (seed, number) = *threads;
    threads.1 += 1;
    Generator::stream(seed, "threads", [number, 0])
}

/// Borrows this thread's default generator for the function of this name.
#[track_caller]
fn borrow_default<R>(name: &str, f: impl FnOnce(&mut Generator) -> R) -> R {
    let Some(result) = DEFAULT.with(|generator| generator.try_borrow_mut().ok().map(|mut g| f(&mut g)))
    else {
        panic!(
            "{name}: the default generator of this thread is in use by a call of with_default_generator further up; \
             draw from the generator that its function is given, and do there nothing else that draws from the \
             default one or seeds it (initializers, dropout, checkpoint, manual_seed)"
        )
    };
    result
}

/// Seeds this thread's default generator, from which initializers and dropout draw (`torch.manual_seed`).
///
/// Other threads keep theirs. On the main thread it also seeds the process: threads that have drawn nothing yet get new
/// streams, numbered from zero. So a program that seeds its main thread and starts its threads one after the other, each
/// drawing before the next one starts, is repeatable. Where threads start at once, the order in which they first draw
/// decides who gets which stream: each of them should then call `manual_seed` itself, with a seed of its own.
///
/// ```
/// use tapegrad_tape::{manual_seed, with_default_generator};
/// let draw = |thread: u64| {
///     manual_seed(100 + thread);
///     with_default_generator(|g| g.next_u64())
/// };
/// let run = || [0, 1].map(|i| std::thread::spawn(move || draw(i))).map(|t| t.join().unwrap());
/// assert_eq!(run(), run());
/// ```
///
/// # Panics
/// Inside [`with_default_generator`].
#[track_caller]
pub fn manual_seed(seed: u64) {
    borrow_default("manual_seed", |g| *g = Generator::manual_seed(seed));
    if is_main_thread() {
        *threads() = (seed, 0);
    }
}

/// Calls a function with this thread's default generator.
///
/// Every thread has its own. Until [`manual_seed`] is called, that of the main thread begins with seed 0, and that of any
/// other thread with the next stream of the process: two threads never draw the same numbers unless they were seeded
/// alike.
///
/// # Panics
/// Inside another call; `f` should draw from the generator that it is given.
#[track_caller]
pub fn with_default_generator<R>(f: impl FnOnce(&mut Generator) -> R) -> R {
    borrow_default("with_default_generator", f)
}

/// The state of this thread's default generator.
///
/// # Panics
/// Inside [`with_default_generator`].
#[track_caller]
pub fn default_generator_state() -> GeneratorState {
    borrow_default("default_generator_state", |g| g.state())
}

/// Restores the state of this thread's default generator.
///
/// # Panics
/// Inside [`with_default_generator`].
#[track_caller]
pub fn set_default_generator_state(state: GeneratorState) {
    borrow_default("set_default_generator_state", |g| *g = Generator::from_state(state));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_goes_on() {
        let mut g = Generator::manual_seed(3);
        g.next_u64();
        let mut h = Generator::from_state(g.state());
        assert_eq!([g.next_u64(), g.next_u64()], [h.next_u64(), h.next_u64()]);
    }

    /// The bits must be the same on every machine.
    #[test]
    fn the_numbers_of_a_seed() {
        let bits = |t: Tensor| t.to_vec::<f32>().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let mut g = Generator::manual_seed(0);
        let got =
            (bits(g.normal(&[5], 0.0, 1.0)), bits(g.uniform(&[2], 0.0, 1.0)), g.permutation(8).to_vec());
        let normal = vec![3217329310, 1051391517, 1069048077, 1058174445, 3220864060];
        assert_eq!(got, (normal, vec![1062484052, 1064269852], vec![7i64, 5, 3, 1, 2, 4, 0, 6]));
        let mut g = Generator::stream(1, "purpose", [2, 3]);
        let got = (g.next_normal().to_bits(), g.next_u64(), g.below(1000), g.next_f64().to_bits());
        assert_eq!(got, (13829907029031676801, 16133366114669966176, 116, 4600379956375216568));
    }

    #[test]
    fn streams_differ_by_every_part_of_the_key() {
        let first = |seed, purpose, counters| Generator::stream(seed, purpose, counters).next_u64();
        let all = [
            first(0, "x", [0, 0]),
            first(1, "x", [0, 0]),
            first(0, "y", [0, 0]),
            first(0, "x", [1, 0]),
            first(0, "x", [0, 1]),
        ];
        for i in 0..all.len() {
            assert!(!all[..i].contains(&all[i]));
        }
    }

    #[test]
    fn moments() {
        let mut g = Generator::manual_seed(1);
        let n = 100_000;
        let moments = |t: Tensor| {
            let v = t.to_vec::<f64>();
            let mean = v.iter().sum::<f64>() / n as f64;
            (mean, v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64)
        };
        let (mean, var) = moments(g.normal(&[n], 1.0, 2.0));
        assert!((mean - 1.0).abs() < 0.03 && (var - 4.0).abs() < 0.08, "{mean} {var}");
        let (mean, var) = moments(g.uniform(&[n], -1.0, 1.0));
        assert!(mean.abs() < 0.01 && (var - 1.0 / 3.0).abs() < 0.01, "{mean} {var}");
        let (mean, _) = moments(g.bernoulli(&[n], 0.25));
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
    }

    #[test]
    fn a_generator_in_use_is_named() {
        let calls: [(&str, fn()); 4] = [
            ("with_default_generator", || with_default_generator(|g| *g = Generator::manual_seed(1))),
            ("manual_seed", || manual_seed(1)),
            ("default_generator_state", || {
                default_generator_state();
            }),
            ("set_default_generator_state", || {
                set_default_generator_state(Generator::manual_seed(1).state())
            }),
        ];
        for (name, call) in calls {
            let before = default_generator_state();
            let panic = std::panic::catch_unwind(|| with_default_generator(|_| call())).unwrap_err();
            let message = panic.downcast_ref::<String>().unwrap();
            assert!(message.starts_with(&format!("{name}: the default generator")), "{message}");
            assert_eq!(default_generator_state(), before, "{name} left the generator as it was");
        }
    }

    #[test]
    fn fresh_threads_draw_different_numbers() {
        let draw = || with_default_generator(|g| g.next_u64());
        let first = |f: fn() -> u64| std::thread::spawn(f).join().unwrap();
        let fresh = [0; 4].map(|_| first(|| with_default_generator(|g| g.next_u64())));
        let here = draw();
        for (i, a) in fresh.iter().enumerate() {
            assert!(!fresh[..i].contains(a) && *a != here, "{fresh:?}, {here}");
        }
        // A name does not make a thread the main one twice.
        let named = || {
            let thread = std::thread::Builder::new().name("main".into());
            thread.spawn(|| with_default_generator(|g| g.next_u64())).unwrap().join().unwrap()
        };
        assert_ne!(named(), named());
        let seeded = || {
            manual_seed(7);
            with_default_generator(|g| g.next_u64())
        };
        assert_eq!(first(seeded), first(seeded));
    }

    #[test]
    fn a_permutation_holds_each_once() {
        let mut p = Generator::manual_seed(1).permutation(100).to_vec::<i64>();
        assert_ne!(p, (0..100).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
    }
}
