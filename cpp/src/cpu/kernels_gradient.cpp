// The kernels of backward passes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/gradient.h"
#include "cpu/task_kernels.h"

namespace normkit::detail {
namespace {

template <bool fused>
struct Differentiate {
  static constexpr bool lanes_given = true;
  static constexpr bool adds = false;
  static constexpr bool splits = !fused;
  static bool split(const Job& job, bool rows, bool params_vary) {
    return !job.given && (job.weighs ? params_vary : !rows);
  }
  template <class C, class S, bool lanes_vary, bool usual>
  using Map = GradientMap<C, S, fused, !lanes_vary, usual>;
};

template <class S, class C>
struct Backward {
  template <bool fused, Column column, class Then>
  static NORMKIT_INLINE const JobKernels& by(const Job& job) {
    return kernels_for<S, C, GradientRule<fused, column, false>, Then, GradientRule<fused, column, true>>(job);
  }

  static const JobKernels& kernels(const Job& job) {
    const bool fused = is_fused(job);
    if (job.column == Column::parameters) {
      return fused ? by<true, Column::parameters, NoMap>(job) : by<false, Column::parameters, NoMap>(job);
    }
    return fused ? by<true, Column::statistics, Differentiate<true>>(job)
                 : by<false, Column::statistics, Differentiate<false>>(job);
  }
};

}  // namespace

NORMKIT_TABLE(gradient) = TableOf<Backward>::table;

}  // namespace normkit::detail
