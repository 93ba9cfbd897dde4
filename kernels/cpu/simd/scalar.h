// The reference: plain C++, any machine. Every other header must give the same bits.
#pragma once

#include <cmath>

#include "inline.h"

namespace edgedec {
namespace EDGEDEC_ISA {

constexpr bool kEmulated = false;
constexpr int kOffset7 = 0;
constexpr int kOffset8 = 0;
constexpr int kDirectBlocks = 1;
constexpr int kDirectPanels = 1;
constexpr int kPanelRows = 2;
constexpr int kPanelBlocks = 1;
constexpr int kQueryRows = 2;
constexpr int kKeyVectors = 1;

struct F32 {
  float v[16];
};
struct I32 {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};
struct Table {
  uint8_t v[16];
};
struct Four {
  int8_t v[4];
};

#define EDGEDEC_LANES for (int i = 0; i < 16; ++i)
#define EDGEDEC_BYTES for (int i = 0; i < 64; ++i)

EDGEDEC_INLINE F32 load_part(const float* p, int n) {
  F32 r;
  EDGEDEC_LANES r.v[i] = i < n ? p[i] : 0.0f;
  return r;
}
EDGEDEC_INLINE F32 load(const float* p) { return load_part(p, 16); }
EDGEDEC_INLINE void store_part(float* p, F32 a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
EDGEDEC_INLINE void store(float* p, F32 a) { store_part(p, a, 16); }
EDGEDEC_INLINE F32 splat(float x) {
  F32 r;
  EDGEDEC_LANES r.v[i] = x;
  return r;
}
EDGEDEC_INLINE I32 splat(int32_t x) {
  I32 r;
  EDGEDEC_LANES r.v[i] = x;
  return r;
}
EDGEDEC_INLINE F32 add(F32 a, F32 b) {
  EDGEDEC_LANES a.v[i] += b.v[i];
  return a;
}
EDGEDEC_INLINE I32 add(I32 a, I32 b) {
  EDGEDEC_LANES a.v[i] += b.v[i];
  return a;
}
EDGEDEC_INLINE F32 sub(F32 a, F32 b) {
  EDGEDEC_LANES a.v[i] -= b.v[i];
  return a;
}
EDGEDEC_INLINE F32 mul(F32 a, F32 b) {
  EDGEDEC_LANES a.v[i] *= b.v[i];
  return a;
}
EDGEDEC_INLINE F32 max(F32 a, F32 b) {
  EDGEDEC_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
EDGEDEC_INLINE I32 max(I32 a, I32 b) {
  EDGEDEC_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
EDGEDEC_INLINE F32 fma(F32 a, F32 b, F32 c) {
  EDGEDEC_LANES c.v[i] = ::fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
EDGEDEC_INLINE float sum(F32 a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  return a.v[0];
}
EDGEDEC_INLINE float largest(F32 a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  return a.v[0];
}
EDGEDEC_INLINE F32 sums(const F32 (&a)[16]) {
  F32 r;
  EDGEDEC_LANES r.v[i] = sum(a[i]);
  return r;
}
EDGEDEC_INLINE int32_t sum(I32 a) {
  int32_t s = 0;
  EDGEDEC_LANES s += a.v[i];
  return s;
}
EDGEDEC_INLINE int32_t largest(I32 a) {
  int32_t m = a.v[0];
  EDGEDEC_LANES m = a.v[i] > m ? a.v[i] : m;
  return m;
}
EDGEDEC_INLINE F32 to_float(I32 a) {
  F32 r;
  EDGEDEC_LANES r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
EDGEDEC_INLINE I32 round_to_int(F32 a) {
  I32 r;
  EDGEDEC_LANES r.v[i] = static_cast<int32_t>(::nearbyintf(a.v[i]));
  return r;
}
EDGEDEC_INLINE F32 power_of_two(I32 n) {
  F32 r;
  EDGEDEC_LANES {
    const int32_t bits = (n.v[i] + 127) * (1 << 23);
    std::memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
EDGEDEC_INLINE I32 magnitude(F32 a) {
  I32 r;
  EDGEDEC_LANES {
    std::memcpy(&r.v[i], &a.v[i], 4);
    r.v[i] &= 0x7fffffff;
  }
  return r;
}
EDGEDEC_INLINE void store_bytes(int8_t* p, I32 a) { EDGEDEC_LANES p[i] = static_cast<int8_t>(a.v[i]); }
EDGEDEC_INLINE void prefetch(const void*) {}

EDGEDEC_INLINE Bytes bytes(const uint8_t* p) {
  Bytes r;
  std::memcpy(r.v, p, 64);
  return r;
}
EDGEDEC_INLINE void store(uint8_t* p, Bytes a) { std::memcpy(p, a.v, 64); }
template <int N>
EDGEDEC_INLINE Bytes shift(Bytes a) {
  EDGEDEC_BYTES a.v[i] = static_cast<uint8_t>(a.v[i] >> N);
  return a;
}
template <int M>
EDGEDEC_INLINE Bytes mask(Bytes a) {
  EDGEDEC_BYTES a.v[i] &= M;
  return a;
}
EDGEDEC_INLINE Bytes either(Bytes a, Bytes b) {
  EDGEDEC_BYTES a.v[i] |= b.v[i];
  return a;
}
template <int N>
EDGEDEC_INLINE Bytes shift_left(Bytes a) {
  EDGEDEC_BYTES a.v[i] = static_cast<uint8_t>(a.v[i] << N);
  return a;
}
EDGEDEC_INLINE Bytes flip(Bytes a) {
  EDGEDEC_BYTES a.v[i] ^= 0x80;
  return a;
}
EDGEDEC_INLINE Table table(const uint8_t* p) {
  Table r;
  std::memcpy(r.v, p, 16);
  return r;
}
EDGEDEC_INLINE Bytes code(Bytes a) { return mask<15>(a); }
EDGEDEC_INLINE Bytes lookup(Table t, Bytes a) {
  EDGEDEC_BYTES a.v[i] = t.v[a.v[i]];
  return a;
}
EDGEDEC_INLINE Four four(const int8_t* p) {
  Four r;
  std::memcpy(r.v, p, 4);
  return r;
}
EDGEDEC_INLINE I32 dot7(I32 acc, Bytes w, Four x) {
  EDGEDEC_LANES for (int b = 0; b < 4; ++b) acc.v[i] += static_cast<int8_t>(w.v[4 * i + b]) * x.v[b];
  return acc;
}
EDGEDEC_INLINE I32 dot8(I32 acc, Bytes w, Four x) { return dot7(acc, flip(w), x); }
template <int B>
EDGEDEC_INLINE F32 byte_as_float(Bytes a) {
  F32 r;
  EDGEDEC_LANES r.v[i] = static_cast<int8_t>(a.v[4 * i + B]);
  return r;
}

#undef EDGEDEC_LANES
#undef EDGEDEC_BYTES

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
