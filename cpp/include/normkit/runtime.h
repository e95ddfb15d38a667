// Threads and instruction sets.
#pragma once

#include <string>
#include <vector>

namespace normkit {

/// Threads used by one call from now on, by any caller. 0 goes back to the default: what OpenMP would use
/// (OMP_NUM_THREADS, else all cores). Results do not depend on it. Throws std::invalid_argument below 0.
void set_num_threads(int threads);
[[nodiscard]] int get_num_threads() noexcept;

struct BuildInfo {
  std::string version;
  std::string isa;                // the instruction set in use; the environment's NORMKIT_ISA forces one
  std::vector<std::string> isas;  // those compiled in and usable on this machine, best first
  int threads;
  bool openmp;
  bool cuda;
  std::string compiler;
};
[[nodiscard]] BuildInfo build_info();

}  // namespace normkit
