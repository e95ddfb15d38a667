#include "cpu/isa.h"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace normkit::detail {

// Each defined by a kernels_*.cpp, compiled with its instruction set's flags.
#define NORMKIT_KERNELS(isa)                                                            \
  extern const TaskKernels normalize_##isa, moments_##isa, gradient_##isa, scale_##isa; \
  static constexpr KernelTable kernels_##isa{#isa, {&normalize_##isa, &moments_##isa, &gradient_##isa, &scale_##isa}};
#if defined(NORMKIT_HAS_AVX512)
NORMKIT_KERNELS(avx512)
#endif
#if defined(NORMKIT_HAS_AVX2)
NORMKIT_KERNELS(avx2)
#endif
#if defined(NORMKIT_HAS_NEON)
NORMKIT_KERNELS(neon)
#endif
#if defined(NORMKIT_HAS_BASELINE)
NORMKIT_KERNELS(baseline)
#endif

namespace {

struct Usable {
  std::array<const KernelTable*, 4> tables{};
  std::size_t count = 0;

  Usable() {
#if defined(NORMKIT_HAS_AVX512)
    // Every feature that the kernels are compiled with; the operating system's part is included in the answer.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && has_avx2()) {
      tables[count++] = &kernels_avx512;
    }
#endif
#if defined(NORMKIT_HAS_AVX2)
    if (has_avx2()) tables[count++] = &kernels_avx2;
#endif
#if defined(NORMKIT_HAS_NEON)
    tables[count++] = &kernels_neon;
#endif
#if defined(NORMKIT_HAS_BASELINE)
    tables[count++] = &kernels_baseline;
#endif
  }

#if defined(NORMKIT_HAS_AVX2) || defined(NORMKIT_HAS_AVX512)
  // F16C has no name for every compiler; no processor has AVX2 without it.
  static bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
};

const KernelTable& choose() {
  const auto usable = usable_kernel_tables();
  if (usable.empty()) {
    throw std::runtime_error(
        "normkit: this build has no kernels that the processor can run; got one without the instruction sets that "
        "NORMKIT_ISAS named; build with `baseline` among them");
  }
  const char* wanted = std::getenv("NORMKIT_ISA");
  if (wanted == nullptr || *wanted == '\0') return *usable.front();
  std::string names;
  for (const KernelTable* table : usable) {
    if (std::string(wanted) == table->isa) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw std::invalid_argument("NORMKIT_ISA: must name an instruction set usable on this machine (" + names +
                              "); got \"" + wanted + "\"");
}

}  // namespace

std::span<const KernelTable* const> usable_kernel_tables() {
  static const Usable usable;
  return {usable.tables.data(), usable.count};
}

const KernelTable& kernel_table() {
  static const KernelTable& table = choose();
  return table;
}

}  // namespace normkit::detail
