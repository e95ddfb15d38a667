// In place of cpp/src/cuda/launch.h: kernels are what nvcc made of them, in PTX.
#pragma once

#include <typeinfo>

#include "cuda/plan.h"
#include "cuda/runtime.h"
#include "machine.h"

namespace normkit::detail::cuda {

void record_launch();  // emulation.cpp

template <class Kernel>
void launch(const Kernel& kernel, const Launch& shape) {
  check_blocks(shape.blocks);
  record_launch();
  static const ptx::Entry& entry = ptx::entry_of(typeid(Kernel).name());
  ptx::run(entry, &kernel, sizeof kernel, shape.blocks, shape.cluster, shape.threads, shape.shared_bytes);
}

}  // namespace normkit::detail::cuda
