// Which instruction set runs: the best that this machine has, or the one that EDGEDEC_ISA names.
#pragma once

#include <string>

#include "routines/routines.h"

namespace edgedec {

// Sets `routines()` for good. Throws Error when EDGEDEC_ISA names none that can run here.
void choose_routines();
const Routines& routines();

// "chosen;best,second,...,scalar": the names that EDGEDEC_ISA may have here.
std::string describe_routines();

// Every instruction set that this machine can run, best first, ended by null.
const Routines* const* available_routines();

}  // namespace edgedec
