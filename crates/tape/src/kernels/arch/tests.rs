use super::*;

/// The results of every method on some numbers, as bits; all NaNs are equal.
struct Methods;

const NUMBERS: [f32; 16] = [
    1.5,
    f32::NAN,
    -0.1,
    3e38,
    -0.0,
    7.0,
    1e-40,
    f32::INFINITY,
    0.3,
    -2.0,
    0.7,
    11.0,
    1e-3,
    -5.5,
    f32::NEG_INFINITY,
    2.0,
];

fn bits(x: f32) -> u32 {
    if x.is_nan() { u32::MAX } else { x.to_bits() }
}

impl Kernel for Methods {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<u32> {
        let mut out = Vec::new();
        // Each pair of offsets, so that every lane gets every number.
        for (shift, turn) in (0..16).flat_map(|shift| [(shift, 5), (shift, 11)]) {
            let at = |by: usize| -> [f32; 16] { std::array::from_fn(|i| NUMBERS[(i + by) % 16]) };
            let (a, b, c) = (at(shift), at(shift * turn % 16), at(shift + turn));
            // SAFETY: no vector has more than 16 lanes.
            unsafe {
                let [a, b, c] = [V::load(a.as_ptr()), V::load(b.as_ptr()), V::load(c.as_ptr())];
                // Multiply-add, which rounds once or twice, is tested separately.
                let scaled = V::splat(NUMBERS[shift & 3]).scale(V::splat((shift * 33) as f32 - 250.0));
                for v in [
                    a.add(b),
                    a.sub(c),
                    b.mul(c),
                    a.div(c),
                    a.max(b),
                    a.min(c),
                    V::splat(NUMBERS[shift]).min(V::splat(1.0)).by_sign(a, b),
                    scaled,
                ] {
                    let mut lanes = [0.0f32; 16];
                    v.store(lanes.as_mut_ptr());
                    out.extend(lanes[..4].iter().map(|&x| bits(x)));
                }
            }
        }
        out
    }
}

/// Exact products: `[a b + c, c - a b]` of integers.
struct Products;

impl Kernel for Products {
    type Output = [[f32; 4]; 2];

    #[inline(always)]
    fn run<V: Vector>(self) -> [[f32; 4]; 2] {
        let whole = |by: i32| -> [f32; 16] { std::array::from_fn(|i| ((i as i32 * by) % 23 - 11) as f32) };
        let (a, b, c) = (whole(7), whole(5), whole(3));
        let mut out = [[0.0; 16]; 2];
        // SAFETY: no vector has more than 16 lanes.
        unsafe {
            let [a, b, c] = [V::load(a.as_ptr()), V::load(b.as_ptr()), V::load(c.as_ptr())];
            a.mul_add(b, c).store(out[0].as_mut_ptr());
            a.neg_mul_add(b, c).store(out[1].as_mut_ptr());
        }
        out.map(|lanes| [lanes[0], lanes[1], lanes[2], lanes[3]])
    }
}

/// Loads and stores of every part of a vector, at the end of an allocation.
struct Parts;

impl Kernel for Parts {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        assert!(MAX_LANES.is_multiple_of(V::LANES) && [6, 12].contains(&V::TILE_ROWS));
        for n in 0..=V::LANES {
            let from: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let mut to = vec![-1.0f32; n + 1];
            let mut lanes = [f32::NAN; MAX_LANES];
            // SAFETY: both slices hold n values, and the array a vector.
            unsafe {
                let v = V::load_part(from.as_ptr(), n);
                v.store_part(to.as_mut_ptr(), n);
                v.store(lanes.as_mut_ptr());
            }
            assert_eq!(to[..n], from);
            assert_eq!(to[n], -1.0, "only {n} lanes are written");
            for (i, &lane) in lanes.iter().enumerate().take(V::LANES) {
                assert_eq!(lane, from.get(i).copied().unwrap_or(0.0));
            }
        }
    }
}

fn available() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

#[test]
fn all_instruction_sets_compute_the_same() {
    // SAFETY: needs no instruction set beyond the baseline.
    let (plain, products) =
        unsafe { (portable::Portable::call(Methods), portable::Portable::call(Products)) };
    for set in available() {
        assert_eq!(run_with(set, Methods), plain, "{set:?}");
        assert_eq!(run_with(set, Products), products, "{set:?}");
    }
}

#[test]
fn parts_of_vectors() {
    // SAFETY: needs no instruction set beyond the baseline.
    unsafe { portable::Portable::call(Parts) };
    available().for_each(|set| run_with(set, Parts));
}

#[test]
fn the_instruction_set_in_use_is_one_of_the_machine() {
    assert!(instruction_set().is_available());
    assert!(InstructionSet::Portable.is_available());
}
