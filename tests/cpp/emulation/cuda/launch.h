// In place of cpp/src/cuda/launch.h: kernels are run by the host (block.h).
#pragma once

#include <cstdint>
#include <stdexcept>

#include "block.h"
#include "cuda/plan.h"
#include "cuda/runtime.h"
#include "emulation.h"
#include "watch.h"

namespace normkit::detail::cuda {

template <class Kernel>
void launch(const Kernel& kernel, const Launch& shape) {
  check_blocks(shape.blocks);
  record_launch();
  if (watcher != nullptr) watcher->launch();
  if (shape.threads > Kernel::most_threads) throw std::logic_error("a block of more threads than its kernel allows");
  if (shape.blocks % shape.cluster != 0) throw std::logic_error("a cluster that lacks blocks");
  for (std::int64_t b = 0; b < shape.blocks; b += shape.cluster) {
    EmulatedBlock block(b, shape.cluster, shape.threads, shape.shared_bytes);
    block.run([&] { kernel(block); });
  }
}

}  // namespace normkit::detail::cuda
