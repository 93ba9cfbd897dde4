// Defines `routines` of the instruction set whose vector types were included before.
#pragma once

#include "attention.h"
#include "matmul.h"
#include "quantize.h"
#include "rows.h"

namespace edgedec {
namespace EDGEDEC_ISA {

extern const Routines routines;
const Routines routines = {EDGEDEC_ISA_NAME, kEmulated, quantize, direct,   panel,
                           floats,           attention, add_norm, argmax};

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
