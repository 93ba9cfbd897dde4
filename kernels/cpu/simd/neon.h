// NEON with the dot-product extension (ARMv8.2): four registers hold the 16 lanes.
#pragma once

#include <arm_neon.h>

#include "inline.h"

namespace edgedec {
namespace EDGEDEC_ISA {

constexpr bool kEmulated = false;
constexpr int kOffset7 = 0;
constexpr int kOffset8 = 0;
constexpr int kDirectBlocks = 2;
constexpr int kDirectPanels = 1;
constexpr int kPanelRows = 4;
constexpr int kPanelBlocks = 1;
constexpr int kQueryRows = 4;
constexpr int kKeyVectors = 1;

struct F32 {
  float32x4_t v[4];
};
struct I32 {
  int32x4_t v[4];
};
struct Bytes {
  uint8x16_t v[4];
};
struct Table {
  uint8x16_t v;
};
struct Four {
  int8x16_t v;
};

#define EDGEDEC_EACH for (int i = 0; i < 4; ++i)

EDGEDEC_INLINE F32 load(const float* p) {
  F32 r;
  EDGEDEC_EACH r.v[i] = vld1q_f32(p + 4 * i);
  return r;
}
EDGEDEC_INLINE F32 load_part(const float* p, int n) {
  float padded[16] = {};
  std::memcpy(padded, p, sizeof(float) * static_cast<size_t>(n));
  return load(padded);
}
EDGEDEC_INLINE void store(float* p, F32 a) { EDGEDEC_EACH vst1q_f32(p + 4 * i, a.v[i]); }
EDGEDEC_INLINE void store_part(float* p, F32 a, int n) {
  float padded[16];
  store(padded, a);
  std::memcpy(p, padded, sizeof(float) * static_cast<size_t>(n));
}
EDGEDEC_INLINE F32 splat(float x) {
  F32 r;
  EDGEDEC_EACH r.v[i] = vdupq_n_f32(x);
  return r;
}
EDGEDEC_INLINE I32 splat(int32_t x) {
  I32 r;
  EDGEDEC_EACH r.v[i] = vdupq_n_s32(x);
  return r;
}
EDGEDEC_INLINE F32 add(F32 a, F32 b) {
  EDGEDEC_EACH a.v[i] = vaddq_f32(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE I32 add(I32 a, I32 b) {
  EDGEDEC_EACH a.v[i] = vaddq_s32(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE F32 sub(F32 a, F32 b) {
  EDGEDEC_EACH a.v[i] = vsubq_f32(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE F32 mul(F32 a, F32 b) {
  EDGEDEC_EACH a.v[i] = vmulq_f32(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE F32 max(F32 a, F32 b) {
  EDGEDEC_EACH a.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE I32 max(I32 a, I32 b) {
  EDGEDEC_EACH a.v[i] = vmaxq_s32(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE F32 fma(F32 a, F32 b, F32 c) {
  EDGEDEC_EACH c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
EDGEDEC_INLINE float sum(F32 a) {
  const float32x4_t four =
      vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
EDGEDEC_INLINE float largest(F32 a) {
  float v[16];
  store(v, a);
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  return v[0];
}
EDGEDEC_INLINE float32x4_t quarter(F32 a) {
  return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
}
EDGEDEC_INLINE float32x4_t halves(F32 a, F32 b) {
  const float32x4_t x = quarter(a), y = quarter(b);
  return vaddq_f32(vcombine_f32(vget_low_f32(x), vget_low_f32(y)),
                   vcombine_f32(vget_high_f32(x), vget_high_f32(y)));
}
EDGEDEC_INLINE F32 sums(const F32 (&a)[16]) {
  F32 r;
  EDGEDEC_EACH r.v[i] =
      vpaddq_f32(halves(a[4 * i], a[4 * i + 1]), halves(a[4 * i + 2], a[4 * i + 3]));
  return r;
}
EDGEDEC_INLINE int32_t sum(I32 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[2]), vaddq_s32(a.v[1], a.v[3])));
}
EDGEDEC_INLINE int32_t largest(I32 a) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[2]), vmaxq_s32(a.v[1], a.v[3])));
}
EDGEDEC_INLINE F32 to_float(I32 a) {
  F32 r;
  EDGEDEC_EACH r.v[i] = vcvtq_f32_s32(a.v[i]);
  return r;
}
EDGEDEC_INLINE I32 round_to_int(F32 a) {
  I32 r;
  EDGEDEC_EACH r.v[i] = vcvtnq_s32_f32(a.v[i]);
  return r;
}
EDGEDEC_INLINE F32 power_of_two(I32 n) {
  F32 r;
  EDGEDEC_EACH r.v[i] =
      vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v[i], vdupq_n_s32(127)), 23));
  return r;
}
EDGEDEC_INLINE I32 magnitude(F32 a) {
  I32 r;
  EDGEDEC_EACH r.v[i] = vandq_s32(vreinterpretq_s32_f32(a.v[i]), vdupq_n_s32(0x7fffffff));
  return r;
}
EDGEDEC_INLINE void store_bytes(int8_t* p, I32 a) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t hi = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
EDGEDEC_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

EDGEDEC_INLINE Bytes bytes(const uint8_t* p) {
  Bytes r;
  EDGEDEC_EACH r.v[i] = vld1q_u8(p + 16 * i);
  return r;
}
EDGEDEC_INLINE void store(uint8_t* p, Bytes a) { EDGEDEC_EACH vst1q_u8(p + 16 * i, a.v[i]); }
template <int N>
EDGEDEC_INLINE Bytes shift(Bytes a) {
  if constexpr (N == 0) return a;
  EDGEDEC_EACH a.v[i] = vshrq_n_u8(a.v[i], N ? N : 1);
  return a;
}
template <int N>
EDGEDEC_INLINE Bytes shift_left(Bytes a) {
  EDGEDEC_EACH a.v[i] = vshlq_n_u8(a.v[i], N);
  return a;
}
template <int M>
EDGEDEC_INLINE Bytes mask(Bytes a) {
  EDGEDEC_EACH a.v[i] = vandq_u8(a.v[i], vdupq_n_u8(M));
  return a;
}
EDGEDEC_INLINE Bytes either(Bytes a, Bytes b) {
  EDGEDEC_EACH a.v[i] = vorrq_u8(a.v[i], b.v[i]);
  return a;
}
EDGEDEC_INLINE Bytes flip(Bytes a) {
  EDGEDEC_EACH a.v[i] = veorq_u8(a.v[i], vdupq_n_u8(0x80));
  return a;
}
EDGEDEC_INLINE Table table(const uint8_t* p) { return {vld1q_u8(p)}; }
EDGEDEC_INLINE Bytes code(Bytes a) { return mask<15>(a); }
EDGEDEC_INLINE Bytes lookup(Table t, Bytes a) {
  EDGEDEC_EACH a.v[i] = vqtbl1q_u8(t.v, a.v[i]);
  return a;
}
EDGEDEC_INLINE Four four(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return {vreinterpretq_s8_s32(vdupq_n_s32(x))};
}
EDGEDEC_INLINE I32 dot7(I32 acc, Bytes w, Four x) {
  EDGEDEC_EACH acc.v[i] = vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), x.v);
  return acc;
}
EDGEDEC_INLINE I32 dot8(I32 acc, Bytes w, Four x) { return dot7(acc, flip(w), x); }
template <int B>
EDGEDEC_INLINE F32 byte_as_float(Bytes a) {
  F32 r;
  EDGEDEC_EACH {
    const int32x4_t row = vreinterpretq_s32_u8(a.v[i]);
    if constexpr (B == 3) {
      r.v[i] = vcvtq_f32_s32(vshrq_n_s32(row, 24));
    } else {
      r.v[i] = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(row, 24 - 8 * B), 24));
    }
  }
  return r;
}

#undef EDGEDEC_EACH

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
