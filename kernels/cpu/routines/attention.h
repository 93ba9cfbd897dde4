// Attention of one head, in float32.
//
// A score is scale * q.k + bias + mask. Sums run over 16 lanes or one by one, in an order that
// does not depend on the instruction set.
#pragma once

#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

// e^x for x <= 0, within 2 ulp; below -87 it is a number around 1e-38, which no sum notices.
EDGEDEC_INLINE F32 exponential(F32 x) {
  x = max(x, splat(-87.0f));
  const I32 n = round_to_int(mul(x, splat(1.44269504f)));
  const F32 whole = to_float(n);
  F32 r = fma(whole, splat(-0.693359375f), x);  // ln 2 in two parts
  r = fma(whole, splat(2.12194440e-4f), r);
  F32 y = splat(1.0f / 720.0f);
  y = fma(y, r, splat(1.0f / 120.0f));
  y = fma(y, r, splat(1.0f / 24.0f));
  y = fma(y, r, splat(1.0f / 6.0f));
  y = fma(y, r, splat(0.5f));
  y = fma(y, r, splat(1.0f));
  y = fma(y, r, splat(1.0f));
  return mul(y, power_of_two(n));
}

constexpr float kUnseen = -3.0e38f;  // the score of a key that a query must not see

// How many positions query t sees.
EDGEDEC_INLINE int64_t seen(const Attention& a, int64_t t) {
  if (!a.causal) return a.positions;
  const int64_t n = a.first + t + 1;
  return n < a.positions ? n : a.positions;
}

// The bias of 16 positions from j on, for query t: its line has 16 copies of each end around it.
EDGEDEC_INLINE F32 bias_of(const Attention& a, int64_t t, int64_t j) {
  int64_t i = a.bias_length - 1 - a.origin - (a.first + t) + j;
  if (i < -16) i = -16;
  if (i > a.bias_length) i = a.bias_length;
  return load(a.bias + 16 + i);
}

EDGEDEC_INLINE F32 with_bias(const Attention& a, int64_t t, int64_t j, F32 product) {
  const F32 score = add(mul(product, splat(a.scale)), bias_of(a, t, j));
  if (!a.mask) return score;
  const int64_t left = a.positions - j;
  return add(score, left >= 16 ? load(a.mask + j)
                               : load_part(a.mask + j, static_cast<int>(left)));
}

// Scores [round_up(n, 16)] to weights that are not yet divided by their sum, which is returned.
EDGEDEC_INLINE float soften(float* score, int64_t n) {
  const int64_t padded = round_up(n, 16);
  for (int64_t j = n; j < padded; ++j) score[j] = kUnseen;
  F32 most = splat(kUnseen);
  for (int64_t j = 0; j < padded; j += 16) most = max(most, load(score + j));
  const F32 top = splat(largest(most));
  F32 total = splat(0.0f);
  for (int64_t j = 0; j < padded; j += 16) {
    const F32 weight = exponential(sub(load(score + j), top));
    total = add(total, weight);
    store(score + j, weight);
  }
  return sum(total);
}

EDGEDEC_INLINE float inner(const float* q, const float* k, int64_t n) {
  F32 s = splat(0.0f);
  int64_t d = 0;
  for (; d + 16 <= n; d += 16) s = fma(load(q + d), load(k + d), s);
  if (d < n) {
    const int rest = static_cast<int>(n - d);
    s = fma(load_part(q + d, rest), load_part(k + d, rest), s);
  }
  return sum(s);
}

// Adds up weighted values for Rows queries and Vectors * 16 channels from `d` on.
template <int Rows, int Vectors>
EDGEDEC_INLINE void mix(const Attention& a, const float* weight, int64_t line, int64_t n,
                        const float* inverse, int64_t t0, int64_t d) {
  F32 acc[Rows][Vectors];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r)
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = splat(0.0f);
  const float* value = a.value + d;
  const int part = a.size - d < 16 ? static_cast<int>(a.size - d) : 16;
  for (int64_t j = 0; j < n; ++j, value += a.stride) {
    F32 x[Vectors];
    if (Vectors == 1 && part < 16) {
      x[0] = load_part(value, part);
    } else {
      EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) x[v] = load(value + 16 * v);
    }
    EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r) {
      const F32 w = splat(weight[r * line + j]);
      EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = fma(w, x[v], acc[r][v]);
    }
  }
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r) {
    if (t0 + r >= a.queries) continue;
    float* to = a.out + (t0 + r) * a.query_stride + d;
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) {
      const F32 y = mul(acc[r][v], splat(inverse[r]));
      if (Vectors == 1 && part < 16) store_part(to, y, part);
      else store(to + 16 * v, y);
    }
  }
}

template <int Rows>
EDGEDEC_INLINE void mix_all(const Attention& a, const float* weight, int64_t line, int64_t n,
                            const float* inverse, int64_t t0) {
  constexpr int kWide = 4;
  int64_t d = 0;
  for (; d + 16 * kWide <= a.size; d += 16 * kWide) {
    mix<Rows, kWide>(a, weight, line, n, inverse, t0, d);
  }
  for (; d < a.size; d += 16) mix<Rows, 1>(a, weight, line, n, inverse, t0, d);
}

// One query after another, keys as they lie.
static void few_queries(const Attention& a, float* score) {
  for (int64_t t = 0; t < a.queries; ++t) {
    const float* q = a.query + t * a.query_stride;
    const int64_t n = seen(a, t);
    for (int64_t j = 0; j < n; ++j) score[j] = inner(q, a.key + j * a.stride, a.size);
    for (int64_t j = 0; j < n; j += 16) {
      const F32 product = n - j >= 16 ? load(score + j)
                                      : load_part(score + j, static_cast<int>(n - j));
      store(score + j, with_bias(a, t, j, product));
    }
    const float inverse = 1.0f / soften(score, n);
    mix_all<1>(a, score, 0, n, &inverse, t);
  }
}

// Scores of Rows queries for Vectors * 16 positions from `j` on; keys are transposed.
template <int Rows, int Vectors>
EDGEDEC_INLINE void score_tile(const Attention& a, const float* keys, int64_t line, int64_t t0,
                               int64_t j, float* score) {
  const float* q[Rows];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r) {
    const int64_t t = t0 + r < a.queries ? t0 + r : a.queries - 1;
    q[r] = a.query + t * a.query_stride;
  }
  F32 acc[Rows][Vectors];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r)
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = splat(0.0f);
  keys += j;
  for (int64_t d = 0; d < a.size; ++d, keys += line) {
    F32 k[Vectors];
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) k[v] = load(keys + 16 * v);
    EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r) {
      const F32 x = splat(q[r][d]);
      EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = fma(x, k[v], acc[r][v]);
    }
  }
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r)
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) {
      const int64_t at = j + 16 * v;
      if (at < a.positions) store(score + r * line + at, with_bias(a, t0 + r, at, acc[r][v]));
    }
}

static void transpose_keys(const Attention& a, int64_t n, int64_t line, float* to) {
  constexpr int64_t kTile = 16;  // positions whose keys stay in the cache meanwhile
  for (int64_t j0 = 0; j0 < n; j0 += kTile) {
    const int64_t j1 = j0 + kTile < n ? j0 + kTile : n;
    for (int64_t d = 0; d < a.size; ++d) {
      float* row = to + d * line;
      for (int64_t j = j0; j < j1; ++j) row[j] = a.key[j * a.stride + d];
    }
  }
  for (int64_t d = 0; d < a.size; ++d)
    for (int64_t j = n; j < line; ++j) to[d * line + j] = 0.0f;
}

static void many_queries(const Attention& a, float* scratch) {
  const int64_t all = seen(a, a.queries - 1);
  const int64_t line = round_up(all, 64);
  float* keys = scratch;
  float* score = scratch + line * a.size;
  transpose_keys(a, all, line, keys);
  for (int64_t t0 = 0; t0 < a.queries; t0 += kQueryRows) {
    const int64_t last = t0 + kQueryRows < a.queries ? t0 + kQueryRows : a.queries;
    const int64_t n = seen(a, last - 1);
    for (int64_t j = 0; j < n; j += 16 * kKeyVectors) {
      score_tile<kQueryRows, kKeyVectors>(a, keys, line, t0, j, score);
    }
    float inverse[kQueryRows];
    const int64_t padded = round_up(n, 16);
    for (int r = 0; r < kQueryRows; ++r) {
      const int64_t own = seen(a, t0 + r < last ? t0 + r : last - 1);
      inverse[r] = 1.0f / soften(score + r * line, own);
      for (int64_t j = round_up(own, 16); j < padded; ++j) score[r * line + j] = 0.0f;
    }
    mix_all<kQueryRows>(a, score, line, n, inverse, t0);
  }
}

static void attention(const Attention& a, float* scratch) {
  if (a.queries > kFewQueries) many_queries(a, scratch);
  else few_queries(a, scratch);
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
