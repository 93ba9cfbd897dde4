// float32 activations to int8, symmetric, one scale per row or per block of a row.
#pragma once

#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

// Below this magnitude (2^-100, as bits) a block counts as zero: its scale's inverse would overflow.
constexpr int32_t kTiny = (127 - 100) << 23;
constexpr int32_t kInfinite = 0xff << 23;

EDGEDEC_INLINE void quantize_block(const float* x, int64_t n, int8_t* q, float* scale,
                                   int32_t* sums) {
  const int64_t whole = n & ~int64_t{15};
  const int rest = static_cast<int>(n - whole);
  I32 most = splat(0);
  for (int64_t k = 0; k < whole; k += 16) most = max(most, magnitude(load(x + k)));
  if (rest) most = max(most, magnitude(load_part(x + whole, rest)));
  const int32_t bits = largest(most);
  float peak;
  std::memcpy(&peak, &bits, sizeof peak);
  float inverse = 0.0f;
  *scale = 0.0f;
  if (bits >= kInfinite) {
    const int32_t nan = 0x7fc00000;
    std::memcpy(scale, &nan, sizeof nan);
  } else if (bits >= kTiny) {
    inverse = 127.0f / peak;
    *scale = peak / 127.0f;
  }
  const F32 factor = splat(inverse);
  I32 total = splat(0);
  if (bits >= kInfinite) {  // infinity times zero must not reach the conversion
    std::memset(q, 0, static_cast<size_t>(n));
  } else {
    for (int64_t k = 0; k < whole; k += 16) {
      const I32 v = round_to_int(mul(load(x + k), factor));
      total = add(total, v);
      store_bytes(q + k, v);
    }
    if (rest) {
      const I32 v = round_to_int(mul(load_part(x + whole, rest), factor));
      total = add(total, v);
      int8_t last[16];
      store_bytes(last, v);
      std::memcpy(q + whole, last, static_cast<size_t>(rest));
    }
  }
  *sums = sum(total);
}

static void quantize(const float* x, int64_t rows, int64_t columns, int64_t padded,
                     int64_t scale_block, int8_t* q, float* scale, int32_t* sums) {
  for (int64_t m = 0; m < rows; ++m, x += columns, q += padded) {
    for (int64_t k = 0; k < columns; k += scale_block) {
      const int64_t n = columns - k < scale_block ? columns - k : scale_block;
      quantize_block(x + k, n, q + k, scale++, sums++);
    }
    std::memset(q + columns, 0, static_cast<size_t>(padded - columns));
  }
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
