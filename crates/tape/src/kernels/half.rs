//! Conversions between F32 and BF16, in vector lanes.

use crate::bf16;

crate::multiversion! {
    /// The nearest BF16 of each number, of two the even one. A NaN stays one.
    pub(crate) fn narrow(out: &mut [bf16], values: &[f32]) {
        for (o, x) in out.iter_mut().zip(values) {
            let bits = x.to_bits();
            let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
            let quiet = (bits >> 16) | 0x40;
            let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
            *o = bf16::from_bits(if is_nan { quiet } else { nearest } as u16);
        }
    }
}

crate::multiversion! {
    /// The same numbers as F32.
    pub(crate) fn widen(out: &mut [f32], values: &[bf16]) {
        for (o, x) in out.iter_mut().zip(values) {
            *o = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_those_of_half() {
        // All upper halves, with lower ones around the middle between two numbers.
        for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let values: Vec<f32> = (0..=0xffffu32).map(|high| f32::from_bits(high << 16 | low)).collect();
            let mut short = vec![bf16::ZERO; values.len()];
            narrow(&mut short, &values);
            for (s, &x) in short.iter().zip(&values) {
                assert_eq!(s.to_bits(), bf16::from_f32(x).to_bits(), "{x}");
            }
            let mut long = vec![0.0; values.len()];
            widen(&mut long, &short);
            assert!(long.iter().zip(&short).all(|(l, s)| l.to_bits() == s.to_f32().to_bits() || l.is_nan()));
        }
    }
}
