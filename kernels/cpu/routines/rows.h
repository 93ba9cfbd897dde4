// What a decoder does with whole rows between its products.
#pragma once

#include <cmath>

#include "channels.h"
#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

// sum = x + delta; y = sum / rms(sum) * scale
static void add_norm(const float* x, const float* delta, const float* scale, float epsilon,
                     int64_t rows, int64_t n, float* sum_out, float* y) {
  for (int64_t m = 0; m < rows; ++m, x += n, delta += n, sum_out += n, y += n) {
    F32 squares = splat(0.0f);
    for (int64_t k = 0; k < n; k += 16) {
      const F32 v = add(load_channels(x + k, n - k), load_channels(delta + k, n - k));
      squares = fma(v, v, squares);
      store_channels(sum_out + k, v, n - k);
    }
    const float mean = sum(squares) / static_cast<float>(n);
    const F32 inverse = splat(1.0f / ::sqrtf(mean + epsilon));
    for (int64_t k = 0; k < n; k += 16) {
      const F32 v = mul(load_channels(sum_out + k, n - k), inverse);
      store_channels(y + k, mul(v, load_channels(scale + k, n - k)), n - k);
    }
  }
}

// The first of the largest.
static int64_t argmax(const float* x, int64_t n) {
  F32 most = splat(x[0]);
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) most = max(most, load(x + k));
  float top = largest(most);
  for (; k < n; ++k) top = x[k] > top ? x[k] : top;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == top) return i;
  }
  return 0;  // nothing equals a NaN
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
