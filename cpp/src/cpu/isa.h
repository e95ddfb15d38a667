// Which kernels this machine can run, and which it does run.
#pragma once

#include <span>

#include "cpu/kernel_table.h"

namespace normkit::detail {

/// Tables compiled in and usable on this machine, best first; never empty.
std::span<const KernelTable* const> usable_kernel_tables();

/// The table in use: the best, or the one named by the environment's NORMKIT_ISA, read once. Throws
/// std::invalid_argument when that names none of the usable ones.
const KernelTable& kernel_table();

}  // namespace normkit::detail
