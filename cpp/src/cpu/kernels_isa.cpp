// Compiled once per instruction set, with its flags and NORMKIT_ISA_NAME; exports one symbol, the table.
#include "cpu/kernels.h"
#include "cpu/tiles.h"

#define NORMKIT_JOIN_(a, b) a##b
#define NORMKIT_JOIN(a, b) NORMKIT_JOIN_(a, b)
#define NORMKIT_STRING_(a) #a
#define NORMKIT_STRING(a) NORMKIT_STRING_(a)

namespace normkit::detail {
namespace {

struct JobKernels {
  Kernels kernels;
  int terms;
};

template <class S, class C, class Rule, class Then>
NORMKIT_INLINE const JobKernels& kernels_for(Schedule schedule) {
  using Rows = Loops<S, C, Rule, Then, true>;
  using Columns = Loops<S, C, Rule, Then, false>;
  static constexpr JobKernels rows{{Rows::run, nullptr, Rows::fold, Rows::finish, Rows::map}, Rule::terms};
  static constexpr JobKernels columns{{Columns::run, nullptr, Columns::fold, Columns::finish, Columns::map},
                                      Rule::terms};
  return schedule == Schedule::rows ? rows : columns;
}

template <class S, class C, bool fused>
NORMKIT_INLINE const JobKernels& gradient_kernels(const Job& job) {
  const Schedule schedule = job.geometry.schedule;
  if (job.column == Column::parameters) {
    return kernels_for<S, C, GradientRule<fused, Column::parameters>, NoMap>(schedule);
  }
  return kernels_for<S, C, GradientRule<fused, Column::statistics>, Differentiate<fused>>(schedule);
}

// The schedule, the rule and the map are looked up once per call, not per element.
template <class S, class C>
const JobKernels& kernels_of(const Job& job) {
  const Schedule schedule = job.geometry.schedule;
  const bool masked = job.operands[operand_mask] != nullptr;
  const bool fused = masked || job.activation != Activation::none || job.operands[operand_extra] != nullptr;
  if (job.task == Task::moments) return kernels_for<S, C, VarianceRule<Of::valid_with_range>, NoMap>(schedule);
  if (job.task == Task::gradient) {
    return fused ? gradient_kernels<S, C, true>(job) : gradient_kernels<S, C, false>(job);
  }
  switch (job.statistic) {
    case Statistic::mean_square: return kernels_for<S, C, MeanSquareRule, NormalizeUncentred>(schedule);
    case Statistic::range: return kernels_for<S, C, RangeRule, Rescale>(schedule);
    default: break;
  }
  if (masked) return kernels_for<S, C, VarianceRule<Of::valid>, NormalizeFused>(schedule);
  const bool adds_residual = job.operands[operand_second] != nullptr && !job.adds;
  if (fused || adds_residual) return kernels_for<S, C, VarianceRule<Of::all>, NormalizeFused>(schedule);
  return kernels_for<S, C, VarianceRule<Of::all>, Normalize>(schedule);
}

template <class S, class C>
struct Entry {
  static void run(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.run(job, begin, end);
  }
  static void run_tiles(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    Tiles<C, S> tiles(job, kernels_of<S, C>(job).terms);
    tiles.run(begin, end, [](const Job& tile) { kernels_of<C, C>(tile).kernels.run(tile, 0, 1); });
  }
  static void fold(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.fold(job, begin, end);
  }
  static void finish(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.finish(job, begin, end);
  }
  static void map(const Job& job, std::int64_t begin, std::int64_t end) noexcept {
    kernels_of<S, C>(job).kernels.map(job, begin, end);
  }

  static constexpr Kernels table{run, run_tiles, fold, finish, map};
};

int terms(const Job& job) noexcept { return kernels_of<float, float>(job).terms; }

}  // namespace

extern const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME);
const KernelTable NORMKIT_JOIN(kernels_, NORMKIT_ISA_NAME) = {
    NORMKIT_STRING(NORMKIT_ISA_NAME),
    terms,
    {Entry<float, float>::table, Entry<double, double>::table, Entry<Float16, float>::table,
     Entry<BFloat16, float>::table},
};

}  // namespace normkit::detail
