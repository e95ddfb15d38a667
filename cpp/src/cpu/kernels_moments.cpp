// The kernels that take moments of data and write nothing of its size.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/task_kernels.h"

namespace normkit::detail {
namespace {

template <class S, class C>
struct DataMoments {
  static const JobKernels& kernels(const Job& job) {
    if (job.operands[operand_weight] != nullptr) {
      using Rule = VarianceRule<Of::weighed_with_range>;
      return kernels_for<S, double, Rule, NoMap, Rule, NoTiles>(job);
    }
    if (job.statistic == Statistic::range) return kernels_for<S, C, ValidRangeRule, NoMap>(job);
    return kernels_for<S, C, VarianceRule<Of::valid_with_range>, NoMap>(job);
  }
};

}  // namespace

NORMKIT_TABLE(moments) = TableOf<DataMoments>::table;

}  // namespace normkit::detail
