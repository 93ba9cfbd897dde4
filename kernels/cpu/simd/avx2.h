// AVX2 with FMA: two registers hold the 16 lanes. With EDGEDEC_AVXVNNI the dot products take one
// instruction instead of two or three.
#pragma once

#include <immintrin.h>

#include "inline.h"

namespace edgedec {
namespace EDGEDEC_ISA {

constexpr int kOffset7 = 64;
constexpr int kDirectBlocks = 2;
constexpr int kDirectPanels = 2;
constexpr int kPanelRows = 3;
constexpr int kPanelBlocks = 2;
constexpr int kQueryRows = 5;
constexpr int kKeyVectors = 1;

struct F32 {
  __m256 lo, hi;
};
struct I32 {
  __m256i lo, hi;
};
struct Bytes {
  __m256i lo, hi;
};
struct Table {
  __m256i v;
};
struct Four {
  __m256i v;
};

EDGEDEC_INLINE __m256i lanes_below(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

EDGEDEC_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
EDGEDEC_INLINE F32 load_part(const float* p, int n) {
  return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))};
}
EDGEDEC_INLINE void store(float* p, F32 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
EDGEDEC_INLINE void store_part(float* p, F32 a, int n) {
  _mm256_maskstore_ps(p, lanes_below(n), a.lo);
  _mm256_maskstore_ps(p + 8, lanes_below(n - 8), a.hi);
}
EDGEDEC_INLINE F32 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
EDGEDEC_INLINE I32 splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
EDGEDEC_INLINE F32 add(F32 a, F32 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
EDGEDEC_INLINE I32 add(I32 a, I32 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
EDGEDEC_INLINE F32 sub(F32 a, F32 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
EDGEDEC_INLINE F32 mul(F32 a, F32 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
EDGEDEC_INLINE F32 max(F32 a, F32 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
EDGEDEC_INLINE I32 max(I32 a, I32 b) {
  return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
EDGEDEC_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
EDGEDEC_INLINE float sum(F32 a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
EDGEDEC_INLINE float largest(F32 a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Pairs of vectors are added into one; the inputs are taken in the order that puts the results into
// theirs.
EDGEDEC_INLINE __m256 sums_of_8(const F32* a) {
  __m256 four[4], two[2];
  EDGEDEC_UNROLL for (int i = 0; i < 4; ++i) {
    const __m256 x = _mm256_add_ps(a[i].lo, a[i].hi), y = _mm256_add_ps(a[i + 4].lo, a[i + 4].hi);
    four[i] = _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  }
  EDGEDEC_UNROLL for (int i = 0; i < 2; ++i) {
    const __m256 x = four[2 * i], y = four[2 * i + 1];
    two[i] = _mm256_add_ps(_mm256_shuffle_ps(x, y, _MM_SHUFFLE(1, 0, 1, 0)),
                           _mm256_shuffle_ps(x, y, _MM_SHUFFLE(3, 2, 3, 2)));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], _MM_SHUFFLE(2, 0, 2, 0)),
                       _mm256_shuffle_ps(two[0], two[1], _MM_SHUFFLE(3, 1, 3, 1)));
}
EDGEDEC_INLINE F32 sums(const F32 (&a)[16]) { return {sums_of_8(a), sums_of_8(a + 8)}; }
EDGEDEC_INLINE int32_t sum(I32 a) {
  alignas(32) int32_t v[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(v), _mm256_add_epi32(a.lo, a.hi));
  return v[0] + v[1] + v[2] + v[3] + v[4] + v[5] + v[6] + v[7];
}
EDGEDEC_INLINE int32_t largest(I32 a) {
  alignas(32) int32_t v[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(v), _mm256_max_epi32(a.lo, a.hi));
  int32_t m = v[0];
  for (int i = 1; i < 8; ++i) m = v[i] > m ? v[i] : m;
  return m;
}
EDGEDEC_INLINE F32 to_float(I32 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
EDGEDEC_INLINE I32 round_to_int(F32 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
EDGEDEC_INLINE F32 power_of_two(I32 n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.lo, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.hi, bias), 23))};
}
EDGEDEC_INLINE I32 magnitude(F32 a) {
  const __m256i rest = _mm256_set1_epi32(0x7fffffff);
  return {_mm256_and_si256(_mm256_castps_si256(a.lo), rest),
          _mm256_and_si256(_mm256_castps_si256(a.hi), rest)};
}
EDGEDEC_INLINE void store_bytes(int8_t* p, I32 a) {
  __m256i words = _mm256_packs_epi32(a.lo, a.hi);              // halves of both, interleaved
  words = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
  const __m128i packed =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}
EDGEDEC_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

EDGEDEC_INLINE Bytes bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
EDGEDEC_INLINE void store(uint8_t* p, Bytes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
}
template <int N>
EDGEDEC_INLINE Bytes shift(Bytes a) {
  if constexpr (N == 0) return a;
  return {_mm256_srli_epi16(a.lo, N), _mm256_srli_epi16(a.hi, N)};
}
template <int N>
EDGEDEC_INLINE Bytes shift_left(Bytes a) {
  if constexpr (N == 0) return a;
  return {_mm256_slli_epi16(a.lo, N), _mm256_slli_epi16(a.hi, N)};
}
template <int M>
EDGEDEC_INLINE Bytes mask(Bytes a) {
  const __m256i m = _mm256_set1_epi8(M);
  return {_mm256_and_si256(a.lo, m), _mm256_and_si256(a.hi, m)};
}
EDGEDEC_INLINE Bytes either(Bytes a, Bytes b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
EDGEDEC_INLINE Bytes flip(Bytes a) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(0x80));
  return {_mm256_xor_si256(a.lo, m), _mm256_xor_si256(a.hi, m)};
}
EDGEDEC_INLINE Table table(const uint8_t* p) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
EDGEDEC_INLINE Bytes code(Bytes a) { return mask<15>(a); }
EDGEDEC_INLINE Bytes lookup(Table t, Bytes a) {
  return {_mm256_shuffle_epi8(t.v, a.lo), _mm256_shuffle_epi8(t.v, a.hi)};
}
EDGEDEC_INLINE Four four(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return {_mm256_set1_epi32(x)};
}

#if defined(EDGEDEC_AVXVNNI)
constexpr int kOffset8 = 128;
#if defined(__AVXVNNI__) || (defined(_MSC_VER) && !defined(__clang__))
constexpr bool kEmulated = false;
EDGEDEC_INLINE __m256i dot_bytes(__m256i acc, __m256i w, __m256i x) {
  return _mm256_dpbusd_avx_epi32(acc, w, x);
}
#else  // the same in plain C++, so that this file's logic can be tested on machines without it
constexpr bool kEmulated = true;
EDGEDEC_INLINE __m256i dot_bytes(__m256i acc, __m256i w, __m256i x) {
  alignas(32) int32_t a[8];
  alignas(32) uint8_t u[32];
  alignas(32) int8_t s[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(a), acc);
  _mm256_store_si256(reinterpret_cast<__m256i*>(u), w);
  _mm256_store_si256(reinterpret_cast<__m256i*>(s), x);
  for (int i = 0; i < 32; ++i) a[i / 4] += u[i] * s[i];
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(a));
}
#endif
EDGEDEC_INLINE I32 dot7(I32 acc, Bytes w, Four x) {
  return {dot_bytes(acc.lo, w.lo, x.v), dot_bytes(acc.hi, w.hi, x.v)};
}
EDGEDEC_INLINE I32 dot8(I32 acc, Bytes w, Four x) { return dot7(acc, w, x); }
#else
constexpr bool kEmulated = false;
constexpr int kOffset8 = 0;
// Two products of at most 127 * 127 fit into the 16 bits that they are added in.
EDGEDEC_INLINE __m256i dot_bytes(__m256i acc, __m256i w, __m256i x) {
  return _mm256_add_epi32(acc,
                          _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
EDGEDEC_INLINE I32 dot7(I32 acc, Bytes w, Four x) {
  return {dot_bytes(acc.lo, w.lo, x.v), dot_bytes(acc.hi, w.hi, x.v)};
}
// Levels of 8 bits would not fit if an offset made them positive: their signs go to the activations.
EDGEDEC_INLINE I32 dot8(I32 acc, Bytes w, Four x) {
  const Bytes level = flip(w);
  return {dot_bytes(acc.lo, _mm256_abs_epi8(level.lo), _mm256_sign_epi8(x.v, level.lo)),
          dot_bytes(acc.hi, _mm256_abs_epi8(level.hi), _mm256_sign_epi8(x.v, level.hi))};
}
#endif

template <int B>
EDGEDEC_INLINE F32 byte_as_float(Bytes a) {
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(a.lo, 24 - 8 * B), 24)),
          _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(a.hi, 24 - 8 * B), 24))};
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
