// AVX-512 with VNNI: one register holds all 16 lanes. With EDGEDEC_VBMI a table lookup ignores
// the bits above the code, which saves the masks.
#pragma once

#include <immintrin.h>

#include "inline.h"

namespace edgedec {
namespace EDGEDEC_ISA {

constexpr int kOffset7 = 64;
constexpr int kOffset8 = 128;
constexpr int kDirectBlocks = 4;
constexpr int kDirectPanels = 4;
constexpr int kPanelRows = 6;
constexpr int kPanelBlocks = 4;
constexpr int kQueryRows = 6;
constexpr int kKeyVectors = 4;

struct F32 {
  __m512 v;
};
struct I32 {
  __m512i v;
};
struct Bytes {
  __m512i v;
};
struct Table {
  __m512i v;
};
struct Four {
  __m512i v;
};

EDGEDEC_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

EDGEDEC_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
EDGEDEC_INLINE F32 load_part(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
EDGEDEC_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
EDGEDEC_INLINE void store_part(float* p, F32 a, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
EDGEDEC_INLINE F32 splat(float x) { return {_mm512_set1_ps(x)}; }
EDGEDEC_INLINE I32 splat(int32_t x) { return {_mm512_set1_epi32(x)}; }
EDGEDEC_INLINE F32 add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
EDGEDEC_INLINE I32 add(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
EDGEDEC_INLINE F32 sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
EDGEDEC_INLINE F32 mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
EDGEDEC_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
EDGEDEC_INLINE I32 max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
EDGEDEC_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
EDGEDEC_INLINE __m256 low_half(__m512 a) { return _mm512_castps512_ps256(a); }
EDGEDEC_INLINE __m256 high_half(__m512 a) { return _mm512_extractf32x8_ps(a, 1); }
EDGEDEC_INLINE float sum(F32 a) {
  const __m256 eight = _mm256_add_ps(low_half(a.v), high_half(a.v));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
EDGEDEC_INLINE float largest(F32 a) {
  const __m256 eight = _mm256_max_ps(low_half(a.v), high_half(a.v));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Pairs of vectors are added into one, four times; the inputs are taken in the order that puts the
// results into theirs.
EDGEDEC_INLINE F32 sums(const F32 (&a)[16]) {
  __m512 eight[8], four[4], two[2];
  EDGEDEC_UNROLL for (int i = 0; i < 8; ++i) {
    const int p = 2 * i, q = p + 1;
    const __m512 x = a[4 * (p % 4) + p / 4].v, y = a[4 * (q % 4) + q / 4].v;
    eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(1, 0, 1, 0)),
                             _mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 2, 3, 2)));
  }
  EDGEDEC_UNROLL for (int i = 0; i < 4; ++i) {
    const __m512 x = eight[2 * i], y = eight[2 * i + 1];
    four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(2, 0, 2, 0)),
                            _mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 1, 3, 1)));
  }
  EDGEDEC_UNROLL for (int i = 0; i < 2; ++i) {
    const __m512 x = four[2 * i], y = four[2 * i + 1];
    two[i] = _mm512_add_ps(_mm512_shuffle_ps(x, y, _MM_SHUFFLE(1, 0, 1, 0)),
                           _mm512_shuffle_ps(x, y, _MM_SHUFFLE(3, 2, 3, 2)));
  }
  return {_mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], _MM_SHUFFLE(2, 0, 2, 0)),
                        _mm512_shuffle_ps(two[0], two[1], _MM_SHUFFLE(3, 1, 3, 1)))};
}
EDGEDEC_INLINE int32_t sum(I32 a) { return _mm512_reduce_add_epi32(a.v); }
EDGEDEC_INLINE int32_t largest(I32 a) { return _mm512_reduce_max_epi32(a.v); }
EDGEDEC_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
EDGEDEC_INLINE I32 round_to_int(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }
EDGEDEC_INLINE F32 power_of_two(I32 n) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}
EDGEDEC_INLINE I32 magnitude(F32 a) {
  return {_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff))};
}
EDGEDEC_INLINE void store_bytes(int8_t* p, I32 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
EDGEDEC_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

EDGEDEC_INLINE Bytes bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
EDGEDEC_INLINE void store(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
template <int N>
EDGEDEC_INLINE Bytes shift(Bytes a) {
  if constexpr (N == 0) return a;
  return {_mm512_srli_epi16(a.v, N)};
}
template <int N>
EDGEDEC_INLINE Bytes shift_left(Bytes a) {
  if constexpr (N == 0) return a;
  return {_mm512_slli_epi16(a.v, N)};
}
template <int M>
EDGEDEC_INLINE Bytes mask(Bytes a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(M))};
}
EDGEDEC_INLINE Bytes either(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
EDGEDEC_INLINE Bytes flip(Bytes a) {
  return {_mm512_xor_si512(a.v, _mm512_set1_epi8(static_cast<char>(0x80)))};
}
EDGEDEC_INLINE Table table(const uint8_t* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
#if defined(EDGEDEC_VBMI)
#if defined(__AVX512VBMI__) || (defined(_MSC_VER) && !defined(__clang__))
constexpr bool kEmulated = false;
EDGEDEC_INLINE __m512i permute_bytes(__m512i index, __m512i table) {
  return _mm512_permutexvar_epi8(index, table);
}
#else  // the same in plain C++, so that this file's logic can be tested on machines without it
constexpr bool kEmulated = true;
EDGEDEC_INLINE __m512i permute_bytes(__m512i index, __m512i table) {
  alignas(64) uint8_t i[64], t[64];
  _mm512_store_si512(i, index);
  _mm512_store_si512(t, table);
  for (uint8_t& x : i) x = t[x & 63];
  return _mm512_load_si512(i);
}
#endif
EDGEDEC_INLINE Bytes code(Bytes a) { return a; }
EDGEDEC_INLINE Bytes lookup(Table t, Bytes a) { return {permute_bytes(a.v, t.v)}; }
#else
constexpr bool kEmulated = false;
EDGEDEC_INLINE Bytes code(Bytes a) { return mask<15>(a); }
EDGEDEC_INLINE Bytes lookup(Table t, Bytes a) { return {_mm512_shuffle_epi8(t.v, a.v)}; }
#endif
EDGEDEC_INLINE Four four(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return {_mm512_set1_epi32(x)};
}
EDGEDEC_INLINE I32 dot7(I32 acc, Bytes w, Four x) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)};
}
EDGEDEC_INLINE I32 dot8(I32 acc, Bytes w, Four x) { return dot7(acc, w, x); }
template <int B>
EDGEDEC_INLINE F32 byte_as_float(Bytes a) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(a.v, 24 - 8 * B), 24))};
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
