// Every function of the vector types is inlined: they are compiled once per instruction set, and a
// copy that the linker shared between two sets would crash on the lesser machine.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define EDGEDEC_INLINE static __forceinline
#define EDGEDEC_INLINE_LAMBDA
#else
#define EDGEDEC_INLINE static inline __attribute__((always_inline))
#define EDGEDEC_INLINE_LAMBDA __attribute__((always_inline))
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
