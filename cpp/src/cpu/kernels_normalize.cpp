// The kernels of forward passes and of the scaling of data.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wmaybe-uninitialized"  // GCC 12 does not see that as many lanes are read as are written
#endif

#include "cpu/range_rules.h"
#include "cpu/task_kernels.h"

namespace normkit::detail {
namespace {

template <class S, class C>
struct Forward {
  static const JobKernels& kernels(const Job& job) {
    switch (job.statistic) {
      case Statistic::mean_square: return kernels_for<S, C, MeanSquareRule, NormalizeUncentred>(job);
      case Statistic::range: return kernels_for<S, C, RangeRule, Rescale>(job);
      default: break;
    }
    if (job.operands[operand_mask] != nullptr) return kernels_for<S, C, VarianceRule<Of::valid>, NormalizeFused>(job);
    const bool adds_residual = job.operands[operand_second] != nullptr && !job.adds;
    if (is_fused(job) || adds_residual) return kernels_for<S, C, VarianceRule<Of::all>, NormalizeFused>(job);
    return kernels_for<S, C, VarianceRule<Of::all>, Normalize>(job);
  }
};

}  // namespace

NORMKIT_TABLE(normalize) = TableOf<Forward>::table;

}  // namespace normkit::detail
