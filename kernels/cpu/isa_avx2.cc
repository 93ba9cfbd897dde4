#if defined(__x86_64__) || defined(_M_X64)
#define EDGEDEC_ISA avx2
#define EDGEDEC_ISA_NAME "avx2"
#include "simd/avx2.h"

#include "routines/table.h"
#endif
