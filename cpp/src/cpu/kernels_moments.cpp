// The kernels that take moments of data and write nothing of its size.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/range_rules.h"
#include "cpu/task_kernels.h"

namespace normkit::detail {
namespace {

template <class S, class C, class Rule, class Tiles = TilesOf<S, C, Rule, NoMap>>
NORMKIT_INLINE const JobKernels& moments_for(const Job& job) {
  using Narrow = Loops<S, C, Rule, NoMap, Kind::narrow>;
  static constexpr JobKernels narrow{{Narrow::run, nullptr, Narrow::fold, Finish<C, Rule>::slabs, nullptr},
                                     Rule::terms};
  return job.side_by_side > 1 ? narrow : kernels_for<S, C, Rule, NoMap, Rule, Tiles>(job);
}

template <class S, class C>
struct DataMoments {
  static const JobKernels& kernels(const Job& job) {
    if (job.operands[operand_weight] != nullptr) {
      return moments_for<S, double, VarianceRule<Of::weighed_with_range>, NoTiles>(job);
    }
    const bool masked = job.operands[operand_mask] != nullptr;
    if (job.statistic == Statistic::range) {
      return masked ? moments_for<S, C, ValidRangeRule<Of::valid_with_range>>(job)
                    : moments_for<S, C, ValidRangeRule<Of::present_with_range>>(job);
    }
    return masked ? moments_for<S, C, VarianceRule<Of::valid_with_range>>(job)
                  : moments_for<S, C, VarianceRule<Of::present_with_range>>(job);
  }
};

}  // namespace

NORMKIT_TABLE(moments) = TableOf<DataMoments>::table;

}  // namespace normkit::detail
