// Compiled once per instruction set, with its flags and NORMKIT_ISA_NAME; exports one symbol, the table.
#include "cpu/kernels.h"

#define NORMKIT_JOIN_(a, b) a##b
#define NORMKIT_JOIN(a, b) NORMKIT_JOIN_(a, b)
#define NORMKIT_STRING_(a) #a
#define NORMKIT_STRING(a) NORMKIT_STRING_(a)

namespace normkit::detail {
namespace {

template <class S, class C, class Rule>
NORMKIT_INLINE const Kernels& kernels_for(Schedule schedule) {
  using Rows = Loops<S, C, Rule, true>;
  using Columns = Loops<S, C, Rule, false>;
  static constexpr Kernels rows{Rows::normalize, Rows::fold, Rows::finish, Rows::map};
  static constexpr Kernels columns{Columns::normalize, Columns::fold, Columns::finish, Columns::map};
  return schedule == Schedule::rows ? rows : columns;
}

// The schedule and the rule are looked up once per call, not per element.
template <class S, class C>
struct Entry {
  static const Kernels& kernels(const Job& job) {
    const Schedule schedule = job.geometry.schedule;
    switch (job.statistic) {
      case Statistic::mean_square: return kernels_for<S, C, MeanSquareRule>(schedule);
      case Statistic::range: return kernels_for<S, C, RangeRule>(schedule);
      default: return kernels_for<S, C, VarianceRule>(schedule);
    }
  }
  static void normalize(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels(job).normalize(job, begin, end);
  }
  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels(job).fold(job, begin, end);
  }
  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels(job).finish(job, begin, end);
  }
  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept { kernels(job).map(job, begin, end); }

  static constexpr Kernels table{normalize, fold, finish, map};
};

}  // namespace

extern const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME);
const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME) = {
    NORMKIT_STRING(NORMKIT_ISA_NAME),
    {Entry<float, float>::table, Entry<double, double>::table, Entry<Float16, float>::table,
     Entry<BFloat16, float>::table},
};

}  // namespace normkit::detail
