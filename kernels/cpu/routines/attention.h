// Attention, in float32.
//
// A score is scale * q.k + bias + mask. Sums run over 16 lanes or one by one, in an order that
// does not depend on the instruction set.
#pragma once

#include "channels.h"
#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

// e^x for -60 <= x <= 0, within 2 ulp. What is not a number stays so.
EDGEDEC_INLINE F32 power_of_e(F32 x) {
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

// e^x - e^-60 for x <= 0, and 0 below -60. In a sum of weights that is at least 1 nobody sees the
// difference, but weights around 1e-38 would make every product with them a denormal number, which
// takes processors a hundred times as long.
EDGEDEC_INLINE F32 exponential(F32 x) {
  const F32 lowest = splat(-60.0f);
  return max(splat(0.0f), sub(power_of_e(max(lowest, x)), power_of_e(lowest)));
}

constexpr float kUnseen = -3.0e38f;  // the score of a key that a query must not see

// How many positions query t sees.
EDGEDEC_INLINE int64_t seen(const Attention& a, int64_t t) {
  if (!a.causal) return a.positions;
  const int64_t n = a.first + t + 1;
  return n < a.positions ? n : a.positions;
}

// The bias of 16 positions from j on, for query t: its line has 16 copies of each end around it.
EDGEDEC_INLINE F32 bias_of(const Attention& a, int64_t head, int64_t t, int64_t j) {
  int64_t i = a.bias_length - 1 - a.origin - (a.first + t) + j;
  if (i < -16) i = -16;
  if (i > a.bias_length) i = a.bias_length;
  return load(a.bias + head * a.bias_stride + 16 + i);
}

EDGEDEC_INLINE F32 with_bias(const Attention& a, int64_t head, int64_t t, int64_t j, F32 product) {
  const F32 score = add(mul(product, splat(a.scale)), bias_of(a, head, t, j));
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

// Adds up weighted values for Rows queries and Vectors * 16 channels from `d` on.
template <int Rows, int Vectors>
EDGEDEC_INLINE void mix(const Attention& a, const float* value, const float* weight, int64_t line,
                        int64_t n, const float* inverse, int64_t t0, int64_t d) {
  const int part = a.size - d < 16 ? static_cast<int>(a.size - d) : 16;
  F32 acc[Rows][Vectors];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r)
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = splat(0.0f);
  value += d;
  for (int64_t j = 0; j < n; ++j, value += a.size) {
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

constexpr int64_t kPositionsAhead = 4;  // which memory is asked for meanwhile

// A single query at a time. Keys and values are read as they lie, all heads of one position before
// the next position: from end to end, which is what memory does fastest.

// The keys (or values) of one head after another at one position; `group` query heads share each.
struct HeadOfKeys {
  const float* at;
  int64_t size, group, left;

  HeadOfKeys(const Attention& a, const float* position)
      : at(position), size(a.size), group(a.group), left(a.group) {}

  const float* next() {
    const float* now = at;
    if (--left == 0) {
      at += size;
      left = group;
    }
    return now;
  }
};

// to[h][i] = the 16 lanes of query head h times key i, not yet added up.
template <int Vectors>
EDGEDEC_INLINE void multiply_key(const Attention& a, const float* query, const float* key,
                                 float* to) {
  HeadOfKeys shared(a, key);
  for (int64_t h = 0; h < a.heads; ++h, query += a.size, to += 256) {
    const float* k = shared.next();
    F32 s = splat(0.0f);
    if constexpr (Vectors) {
      EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) {
        prefetch(k + kPositionsAhead * a.stride + 16 * v);
        s = fma(load(query + 16 * v), load(k + 16 * v), s);
      }
    } else {
      for (int64_t d = 0; d < a.size; d += 16)
        s = fma(load_channels(query + d, a.size - d), load_channels(k + d, a.size - d), s);
    }
    store(to, s);
  }
}

// out += weights of 4 positions times their values, for every head.
template <int Vectors>
EDGEDEC_INLINE void add_values(const Attention& a, const float* value, const float* weight,
                               int64_t line, float* out) {
  HeadOfKeys shared(a, value);
  for (int64_t h = 0; h < a.heads; ++h, out += a.size, weight += line) {
    const float* x = shared.next();
    F32 w[4];
    EDGEDEC_UNROLL for (int i = 0; i < 4; ++i) w[i] = splat(weight[i]);
    if constexpr (Vectors) {
      EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) {
        F32 y = load(out + 16 * v);
        EDGEDEC_UNROLL for (int i = 0; i < 4; ++i) {
          prefetch(x + (kPositionsAhead + i) * a.stride + 16 * v);
          y = fma(w[i], load(x + i * a.stride + 16 * v), y);
        }
        store(out + 16 * v, y);
      }
    } else {
      for (int64_t d = 0; d < a.size; d += 16) {
        const int64_t left = a.size - d;
        F32 y = load_channels(out + d, left);
        EDGEDEC_UNROLL for (int i = 0; i < 4; ++i)
          y = fma(w[i], load_channels(x + i * a.stride + d, left), y);
        store_channels(out + d, y, left);
      }
    }
  }
}

template <int Vectors>
EDGEDEC_NOINLINE void one_query(const Attention& a, int64_t t, float* scratch) {
  const float* q = a.query + t * a.query_stride;
  float* out = a.out + t * a.query_stride;
  const int64_t n = seen(a, t);
  const int64_t line = round_up(n, 16);
  float* product = scratch;                   // [heads][16 positions][16 lanes]
  float* score = scratch + a.heads * 256;     // [heads][line]
  for (int64_t j = 0; j < n; j += 16) {
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t at = j + i < n ? j + i : n - 1;  // the last one again
      multiply_key<Vectors>(a, q, a.key + at * a.stride, product + 16 * i);
    }
    for (int64_t h = 0; h < a.heads; ++h) {
      F32 lanes[16];
      EDGEDEC_UNROLL for (int i = 0; i < 16; ++i) lanes[i] = load(product + 256 * h + 16 * i);
      store(score + h * line + j, with_bias(a, h, t, j, sums(lanes)));
    }
  }
  for (int64_t h = 0; h < a.heads; ++h) {
    const F32 inverse = splat(1.0f / soften(score + h * line, n));
    for (int64_t j = 0; j < line; j += 16) {
      store(score + h * line + j, mul(load(score + h * line + j), inverse));
    }
    for (int64_t j = n; j < line; ++j) score[h * line + j] = 0.0f;
  }
  std::memset(out, 0, sizeof(float) * static_cast<size_t>(a.heads * a.size));
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) {
    add_values<Vectors>(a, a.value + j * a.stride, score + j, line, out);
  }
  for (; j < n; ++j) {
    HeadOfKeys shared(a, a.value + j * a.stride);
    for (int64_t h = 0; h < a.heads; ++h) {
      const F32 w = splat(score[h * line + j]);
      const float* x = shared.next();
      for (int64_t d = 0; d < a.size; d += 16) {
        const int64_t left = a.size - d;
        float* to = out + h * a.size + d;
        const F32 y = fma(w, load_channels(x + d, left), load_channels(to, left));
        store_channels(to, y, left);
      }
    }
  }
}

static void few_queries(const Attention& a, float* scratch) {
  for (int64_t t = 0; t < a.queries; ++t) {
    if (a.size == 64) one_query<4>(a, t, scratch);
    else one_query<0>(a, t, scratch);
  }
}

// Keys and values of a head are copied to where many queries read them from end to end: values
// position by position, keys channel by channel in blocks of this many positions.
constexpr int64_t kKeyBlock = 64;

static void copy_head(const Attention& a, int64_t n, float* keys, float* values) {
  const size_t row = sizeof(float) * static_cast<size_t>(a.size);
  float* together = values;  // rows of the block, before they are transposed
  for (int64_t j0 = 0; j0 < n; j0 += kKeyBlock, keys += kKeyBlock * a.size) {
    const int64_t count = n - j0 < kKeyBlock ? n - j0 : kKeyBlock;
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(together + j * a.size, a.key + (j0 + j) * a.stride, row);
    }
    std::memset(together + count * a.size, 0, row * static_cast<size_t>(kKeyBlock - count));
    for (int64_t d = 0; d < a.size; ++d)
      for (int64_t j = 0; j < kKeyBlock; ++j) keys[d * kKeyBlock + j] = together[j * a.size + d];
  }
  for (int64_t j = 0; j < n; ++j) {
    std::memcpy(values + j * a.size, a.value + j * a.stride, row);
  }
}

// Scores of Rows queries for Vectors * 16 positions from `j` on.
template <int Rows, int Vectors>
EDGEDEC_NOINLINE void score_tile(const Attention& a, const float* keys, int64_t line, int64_t t0,
                                 int64_t j, float* score) {
  const float* q[Rows];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r) {
    const int64_t t = t0 + r < a.queries ? t0 + r : a.queries - 1;
    q[r] = a.query + t * a.query_stride;
  }
  F32 acc[Rows][Vectors];
  EDGEDEC_UNROLL for (int r = 0; r < Rows; ++r)
    EDGEDEC_UNROLL for (int v = 0; v < Vectors; ++v) acc[r][v] = splat(0.0f);
  keys += j / kKeyBlock * kKeyBlock * a.size + j % kKeyBlock;
  for (int64_t d = 0; d < a.size; ++d, keys += kKeyBlock) {
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
      if (at < a.positions) store(score + r * line + at, with_bias(a, 0, t0 + r, at, acc[r][v]));
    }
}

template <int Rows>
EDGEDEC_NOINLINE void mix_tile(const Attention& a, const float* value, const float* weight,
                               int64_t line, int64_t n, const float* inverse, int64_t t0) {
  constexpr int kWide = 4;
  int64_t d = 0;
  for (; d + 16 * kWide <= a.size; d += 16 * kWide) {
    mix<Rows, kWide>(a, value, weight, line, n, inverse, t0, d);
  }
  for (; d < a.size; d += 16) mix<Rows, 1>(a, value, weight, line, n, inverse, t0, d);
}

static void many_queries(const Attention& a, float* scratch) {
  const int64_t all = seen(a, a.queries - 1);
  const int64_t line = round_up(all, kKeyBlock);
  float* keys = scratch;
  float* values = keys + line * a.size;
  float* score = values + line * a.size;
  copy_head(a, all, keys, values);
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
    mix_tile<kQueryRows>(a, values, score, line, n, inverse, t0);
  }
}

static void attention(const Attention& a, float* scratch) {
  if (a.queries <= kFewQueries) {
    few_queries(a, scratch);
    return;
  }
  Attention one = a;
  one.heads = 1;
  for (int64_t h = 0; h < a.heads; ++h) {
    many_queries(one, scratch);
    one.query += a.size;
    one.out += a.size;
    one.bias += a.bias_stride;
    if ((h + 1) % a.group == 0) {
      one.key += a.size;
      one.value += a.size;
    }
  }
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
