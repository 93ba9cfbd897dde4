#define EDGEDEC_ISA scalar
#define EDGEDEC_ISA_NAME "scalar"
#include "simd/scalar.h"

#include "routines/table.h"
