#include <normkit/runtime.h>

#include <normkit/cuda.h>
#include <normkit/normkit.h>

#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "error.h"

namespace normkit {

void set_num_threads(int threads) {
  if (threads < 0) {
    detail::fail("set_num_threads", "threads must be at least 1, or 0 for the default; got " + std::to_string(threads));
  }
  detail::limit_threads(threads);
}

int get_num_threads() noexcept { return detail::available_threads(); }

BuildInfo build_info() {
  BuildInfo info;
  info.version = NORMKIT_VERSION;
  info.isa = detail::kernel_table().isa;
  for (const auto* table : detail::usable_kernel_tables()) info.isas.emplace_back(table->isa);
  info.threads = get_num_threads();
  info.openmp = true;
  info.cuda = built_with_cuda();
#if defined(__clang__)
  info.compiler = "Clang " __clang_version__;
#elif defined(__GNUC__)
  info.compiler = "GCC " __VERSION__;
#endif
  return info;
}

}  // namespace normkit
