// What the vector types and the routines need of the compiler.
//
// Every function of the vector types is inlined: they are compiled once per instruction set, and a
// copy that the linker shared between two sets would crash on the lesser machine.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define EDGEDEC_INLINE static __forceinline
#define EDGEDEC_NOINLINE static __declspec(noinline)
#else
#define EDGEDEC_INLINE static inline __attribute__((always_inline))
#define EDGEDEC_NOINLINE static __attribute__((noinline))
#endif

// Before a loop over the vectors of a tile: an index that is left over at run time would send the
// vectors through memory, which halves the speed.
#if defined(__clang__)
#define EDGEDEC_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define EDGEDEC_UNROLL _Pragma("GCC unroll 16")
#else
#define EDGEDEC_UNROLL
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
