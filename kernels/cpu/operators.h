// The operators of the library.
#pragma once

#include "abi.h"

namespace edgedec {

const OrtCustomOp* codebook_matmul();
const OrtCustomOp* codebook_gather();
const OrtCustomOp* decode_attention();
const OrtCustomOp* memory_attention();
const OrtCustomOp* add_rms_norm();
const OrtCustomOp* arg_max();
const OrtCustomOp* kernel_info();

}  // namespace edgedec
