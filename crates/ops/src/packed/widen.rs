//! Codes of quantised weights as vectors of numbers, by the instruction sets that have a way to widen them.

use crate::product::PANEL;
use pulp::Simd;

/// Numbers of a panel's row.
pub(super) type Row<T> = [T; PANEL];

/// What codes of four bits stand for where there is no table.
pub(super) const NUMBERS: Row<f32> =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// How codes become vectors, V of them to a row.
pub(super) trait Widen<S: Simd>: Copy {
    /// Two rows of codes of four bits.
    fn short<const V: usize>(self, simd: S, codes: &Row<u8>) -> [[S::f32s; V]; 2];
    /// Two rows of codes of four bits that stand for the values of a table.
    fn table<const V: usize>(self, simd: S, codes: &Row<u8>, values: &Row<f32>) -> [[S::f32s; V]; 2];
    /// A row of signed codes.
    fn signed<const V: usize>(self, simd: S, codes: &Row<u8>) -> [S::f32s; V];
}

/// By way of memory, with any instruction set.
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[inline(always)]
pub(super) fn loaded<S: Simd, const V: usize>(row: &Row<f32>) -> [S::f32s; V] {
    let vectors = S::as_simd_f32s(row).0;
    std::array::from_fn(
        #[inline(always)]
        |v| vectors[v],
    )
}

impl<S: Simd> Widen<S> for Plain {
    #[inline(always)]
    fn short<const V: usize>(self, _: S, codes: &Row<u8>) -> [[S::f32s; V]; 2] {
        [
            loaded::<S, V>(&codes.map(|code| f32::from(code & 15))),
            loaded::<S, V>(&codes.map(|code| f32::from(code >> 4))),
        ]
    }

    #[inline(always)]
    fn table<const V: usize>(self, _: S, codes: &Row<u8>, values: &Row<f32>) -> [[S::f32s; V]; 2] {
        [
            loaded::<S, V>(&codes.map(|code| values[usize::from(code & 15)])),
            loaded::<S, V>(&codes.map(|code| values[usize::from(code >> 4)])),
        ]
    }

    #[inline(always)]
    fn signed<const V: usize>(self, _: S, codes: &Row<u8>) -> [S::f32s; V] {
        loaded::<S, V>(&codes.map(|code| f32::from(code.cast_signed())))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{NUMBERS, Row, Widen};
    use pulp::x86::{V3, V4};
    use pulp::{Simd, cast};
    use std::arch::x86_64::{__m128i, __m256, __m512};

    impl Widen<V4> for V4 {
        #[inline(always)]
        fn short<const V: usize>(self, simd: V4, codes: &Row<u8>) -> [[<V4 as Simd>::f32s; V]; 2] {
            self.table(simd, codes, &NUMBERS)
        }

        #[inline(always)]
        fn table<const V: usize>(
            self,
            _: V4,
            codes: &Row<u8>,
            values: &Row<f32>,
        ) -> [[<V4 as Simd>::f32s; V]; 2] {
            let avx = self.avx512f;
            // A permutation looks at the low four bits of an index alone.
            let numbers: __m512 = cast(*values);
            let low = avx._mm512_cvtepu8_epi32(cast::<_, __m128i>(*codes));
            let high = avx._mm512_srli_epi32::<4>(low);
            let first = cast(avx._mm512_permutexvar_ps(low, numbers));
            let second = cast(avx._mm512_permutexvar_ps(high, numbers));
            [[first; V], [second; V]]
        }

        #[inline(always)]
        fn signed<const V: usize>(self, _: V4, codes: &Row<u8>) -> [<V4 as Simd>::f32s; V] {
            let avx = self.avx512f;
            let wide = avx._mm512_cvtepi8_epi32(cast::<_, __m128i>(*codes));
            [cast(avx._mm512_cvtepi32_ps(wide)); V]
        }
    }

    impl Widen<V3> for V3 {
        #[inline(always)]
        fn short<const V: usize>(self, _: V3, codes: &Row<u8>) -> [[<V3 as Simd>::f32s; V]; 2] {
            let (avx, avx2) = (self.avx, self.avx2);
            let fifteen = avx._mm256_set1_epi32(15);
            let mut rows = [[cast::<[f32; 8], <V3 as Simd>::f32s>([0.0; 8]); V]; 2];
            let [first, second] = &mut rows;
            for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
                let wide = avx2._mm256_cvtepu8_epi32(half(codes, v));
                let low = avx2._mm256_and_si256(wide, fifteen);
                let high = avx2._mm256_srli_epi32::<4>(wide);
                *first = cast::<__m256, _>(avx._mm256_cvtepi32_ps(low));
                *second = cast::<__m256, _>(avx._mm256_cvtepi32_ps(high));
            }
            rows
        }

        #[inline(always)]
        fn table<const V: usize>(
            self,
            _: V3,
            codes: &Row<u8>,
            values: &Row<f32>,
        ) -> [[<V3 as Simd>::f32s; V]; 2] {
            let (avx, avx2) = (self.avx, self.avx2);
            let [low, high]: [__m256; 2] = cast(*values);
            // A permutation looks at the low three bits of an index, and a blend at the sign: the fourth bit there.
            let value = |index| {
                let both = [low, high].map(|half| avx2._mm256_permutevar8x32_ps(half, index));
                let fourth = avx._mm256_castsi256_ps(avx2._mm256_slli_epi32::<28>(index));
                cast::<__m256, <V3 as Simd>::f32s>(avx._mm256_blendv_ps(both[0], both[1], fourth))
            };
            let mut rows = [[cast::<[f32; 8], <V3 as Simd>::f32s>([0.0; 8]); V]; 2];
            let [first, second] = &mut rows;
            for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
                let wide = avx2._mm256_cvtepu8_epi32(half(codes, v));
                *first = value(wide);
                *second = value(avx2._mm256_srli_epi32::<4>(wide));
            }
            rows
        }

        #[inline(always)]
        fn signed<const V: usize>(self, _: V3, codes: &Row<u8>) -> [<V3 as Simd>::f32s; V] {
            let (avx, avx2) = (self.avx, self.avx2);
            let mut row = [cast::<[f32; 8], <V3 as Simd>::f32s>([0.0; 8]); V];
            for (v, row) in row.iter_mut().enumerate() {
                let wide = avx2._mm256_cvtepi8_epi32(half(codes, v));
                *row = cast::<__m256, _>(avx._mm256_cvtepi32_ps(wide));
            }
            row
        }
    }

    /// Eight codes, where instructions look for them.
    #[inline(always)]
    fn half(codes: &Row<u8>, v: usize) -> __m128i {
        let halves: [u64; 2] = cast(*codes);
        cast([halves[v], 0])
    }
}
