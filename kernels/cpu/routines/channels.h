// Vectors at the end of a row, which may be partial.
#pragma once

#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

// 16 numbers of which `left` are there.
EDGEDEC_INLINE F32 load_channels(const float* p, int64_t left) {
  return left >= 16 ? load(p) : load_part(p, static_cast<int>(left));
}

EDGEDEC_INLINE void store_channels(float* p, F32 x, int64_t left) {
  if (left >= 16) store(p, x);
  else store_part(p, x, static_cast<int>(left));
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
